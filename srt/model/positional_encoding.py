"""Positional encoding of points and rays (SRT, section 3.1): sines of all octaves, then cosines."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float
from srt.config.schema import ModelConfig
from srt.model.kernels.operators import encode_rows, kernels_run


def encode_octaves(
    coordinates: Float[Tensor, "*points 3"], octaves: int, start: int
) -> Float[Tensor, "*points channels"]:
    """Returns sin and cos of 2^k π x, k = start .. start + octaves - 1: 6 · octaves channels.

    The highest published octave is 2^14 π. In half turns a power of two is exact, and so is leaving
    out whole turns: what is left is small, so that float32 is precise where π would have been
    multiplied by thousands.
    """
    precise = to_precise(coordinates)
    exponents = torch.arange(start, start + octaves, device=precise.device, dtype=precise.dtype)
    turns = (precise[..., None] * exponents.exp2()).flatten(-2)  # (*points, 3 · octaves)
    turns = turns - 2 * (turns / 2).round()
    phases = torch.arange(2, device=precise.device, dtype=precise.dtype) / 2  # of sine and cosine
    return (math.pi * (turns[..., None, :] + phases[:, None])).sin().flatten(-2)


def to_precise(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns float32 of what autocast has made bfloat16; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def in_bfloat16(values: Tensor) -> bool:
    """Returns whether products are computed in bfloat16 here: as autocast says, on a GPU."""
    return values.is_cuda and torch.is_autocast_enabled("cuda")


class Waves(NamedTuple):
    """Coordinates, and of which octaves their encoding has sines and cosines."""

    coordinates: Float[Tensor, "*points 3"]
    octaves: int
    start: int


def of_points(points: Float[Tensor, "*points 3"], config: ModelConfig) -> list[Waves]:
    """Returns what encodes the position of points."""
    return [Waves(points, config.position_octaves, config.position_start_octave)]


def of_directions(directions: Float[Tensor, "*rays 3"], config: ModelConfig) -> list[Waves]:
    """Returns what encodes the unit directions of rays."""
    return [Waves(directions, config.direction_octaves, config.direction_start_octave)]


def of_rays(
    origins: Float[Tensor, "*rays 3"], directions: Float[Tensor, "*rays 3"], config: ModelConfig
) -> list[Waves]:
    """Returns what encodes rays: their origins, then their unit directions."""
    return [*of_points(origins, config), *of_directions(directions, config)]


def encode(waves: list[Waves]) -> Float[Tensor, "*points channels"]:
    """Returns the encoding, part after part."""
    return torch.cat([encode_octaves(*part) for part in waves], dim=-1)


def encode_wide(
    waves: list[Waves], multiple: int, beside: Float[Tensor, "*points _"] | None = None
) -> Float[Tensor, "*points width"]:
    """Returns the encoding, in bfloat16, with channels of 0 up to a multiple.

    Args:
        beside: channels that come first and are not encoded.
    """
    before = [] if beside is None else [beside]
    raw = sum(part.shape[-1] for part in before)
    channels = raw + sum(6 * part.octaves for part in waves)
    width = channels + -channels % multiple
    coordinates = torch.cat((*before, *(part.coordinates for part in waves)), dim=-1)
    if not coordinates.is_cuda or coordinates.requires_grad or not kernels_run():
        plain = torch.cat((*before, encode(waves)), dim=-1)
        return F.pad(plain, (0, width - channels)).bfloat16()
    octaves, starts = [part.octaves for part in waves], [part.start for part in waves]
    rows = coordinates.float().flatten(0, -2)
    encoded = encode_rows(rows, raw, octaves, starts, width)
    return encoded.unflatten(0, coordinates.shape[:-1])


def point_channels(config: ModelConfig) -> int:
    """Returns the number of channels of a point's encoding."""
    return 6 * config.position_octaves


def ray_channels(config: ModelConfig) -> int:
    """Returns the number of channels of a ray's encoding."""
    return point_channels(config) + 6 * config.direction_octaves
