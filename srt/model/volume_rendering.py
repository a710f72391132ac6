"""Sampling and compositing along rays: NeRF, Mildenhall et al. 2020, sections 4 and 5.2.

As in stelzner/srt, srt/utils/nerf.py: how weights become a histogram, and the endless last segment.
All of it is in float32 or float64, never in bfloat16. s samples of a ray, from near to far.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float

LAST_SEGMENT_LENGTH = 1e10  # the length of the last sample's segment: nothing behind it is seen
MIN_LOG_TRANSMITTANCE = math.log(1e-10)  # of the light comes through any segment
MIN_WEIGHT = 1e-5  # of every part of a ray, so that none is left out


class Composite(NamedTuple):
    """What is seen along rays, and how much of it each sample contributes."""

    colours: Float[Tensor, "*rays 3"]  # on white
    depth: Float[Tensor, "*rays"]  # the mean distance
    weights: Float[Tensor, "*rays s"]


def even_uniforms(coarse: int, fine: int, like: Float[Tensor, "*_"]) -> Float[Tensor, "uniforms"]:
    """Returns the numbers that stand for random draws where nothing is drawn.

    The middle of each stratum, then fractions of all weight from 0 to 1.
    """
    fractions = torch.linspace(0, 1, fine, device=like.device).to(like)
    return torch.cat((like.new_full((coarse,), 0.5), fractions))


def stratified_depths(
    uniforms: Float[Tensor, "*rays s"], near: float, far: float
) -> Float[Tensor, "*rays s"]:
    """Returns one depth in each of s equal parts of near to far; a draw is its place therein."""
    count = uniforms.shape[-1]
    part = torch.arange(count, device=uniforms.device, dtype=uniforms.dtype)
    return near + (far - near) / count * (part + uniforms)


def weighted_depths(
    uniforms: Float[Tensor, "*rays fine"],
    weights: Float[Tensor, "*rays s"],
    depths: Float[Tensor, "*rays s"],
    near: float,
) -> Float[Tensor, "*rays fine"]:
    """Returns depths that are drawn in proportion to the weights of coarser samples.

    A sample's weight lies to three quarters in the segment before it and to one in that behind it.
    """
    last, previous = depths[..., -1:], depths[..., -2:-1]
    end = last + (last - previous) / 2
    borders = torch.cat((torch.full_like(last, near), depths, end), dim=-1)
    histogram = F.pad(0.75 * weights, (0, 1)) + F.pad(0.25 * weights, (1, 0))
    return invert_histogram(uniforms, histogram + MIN_WEIGHT, borders)


def invert_histogram(
    uniforms: Float[Tensor, "*rays n"],
    weights: Float[Tensor, "*rays bins"],
    borders: Float[Tensor, "*rays bins+1"],
) -> Float[Tensor, "*rays n"]:
    """Returns where the weight so far reaches each draw, or the last border where it never does."""
    reached = F.pad(weights.cumsum(dim=-1), (1, 0))
    above = torch.searchsorted(reached, uniforms.contiguous(), right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=weights.shape[-1])
    start, end = borders.gather(-1, below), borders.gather(-1, above)
    weight = reached.gather(-1, above) - reached.gather(-1, below)
    weight = torch.where(weight < MIN_WEIGHT, 1, weight)
    return start + (uniforms - reached.gather(-1, below)) / weight * (end - start)


def composite(
    densities: Float[Tensor, "*rays s"],
    colours: Float[Tensor, "*rays s 3"],
    depths: Float[Tensor, "*rays s"],
) -> Composite:
    """Returns what is seen of sorted samples on white; each fills the segment up to the next."""
    segments = F.pad(depths.diff(dim=-1), (0, 1), value=LAST_SEGMENT_LENGTH)
    thickness = densities * segments
    light = torch.logaddexp(-thickness, torch.full_like(thickness, MIN_LOG_TRANSMITTANCE))
    light = light.cumsum(dim=-1).exp()  # that comes through a segment and all before it
    weights = F.pad(light[..., :-1], (1, 0), value=1.0) * -torch.expm1(-thickness)
    return Composite(
        colours=(weights[..., None] * colours).sum(dim=-2) + light[..., -1:],
        depth=(weights * depths).sum(dim=-1),
        weights=weights,
    )
