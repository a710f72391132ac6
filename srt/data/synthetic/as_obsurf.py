"""Synthetic scenes in ObSuRF's raw layout, which srt/data/raw/obsurf.py describes.

ObSuRF's CLEVR3D and MultiShapeNet are published in this layout. All splits share one numbering: the
configuration's `ranges` say which scene numbers belong to a split.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from srt.common.devices import run_in_workers
from srt.common.errors import UserError
from srt.common.shapes import Float
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    encode_png,
    random_ground_scene,
    render_views,
    scene_style,
)
from srt.geometry.cameras import pinhole

# The lens that the layout's readers assume, in metres.
FOCAL_LENGTH, SENSOR_WIDTH = 0.035, 0.032

# Where cameras are: distances from the origin, and elevations in degrees.
DISTANCES, ELEVATIONS = (9.0, 11.0), (25.0, 60.0)

# The slots of a scene's row of `shape`.
MAX_OBJECTS = 10

# What metadata.npz has of a scene: the types of its objects and its cameras' positions.
Metadata = tuple[tuple[int, ...], Float[np.ndarray, "views 3"]]


def write_obsurf(root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int) -> None:
    """Write the scenes. An image's content depends neither on `workers` nor on the other scenes.

    The scenes of a split have the first numbers of its range. `metadata.npz` is written last. It
    has a row for each number up to the end of the last range, with zeros where there is no scene.

    Args:
        name: of the dataset. Two datasets have no scenes in common.

    Raises:
        UserError: a split has more scenes than its range has numbers, or two ranges overlap.
    """
    keys = _number_scenes(config, name, seed)
    (root / "images").mkdir(parents=True)

    # The workers render scenes and write the images. Here, the metadata is gathered.
    size = max(end for _, end in vars(config.ranges).values())
    shapes = np.zeros((size, MAX_OBJECTS), np.int64)
    cameras = np.zeros((size, config.views, 3), np.float32)
    write_scene = functools.partial(_write_scene, root, config)
    metadata = run_in_workers(write_scene, list(keys.items()), workers)
    for number, (types, positions) in zip(keys, metadata):
        shapes[number, : len(types)] = types
        cameras[number] = positions
    np.savez(root / "metadata.npz", shape=shapes, camera_pos=cameras)


def _number_scenes(config: DatasetConfig, name: str, seed: int) -> dict[int, SceneKey]:
    """Return the scene of each scene number that has one."""
    keys: dict[int, SceneKey] = {}
    for split in SPLITS:
        (start, end), count = getattr(config.ranges, split), getattr(config.synthetic, split)
        if count > end - start:
            raise UserError(
                f"datasets.{name}: synthetic.{split} {count} is more scenes than ranges.{split}"
                f" [{start}, {end}] has numbers; set fewer scenes or a wider range"
            )

        # Splits must not share a number, or one would overwrite the other's images.
        for index in range(count):
            number = start + index
            if number in keys:
                raise UserError(
                    f"datasets.{name}: ranges.{split} [{start}, {end}] and the range of another"
                    f" split both have scene number {number}; change one of the ranges"
                )
            keys[number] = SceneKey(seed=seed, dataset=name, split=split, index=index)
    return keys


def _write_scene(root: Path, config: DatasetConfig, job: tuple[int, SceneKey]) -> Metadata:
    """Render a scene, write its images and return its metadata.

    Args:
        job: the scene's number and its key.
    """
    # One generator draws first the scene, then the cameras.
    number, key = job
    rng = key.generator()
    scene = random_ground_scene(scene_style(config), rng)
    positions = camera_positions(rng, config.views, DISTANCES, ELEVATIONS)

    # Render all views at once.
    intrinsics = pinhole(FOCAL_LENGTH, SENSOR_WIDTH, *config.image_size)
    images = render_views(scene, positions, intrinsics, config.image_size)
    for view, image in enumerate(images):
        (root / "images" / f"img_{number}_{view}.png").write_bytes(encode_png(image))
    return scene.type_numbers, positions
