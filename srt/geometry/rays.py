"""The rays whose colours a model predicts. b scenes, r rays of a scene."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from torch import Tensor

from srt.common.shapes import Float
from srt.geometry.token_cameras import TokenCameras


class Rays(NamedTuple):
    """Where rays start, their unit directions, and the distances between which the scene lies."""

    origins: Float[Tensor, "b r 3"]
    directions: Float[Tensor, "b r 3"]
    near: float  # a volumetric model samples from near to far; other models ignore both
    far: float
    # Random numbers in [0, 1) that place the samples of a ray; None: evenly spaced samples.
    uniforms: Float[Tensor, "b r uniforms"] | None = None
    # The camera of each ray, for models with relative cameras; other models ignore it.
    cameras: TokenCameras | None = None

    def split(self, size: int) -> Iterator[Rays]:
        """Yield groups of `size` rays of each scene; the last group may be smaller."""
        # Without random numbers or cameras, every group has none.
        uniform_groups = repeat(None) if self.uniforms is None else self.uniforms.split(size, dim=1)
        camera_groups = repeat(None) if self.cameras is None else self.cameras.split(size)
        origin_groups = self.origins.split(size, dim=1)  # each (b, size, 3)
        direction_groups = self.directions.split(size, dim=1)
        groups = zip(origin_groups, direction_groups, uniform_groups, camera_groups)
        for origins, directions, uniforms, cameras in groups:
            yield Rays(origins, directions, self.near, self.far, uniforms, cameras)
