"""Synthetic scenes in the raw layout in which ObSuRF's CLEVR3D and MultiShapeNet are published."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from srt.common.devices import in_workers
from srt.common.errors import UserError
from srt.common.shapes import Float
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    ground_scene,
    pictures,
    png,
    style_of,
)
from srt.geometry.cameras import pinhole

FOCAL_LENGTH, SENSOR_WIDTH = 0.035, 0.032
DISTANCES, ELEVATIONS = (9.0, 11.0), (25.0, 60.0)
MAX_OBJECTS = 10  # slots of `shape`

Metadata = tuple[tuple[int, ...], Float[np.ndarray, "views 3"]]  # a scene's shapes, its cameras


def write_obsurf(root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int) -> None:
    """Writes the scenes; the files' bytes depend on neither `workers` nor the other scenes.

    A split's scenes take the first places of its range. `metadata.npz`, which comes last, has a
    row for every place up to the last range's end: zeros where there is no scene.

    Args:
        name: of the dataset: scenes of one are none of another's.

    Raises UserError for more scenes than a range has places, and for ranges with common places.
    """
    jobs = _places(config, name, seed)
    (root / "images").mkdir(parents=True)
    size = max(end for _, end in vars(config.ranges).values())
    shapes = np.zeros((size, MAX_OBJECTS), np.int64)
    cameras = np.zeros((size, config.views, 3), np.float32)
    done = in_workers(functools.partial(_write_scene, root, config), list(jobs.items()), workers)
    for place, (kinds, positions) in zip(jobs, done):
        shapes[place, : len(kinds)] = kinds
        cameras[place] = positions
    np.savez(root / "metadata.npz", shape=shapes, camera_pos=cameras)


def _places(config: DatasetConfig, name: str, seed: int) -> dict[int, SceneKey]:
    """Returns the scene in each place of the set that has one."""
    places: dict[int, SceneKey] = {}
    for split in SPLITS:
        (start, end), count = getattr(config.ranges, split), getattr(config.synthetic, split)
        if count > end - start:
            raise UserError(
                f"datasets.{name}: synthetic.{split} {count} is more than ranges.{split}"
                f" [{start}, {end}] has places; lower the one or widen the other"
            )
        for index in range(count):
            if start + index in places:
                raise UserError(
                    f"datasets.{name}: ranges.{split} [{start}, {end}] has place {start + index} in"
                    " common with another split; move one of them"
                )
            places[start + index] = SceneKey(seed=seed, dataset=name, split=split, index=index)
    return places


def _write_scene(root: Path, config: DatasetConfig, job: tuple[int, SceneKey]) -> Metadata:
    place, key = job
    rng = key.generator()
    scene = ground_scene(style_of(config), rng)
    positions = camera_positions(rng, config.views, DISTANCES, ELEVATIONS)
    intrinsics = pinhole(FOCAL_LENGTH, SENSOR_WIDTH, *config.image_size)
    for view, picture in enumerate(pictures(scene, positions, intrinsics, config.image_size)):
        (root / "images" / f"img_{place}_{view}.png").write_bytes(png(picture))
    return scene.kinds, positions
