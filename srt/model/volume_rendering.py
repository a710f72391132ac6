"""Volume rendering along rays: where to sample, and how to combine the samples into a colour.

Both follow NeRF (Mildenhall et al. 2020, sections 4 and 5.2) in the details of the published code,
stelzner/srt, srt/utils/nerf.py: the last segment of a ray is endless, the background is white, and
the weights of the coarse samples become a histogram in the way of `weighted_depths`.

Everything is computed in float32 or float64, never in bfloat16. A ray has s samples, from near to
far. A depth is a distance from the ray's origin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float

# The length of the last sample's segment. It is so long that almost any density makes it opaque.
LAST_SEGMENT_LENGTH = 1e10

# The published code adds 1e-10 to the share of the light that passes a segment, so that an opaque
# one has a finite logarithm.
MIN_LOG_TRANSMITTANCE = math.log(1e-10)

# This weight is added to every bin of a ray, so that fine samples may lie in any of them.
MIN_WEIGHT = 1e-5


class Composite(NamedTuple):
    """What is seen along rays, and how much each sample contributes to it."""

    colours: Float[Tensor, "*rays 3"]  # on a white background
    depth: Float[Tensor, "*rays"]  # the mean distance
    weights: Float[Tensor, "*rays s"]


def even_uniforms(coarse: int, fine: int, like: Float[Tensor, "*_"]) -> Float[Tensor, "uniforms"]:
    """Return numbers in [0, 1] that replace the random ones where nothing may be random.

    The coarse ones choose the middle of each segment; the fine ones are evenly spread.

    Args:
        like: a tensor whose device and precision the result has.
    """
    fractions = torch.linspace(0, 1, fine, device=like.device).to(like)
    return torch.cat((like.new_full((coarse,), 0.5), fractions))


def stratified_depths(
    uniforms: Float[Tensor, "*rays s"], near: float, far: float
) -> Float[Tensor, "*rays s"]:
    """Return one depth in each of s equally long segments between near and far.

    Args:
        uniforms: where in its segment each depth is: 0 is the segment's start, 1 its end.
    """
    count = uniforms.shape[-1]
    segment = torch.arange(count, device=uniforms.device, dtype=uniforms.dtype)
    return near + (far - near) / count * (segment + uniforms)


def weighted_depths(
    uniforms: Float[Tensor, "*rays fine"],
    weights: Float[Tensor, "*rays s"],
    depths: Float[Tensor, "*rays s"],
    near: float,
) -> Float[Tensor, "*rays fine"]:
    """Return depths distributed in proportion to the weights of the coarse samples.

    Args:
        uniforms: the fraction of the whole weight that lies before each depth.
        weights: what each coarse sample contributes to the colour.
        depths: those of the coarse samples.
    """
    # The coarse samples are the borders of the bins. The first bin begins at near, the last one
    # ends half a step behind the last sample.
    last, previous = depths[..., -1:], depths[..., -2:-1]
    end = last + (last - previous) / 2
    borders = torch.cat((torch.full_like(last, near), depths, end), dim=-1)  # (*rays, s + 2)

    # Three quarters of a sample's weight go to the bin before it, one quarter to the one behind.
    histogram = F.pad(0.75 * weights, (0, 1)) + F.pad(0.25 * weights, (1, 0))  # (*rays, s + 1)
    return invert_histogram(uniforms, histogram + MIN_WEIGHT, borders)


def invert_histogram(
    uniforms: Float[Tensor, "*rays n"],
    weights: Float[Tensor, "*rays bins"],
    borders: Float[Tensor, "*rays bins+1"],
) -> Float[Tensor, "*rays n"]:
    """Return where the sum of the weights reaches each of the numbers.

    This is the last border where the sum never reaches the number.

    Args:
        uniforms: sums of weights; if they are random, the result has the histogram's distribution.
        borders: where each bin begins, and where the last one ends.
    """
    # Find the bin in which the number is reached, by the sums of weights at the bins' borders.
    sums = F.pad(weights.cumsum(dim=-1), (1, 0))  # (*rays, bins + 1)
    above = torch.searchsorted(sums, uniforms.contiguous(), right=True)  # (*rays, n)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=weights.shape[-1])

    # Interpolate linearly within the bin. A bin of almost no weight would divide by almost 0.
    start, end = borders.gather(-1, below), borders.gather(-1, above)
    weight = sums.gather(-1, above) - sums.gather(-1, below)
    weight = torch.where(weight < MIN_WEIGHT, 1, weight)
    return start + (uniforms - sums.gather(-1, below)) / weight * (end - start)


def composite(
    densities: Float[Tensor, "*rays s"],
    colours: Float[Tensor, "*rays s 3"],
    depths: Float[Tensor, "*rays s"],
) -> Composite:
    """Return the colour and mean depth of rays, on a white background (NeRF, equation 3).

    Args:
        densities: how much light each sample absorbs per unit of length.
        depths: those of the samples, from near to far.
    """
    # Each sample fills the segment up to the next one. The light that passes segments is the
    # product of what passes each of them, and is summed as logarithms.
    segments = F.pad(depths.diff(dim=-1), (0, 1), value=LAST_SEGMENT_LENGTH)
    thickness = densities * segments
    log_light = torch.logaddexp(-thickness, torch.full_like(thickness, MIN_LOG_TRANSMITTANCE))
    light = log_light.cumsum(dim=-1).exp()  # (*rays, s): behind each segment

    # A sample contributes what its segment absorbs of the light that arrives there.
    weights = F.pad(light[..., :-1], (1, 0), value=1.0) * -torch.expm1(-thickness)

    # The light that passes all segments reaches the background, which is white.
    return Composite(
        colours=(weights[..., None] * colours).sum(dim=-2) + light[..., -1:],
        depth=(weights * depths).sum(dim=-1),
        weights=weights,
    )
