"""The Fourier encoding of points and rays (SRT, section 3.1).

A network that gets plain coordinates blurs fine detail. Each coordinate x is therefore replaced by
sin(2^k π x) and cos(2^k π x) for a range of octaves k: low octaves say roughly where a point is,
high ones separate neighbouring points. A ray is encoded as its origin and its unit direction.

The same encoding exists twice. `encode_inputs` is plain PyTorch. `encode_padded` adds channels of 0
and, on a GPU, uses a kernel that writes each channel once.
"""

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
    """Return sin(2^k π x) and cos(2^k π x) of three coordinates: 6 · octaves channels.

    All sines come first. Within the sines, and within the cosines, the octaves of one coordinate
    stand side by side.

    Args:
        octaves: how many values k takes.
        start: the first k; the last one is start + octaves - 1.
    """
    # Angles are counted in half turns: 2^k x of them are an angle of 2^k π x. Multiplying by a
    # power of two is exact.
    precise = to_float32(coordinates)
    exponents = torch.arange(start, start + octaves, device=precise.device, dtype=precise.dtype)
    half_turns = (precise[..., None] * exponents.exp2()).flatten(-2)  # (*points, 3 · octaves)

    # Removing whole turns is exact as well, and leaves a number in [-1, 1]. The product with π is
    # then small and therefore precise in float32, although published octaves go up to 2^14.
    half_turns = half_turns - 2 * (half_turns / 2).round()

    # A cosine is the sine of half a half turn more.
    phases = torch.arange(2, device=precise.device, dtype=precise.dtype) / 2
    angles = math.pi * (half_turns[..., None, :] + phases[:, None])  # (*points, 2, 3 · octaves)
    return angles.sin().flatten(-2)


def to_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return bfloat16 values, which autocast produces, as float32. Float64 stays float64."""
    return values if values.dtype == torch.float64 else values.float()


def uses_bfloat16(values: Tensor) -> bool:
    """Return True on a GPU under autocast, where matrix products are computed in bfloat16."""
    return values.is_cuda and torch.is_autocast_enabled("cuda")


class FourierInput(NamedTuple):
    """Three coordinates of each point, and the octaves with which they are encoded."""

    coordinates: Float[Tensor, "*points 3"]
    octaves: int  # how many
    start: int  # the lowest one


def point_inputs(points: Float[Tensor, "*points 3"], config: ModelConfig) -> list[FourierInput]:
    """Return the encoder input for positions of points."""
    return [FourierInput(points, config.position_octaves, config.position_start_octave)]


def direction_inputs(
    directions: Float[Tensor, "*rays 3"], config: ModelConfig
) -> list[FourierInput]:
    """Return the encoder input for unit directions of rays."""
    return [FourierInput(directions, config.direction_octaves, config.direction_start_octave)]


def ray_inputs(
    origins: Float[Tensor, "*rays 3"], directions: Float[Tensor, "*rays 3"], config: ModelConfig
) -> list[FourierInput]:
    """Return the encoder inputs for rays: their origins, then their unit directions."""
    return [*point_inputs(origins, config), *direction_inputs(directions, config)]


def encode_inputs(inputs: list[FourierInput]) -> Float[Tensor, "*points channels"]:
    """Return the Fourier features of all inputs, concatenated."""
    return torch.cat([fourier_features(*item) for item in inputs], dim=-1)


def encode_padded(
    inputs: list[FourierInput], multiple: int, leading: Float[Tensor, "*points _"] | None = None
) -> Float[Tensor, "*points width"]:
    """Return the encoding in bfloat16, with channels of 0 appended up to a multiple.

    GPUs multiply matrices fastest if their width is a multiple of a power of two.

    Args:
        leading: channels that come before the encoding and are not encoded.
    """
    # Count the channels, with and without padding.
    first = [] if leading is None else [leading]
    leading_channels = 0 if leading is None else leading.shape[-1]
    channels = leading_channels + sum(6 * item.octaves for item in inputs)
    width = channels + -channels % multiple
    coordinates = torch.cat([*first, *[item.coordinates for item in inputs]], dim=-1)

    # The kernel has no backward pass, so it cannot encode points that need a gradient.
    if not coordinates.is_cuda or coordinates.requires_grad or not kernels_available():
        plain = torch.cat((*first, encode_inputs(inputs)), dim=-1)  # (*points, channels)
        return F.pad(plain, (0, width - channels)).bfloat16()

    # The kernel takes all coordinates of a point as one row.
    octaves = [item.octaves for item in inputs]
    starts = [item.start for item in inputs]
    rows = coordinates.float().flatten(0, -2)  # (points, columns)
    encoded = encode_rows(rows, leading_channels, octaves, starts, width)  # (points, width)
    return encoded.unflatten(0, coordinates.shape[:-1])


def point_channels(config: ModelConfig) -> int:
    """Return the number of channels of an encoded point."""
    return 6 * config.position_octaves


def ray_channels(config: ModelConfig) -> int:
    """Return the number of channels of an encoded ray."""
    return point_channels(config) + 6 * config.direction_octaves
