"""Positional encoding of points and rays (SRT, section 3.1): sines of all octaves, then cosines."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float
from srt.config.schema import ModelConfig
from srt.model.kernels.operators import encode_rows, kernels_available


def fourier_features(
    coordinates: Float[Tensor, "*points 3"], octaves: int, start: int
) -> Float[Tensor, "*points channels"]:
    """Returns sin and cos of 2^k π x, k = start .. start + octaves - 1: 6 · octaves channels.

    The highest published octave is 2^14 π. In half turns a power of two is exact, and so is leaving
    out whole turns: what is left is small, so that float32 is precise where π would have been
    multiplied by thousands.
    """
    precise = to_float32(coordinates)
    exponents = torch.arange(start, start + octaves, device=precise.device, dtype=precise.dtype)
    turns = (precise[..., None] * exponents.exp2()).flatten(-2)  # (*points, 3 · octaves)
    turns = turns - 2 * (turns / 2).round()
    phases = torch.arange(2, device=precise.device, dtype=precise.dtype) / 2  # of sine and cosine
    return (math.pi * (turns[..., None, :] + phases[:, None])).sin().flatten(-2)


def to_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns float32 of what autocast has made bfloat16; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def uses_bfloat16(values: Tensor) -> bool:
    """Returns whether products are computed in bfloat16 here: as autocast says, on a GPU."""
    return values.is_cuda and torch.is_autocast_enabled("cuda")


class FourierInput(NamedTuple):
    """Coordinates, and of which octaves their encoding has sines and cosines."""

    coordinates: Float[Tensor, "*points 3"]
    octaves: int
    start: int


def point_inputs(points: Float[Tensor, "*points 3"], config: ModelConfig) -> list[FourierInput]:
    """Returns what encodes the position of points."""
    return [FourierInput(points, config.position_octaves, config.position_start_octave)]


def direction_inputs(
    directions: Float[Tensor, "*rays 3"], config: ModelConfig
) -> list[FourierInput]:
    """Returns what encodes the unit directions of rays."""
    return [FourierInput(directions, config.direction_octaves, config.direction_start_octave)]


def ray_inputs(
    origins: Float[Tensor, "*rays 3"], directions: Float[Tensor, "*rays 3"], config: ModelConfig
) -> list[FourierInput]:
    """Returns what encodes rays: their origins, then their unit directions."""
    return [*point_inputs(origins, config), *direction_inputs(directions, config)]


def encode_inputs(inputs: list[FourierInput]) -> Float[Tensor, "*points channels"]:
    """Returns the encoding, part after part."""
    return torch.cat([fourier_features(*part) for part in inputs], dim=-1)


def encode_padded(
    inputs: list[FourierInput], multiple: int, beside: Float[Tensor, "*points _"] | None = None
) -> Float[Tensor, "*points width"]:
    """Returns the encoding, in bfloat16, with channels of 0 up to a multiple.

    Args:
        beside: channels that come first and are not encoded.
    """
    before = [] if beside is None else [beside]
    raw = sum(part.shape[-1] for part in before)
    channels = raw + sum(6 * part.octaves for part in inputs)
    width = channels + -channels % multiple
    coordinates = torch.cat((*before, *(part.coordinates for part in inputs)), dim=-1)
    if not coordinates.is_cuda or coordinates.requires_grad or not kernels_available():
        plain = torch.cat((*before, encode_inputs(inputs)), dim=-1)
        return F.pad(plain, (0, width - channels)).bfloat16()
    octaves, starts = [part.octaves for part in inputs], [part.start for part in inputs]
    rows = coordinates.float().flatten(0, -2)
    encoded = encode_rows(rows, raw, octaves, starts, width)
    return encoded.unflatten(0, coordinates.shape[:-1])


def point_channels(config: ModelConfig) -> int:
    """Returns the number of channels of a point's encoding."""
    return 6 * config.position_octaves


def ray_channels(config: ModelConfig) -> int:
    """Returns the number of channels of a ray's encoding."""
    return point_channels(config) + 6 * config.direction_octaves
