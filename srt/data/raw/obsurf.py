"""The reader of ObSuRF's raw layout, in which CLEVR3D and ObSuRF's MultiShapeNet are published.

    metadata.npz                     shape (scenes, slots) and camera_pos (scenes, views, 3)
    images/img_<scene>_<view>.png    RGB or RGBA

All splits are in one folder: a split is a range of scene numbers. A scene's name is its number. In
`shape`, a slot that is not 0 is an object. The world is z-up. All cameras have the same lens, look
at the origin and do not roll, so that a camera's position says everything about it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srt.common.errors import DataError
from srt.common.shapes import Float, Int
from srt.config.schema import DatasetConfig
from srt.data.raw.common import RawScene, SceneInfo, decode_image, read_file, read_npz
from srt.geometry.cameras import look_at, pinhole

# The lens: get_camera_rays of stelzner/srt, srt/utils/nerf.py.
FOCAL_LENGTH = 0.035
SENSOR_WIDTH = 0.032


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Return the scenes of a split's range that have at most `max_objects` objects.

    Raise DataError if the metadata is not as the configuration says, or no scene remains.
    """
    path = root / "metadata.npz"
    metadata = read_metadata(path)
    numbers = _split_range(path, metadata, split, config)

    # Leave out scenes of too many objects, and then all but the first ones if there is a subset.
    objects = metadata.objects
    most = config.max_objects if config.max_objects is not None else objects.max()
    selected = [number for number in numbers if objects[number] <= most]
    if not selected:
        raise DataError(
            f"{path}: no scene of {numbers.start}..{numbers.stop - 1} has at most {most} objects:"
            f" {split} is empty; raise max_objects or change the range"
        )
    limit = config.subset.max_scenes if config.subset else None
    return [
        SceneInfo(str(number), _class_name(int(objects[number])), None)
        for number in selected[:limit]
    ]


def _split_range(path: Path, metadata: Metadata, split: str, config: DatasetConfig) -> range:
    """Return the numbers of the scenes of a split. Raise DataError if the metadata lacks any."""
    # All views of the configuration must be there.
    views = metadata.positions.shape[1]
    if views < config.views:
        raise DataError(
            f"{path}: camera_pos has {views} views, `views` is {config.views}: they must fit"
        )

    # And so must the whole range.
    assert config.ranges is not None  # the configuration was checked
    start, end = getattr(config.ranges, split)
    scene_count = len(metadata.objects)
    if end > scene_count:
        raise DataError(
            f"{path}: {scene_count} scenes, ranges.{split} ends at {end}; correct the range, or"
            " fetch the whole dataset"
        )
    return range(start, end)


def _class_name(objects: int) -> str:
    """Return the class of scenes with so many objects."""
    return "1 object" if objects == 1 else f"{objects} objects"


def read_scene(root: Path, scene: SceneInfo, config: DatasetConfig) -> RawScene:
    """Return the images and cameras of a scene. An error names the file at fault."""
    # Every view has a file.
    paths = [root / "images" / f"img_{scene.name}_{view}.png" for view in range(config.views)]
    images = np.stack([decode_image(read_file(p), str(p), config.image_size) for p in paths])

    # The cameras follow from their positions and the common lens.
    metadata = root / "metadata.npz"
    positions = read_metadata(metadata).positions[int(scene.name), : config.views]
    poses = _look_at_origin(positions, f"{metadata}, camera_pos of scene {scene.name}")
    intrinsics = pinhole(FOCAL_LENGTH, SENSOR_WIDTH, *config.image_size).numpy()
    return RawScene(images, np.tile(intrinsics, (config.views, 1, 1)), poses)


def _look_at_origin(
    positions: Float[np.ndarray, "views 3"], context: str
) -> Float[np.ndarray, "views 4 4"]:
    """Return the camera_to_world of cameras that look at the origin and do not roll.

    Args:
        context: where the positions are from, for errors.
    """
    if not np.isfinite(positions).all():
        raise DataError(f"{context}: {positions.tolist()} is not finite; fetch the file again")

    # look_at refuses cameras that look straight up or down.
    position = torch.from_numpy(positions)
    try:
        return look_at(position, torch.zeros_like(position)).numpy()
    except ValueError as error:
        raise DataError(f"{context}: {error}") from error


@dataclass(frozen=True)
class Metadata:
    """The number of objects in each scene, and the position of each camera."""

    objects: Int[np.ndarray, "scenes"]
    positions: Float[np.ndarray, "scenes views 3"]


def read_metadata(path: Path) -> Metadata:
    """Return the metadata of all scenes. The file is read again only if it has changed."""
    try:
        status = path.stat()
        return _read_metadata(path, (status.st_mtime_ns, status.st_size))
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; is {path.parent} the folder of an ObSuRF dataset?"
        ) from None


@functools.lru_cache(maxsize=2)
def _read_metadata(path: Path, stamp: tuple[int, int]) -> Metadata:
    """Return the content of the file.

    Args:
        stamp: the file's time and size, so that the cache has an entry for each state of the file.
    """
    # `shape` numbers the shape in each slot, and `camera_pos` has a position for each view.
    arrays = read_npz(path, ("shape", "camera_pos"))
    shape, positions = arrays["shape"], arrays["camera_pos"].astype(np.float64)
    if shape.ndim != 2 or positions.shape != (len(shape), *positions.shape[1:2], 3):
        raise DataError(
            f"{path}: shape is {shape.shape}, camera_pos {positions.shape}; (scenes, slots) and"
            " (scenes, views, 3) are expected; fetch it again"
        )

    # A slot with a shape is an object.
    return Metadata((shape > 0).sum(axis=1), positions)
