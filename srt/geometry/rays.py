"""The rays whose colours a model predicts. b scenes, r rays of a scene."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from torch import Tensor

from srt.common.shapes import Float


class Rays(NamedTuple):
    """Where rays start, their unit directions, and the distances between which the scene lies."""

    origins: Float[Tensor, "b r 3"]
    directions: Float[Tensor, "b r 3"]
    near: float  # a volumetric model samples from near to far; other models ignore both
    far: float
    # Random numbers in [0, 1) that place the samples of a ray; None: evenly spaced samples.
    uniforms: Float[Tensor, "b r uniforms"] | None = None

    def split(self, size: int) -> Iterator[Rays]:
        """Yield groups of `size` rays of each scene; the last group may be smaller."""
        # Without random numbers, every group has none.
        uniform_groups = repeat(None) if self.uniforms is None else self.uniforms.split(size, dim=1)
        origin_groups = self.origins.split(size, dim=1)  # each (b, size, 3)
        direction_groups = self.directions.split(size, dim=1)
        for origins, directions, uniforms in zip(origin_groups, direction_groups, uniform_groups):
            yield Rays(origins, directions, self.near, self.far, uniforms)
