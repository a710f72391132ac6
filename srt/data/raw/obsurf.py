"""ObSuRF's raw layout, of CLEVR3D and of its MultiShapeNet: numbered scenes in one row.

    metadata.npz                     shape (scenes, slots; 0: empty), camera_pos (scenes, views, 3)
    images/img_<scene>_<view>.png    RGB or RGBA

The world is z-up. All cameras have one lens, look at the origin and have no roll, so the position
tells all. A scene's name is its number.
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

FOCAL_LENGTH, SENSOR_WIDTH = 0.035, 0.032  # get_camera_rays of stelzner/srt, srt/utils/nerf.py


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Returns the scenes of a split's range that have at most `max_objects` objects.

    Raises DataError for metadata that are not of this layout or end before the range does.
    """
    path = root / "metadata.npz"
    metadata = read_metadata(path)
    objects, views = metadata.objects, metadata.positions.shape[1]
    if views < config.views:
        raise DataError(
            f"{path}: camera_pos has {views} views, `views` is {config.views}: they must fit"
        )
    assert config.ranges is not None  # the configuration was checked
    start, end = getattr(config.ranges, split)
    if end > len(objects):
        raise DataError(
            f"{path}: {len(objects)} scenes, ranges.{split} ends at {end}; correct the range, or"
            " fetch the whole dataset"
        )
    most = config.max_objects if config.max_objects is not None else objects.max()
    numbers = [number for number in range(start, end) if objects[number] <= most]
    if not numbers:
        raise DataError(
            f"{path}: no scene of {start}..{end - 1} has at most {most} objects: {split} is empty;"
            " raise max_objects or change the range"
        )
    limit = config.subset.max_scenes if config.subset else None
    return [SceneInfo(str(n), _class_name(int(objects[n])), None) for n in numbers[:limit]]


def _class_name(objects: int) -> str:
    return "1 object" if objects == 1 else f"{objects} objects"


def read_scene(root: Path, scene: SceneInfo, config: DatasetConfig) -> RawScene:
    """Returns the images and cameras of a scene; raises DataError that names the file at fault."""
    paths = [root / "images" / f"img_{scene.name}_{view}.png" for view in range(config.views)]
    images = np.stack([decode_image(read_file(p), str(p), config.image_size) for p in paths])
    metadata = root / "metadata.npz"
    positions = read_metadata(metadata).positions[int(scene.name), : config.views]
    poses = _look_at_origin(positions, f"{metadata}, camera_pos of scene {scene.name}")
    intrinsics = pinhole(FOCAL_LENGTH, SENSOR_WIDTH, *config.image_size).numpy()
    return RawScene(images, np.tile(intrinsics, (config.views, 1, 1)), poses)


def _look_at_origin(
    positions: Float[np.ndarray, "views 3"], place: str
) -> Float[np.ndarray, "views 4 4"]:
    if not np.isfinite(positions).all():
        raise DataError(f"{place}: {positions.tolist()} is not finite; fetch the file again")
    position = torch.from_numpy(positions)
    try:
        return look_at(position, torch.zeros_like(position)).numpy()
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error


@dataclass(frozen=True)
class Metadata:
    """What is read of metadata.npz."""

    objects: Int[np.ndarray, "scenes"]
    positions: Float[np.ndarray, "scenes views 3"]


def read_metadata(path: Path) -> Metadata:
    """Returns the metadata of all scenes; the file is read again only where it has changed."""
    try:
        status = path.stat()
        return _read_metadata(path, (status.st_mtime_ns, status.st_size))
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; is {path.parent} the folder of an ObSuRF dataset?"
        ) from None


@functools.lru_cache(maxsize=2)
def _read_metadata(path: Path, stamp: tuple[int, int]) -> Metadata:
    arrays = read_npz(path, ("shape", "camera_pos"))
    shape, positions = arrays["shape"], arrays["camera_pos"].astype(np.float64)
    if shape.ndim != 2 or positions.shape != (len(shape), *positions.shape[1:2], 3):
        raise DataError(
            f"{path}: shape is {shape.shape}, camera_pos {positions.shape}; (scenes, slots) and"
            " (scenes, views, 3) are expected; fetch it again"
        )
    return Metadata((shape > 0).sum(axis=1), positions)
