"""Rays that a model is asked about. b scenes, r rays of a scene."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from torch import Tensor

from srt.common.shapes import Float


class Rays(NamedTuple):
    """Where rays start, their unit directions, and where along them there is something to see."""

    origins: Float[Tensor, "b r 3"]
    directions: Float[Tensor, "b r 3"]
    near: float  # the distances that a volumetric model samples; others do not look at them
    far: float
    uniforms: Float[Tensor, "b r uniforms"] | None = None  # in [0, 1); None: samples evenly spread

    def split(self, size: int) -> Iterator[Rays]:
        """Yields `size` rays of each scene at a time, and the rest."""
        uniforms = repeat(None) if self.uniforms is None else self.uniforms.split(size, dim=1)
        groups = zip(self.origins.split(size, dim=1), self.directions.split(size, dim=1), uniforms)
        for origins, directions, drawn in groups:
            yield Rays(origins, directions, self.near, self.far, drawn)
