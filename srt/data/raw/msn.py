"""The reader of MultiShapeNet's raw layout, versions 2.3.3 and 2.8.0: TFRecord files of TFDS.

    dataset_info.json                               the number of records in each shard
    <name>-{train,val,test}.tfrecord-00000-of-NNNNN

A record is a scene, named `<split>-<shard>/<record>`. For each camera n, these of its features are
read, under `cameras/camera_<n>/`:

    color_image                 PNG
    extrinsics/R, extrinsics/t  world to camera; OpenCV axes, the world is z-up
    intrinsics/                 `K` in pixels; there must be no distortion
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srt.common.errors import DataError
from srt.common.shapes import Float, UInt8
from srt.config.schema import DatasetConfig, shard_numbers
from srt.data.raw.common import (
    TOLERANCE,
    RawScene,
    SceneInfo,
    decode_image,
    is_rigid,
    refuse_inverted_cameras,
)
from srt.data.raw.tfrecords import (
    CYCLE,
    Record,
    SplitFiles,
    find_files,
    interleave,
    read_record,
    record_offsets,
)

# How many missing shards an error names.
NAMED = 5

# A worker reads many scenes of the same files, and looks for them only once.
_cached_files = functools.cache(find_files)


def shards_needed(lengths: Sequence[int], end: int) -> int:
    """Return how many of the first shards are enough for the first `end` scenes in TFDS' order."""
    needed = 0
    for shard, records in interleave(lengths):
        if end <= 0:
            break
        needed = max(needed, shard + 1)
        end -= len(records)
    return needed


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Return the scenes of a split: a range of the selected shards' scenes in TFDS' order.

    Raises:
        DataError: shards are missing or of several versions, or the range ends beyond the data.
    """
    # An earlier call may have failed, and the data may have been mended since.
    _cached_files.cache_clear()
    _offsets.cache_clear()
    files = find_files(root, split)

    # Only the shards that the split's scenes are in must be there.
    scenes = _scenes_in_range(files, config)
    _refuse_missing(files, sorted({shard for shard, _ in scenes} - files.present))
    return [
        SceneInfo(f"{split}-{shard:05d}/{record:05d}", "scene", None) for shard, record in scenes
    ]


def _scenes_in_range(files: SplitFiles, config: DatasetConfig) -> list[tuple[int, int]]:
    """Return the shard and the record of each scene of a split, in TFDS' order."""
    # The range is of the scenes in the selected shards.
    shards = _select_shards(files, config)
    lengths = [files.lengths[shard] for shard in shards]
    total = sum(lengths)
    start, end = _scene_range(files, config, total)
    order = ((shards[shard], record) for shard, block in interleave(lengths) for record in block)
    scenes = list(itertools.islice(order, start, end))
    if not scenes:
        raise DataError(
            f"{files.info}: {files.split} has {total} scenes in the chosen shards, none in its"
            f" range: the split is empty; correct ranges.{files.split} or subset"
        )
    return scenes


def _scene_range(files: SplitFiles, config: DatasetConfig, total: int) -> tuple[int, int]:
    """Return the first scene of a split and the one after the last, of `total` in TFDS' order."""
    # Without ranges in the configuration, a split has all of its scenes.
    split = files.split
    start, end = getattr(config.ranges, split) if config.ranges else (0, total)
    if end > total and config.subset is None:
        raise DataError(
            f"{files.info}: {split} has {total} scenes, ranges.{split} ends at {end}; correct the"
            " range, or fetch the whole dataset"
        )

    # A subset is of the first scenes of the range.
    if config.subset and config.subset.max_scenes:
        end = min(end, start + config.subset.max_scenes)
    return start, end


def _select_shards(files: SplitFiles, config: DatasetConfig) -> list[int]:
    """Return the shards that subset.shards names; without a subset, all shards."""
    # Splits have different numbers of shards: numbers that a split does not have are left out.
    text = config.subset.shards if config.subset else None
    if text is None:
        return list(range(len(files.lengths)))
    if text == "present":
        return sorted(files.present)
    return [shard for shard in shard_numbers(text) if shard < len(files.lengths)]


def _refuse_missing(files: SplitFiles, missing: list[int]) -> None:
    """Raise DataError that names the missing shards, if there are any."""
    if missing:
        names = ", ".join(files.path(shard).name for shard in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise DataError(
            f"{files.info.parent}: {names}{more} missing; fetch again, or pack what is there with"
            " subset: {shards: present}"
        )


def read_scene(root: Path, scene: SceneInfo, config: DatasetConfig) -> RawScene:
    """Return the images and cameras of a scene. An error names the file and the record."""
    # The scene's name says where its record is.
    split, *numbers = re.split("[-/]", scene.name)
    shard, number = map(int, numbers)
    files = _cached_files(root, split)
    path = files.path(shard)
    offset = _offsets(path, files.lengths[shard])[number]
    context = f"{path}, record {number}"
    record = read_record(path, offset, context)

    # The scene itself must not be moved in the world.
    record.expect("pose/R", np.eye(3).ravel())
    record.expect("pose/t", np.zeros(3))

    cameras = [_read_camera(record, camera, config) for camera in _cameras(record, config.views)]
    images, intrinsics, poses = (np.stack(arrays) for arrays in zip(*cameras))
    raw = RawScene(images, intrinsics, poses)
    refuse_inverted_cameras(
        raw, context, "are its extrinsics camera to world? They must be the inverse"
    )
    return raw


@functools.lru_cache(maxsize=4 * CYCLE)
def _offsets(path: Path, length: int) -> list[int]:
    """Return the offset of each of the `length` records of a shard."""
    offsets = record_offsets(path)
    if len(offsets) != length:
        raise DataError(
            f"{path}: {len(offsets)} records, dataset_info.json has {length} in its shardLengths;"
            " fetch both again"
        )
    return offsets


def _cameras(record: Record, views: int) -> list[int]:
    """Return the sorted numbers of a record's cameras. There must be `views` of them."""
    keys = (re.fullmatch(r"cameras/camera_(\d+)/color_image", key) for key in record.features)
    cameras = sorted(int(match[1]) for match in keys if match)
    if len(cameras) != views:
        raise DataError(
            f"{record.context}: it has {len(cameras)} cameras {cameras}, `views` is {views}"
        )
    return cameras


def _read_camera(
    record: Record, camera: int, config: DatasetConfig
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]:
    """Return the image, intrinsics and camera_to_world of one camera."""
    name = f"cameras/camera_{camera}"
    (content,) = record.values(f"{name}/color_image", "bytes_list", 1)
    image = decode_image(content, f"{record.context}, {name}/color_image", config.image_size)
    pose = _pose(record, f"{name}/extrinsics")
    return image, _intrinsics(record, f"{name}/intrinsics", config), pose


def _pose(record: Record, name: str) -> Float[np.ndarray, "4 4"]:
    """Return the camera_to_world of a camera."""
    # The record has the rotation and translation from the world to the camera.
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = record.floats(f"{name}/R", 9).reshape(3, 3)
    world_to_camera[:3, 3] = record.floats(f"{name}/t", 3)
    if not is_rigid(world_to_camera):
        raise DataError(
            f"{record.context}: {name} is not a rotation and a translation; the data is damaged:"
            " fetch it again"
        )

    # Its inverse: the rotation is transposed, and the camera's position is -R^T t.
    pose = np.eye(4)
    pose[:3, :3] = world_to_camera[:3, :3].T
    pose[:3, 3] = -pose[:3, :3] @ world_to_camera[:3, 3]
    return pose


def _intrinsics(record: Record, name: str, config: DatasetConfig) -> Float[np.ndarray, "3 3"]:
    """Return the 3 x 3 matrix K of a camera. There must be no distortion and no skew."""
    _refuse_other_lenses(record, name)
    _check_image_size(record, name, config)

    # K must have no entries other than the focal lengths and the principal point.
    matrix = record.floats(f"{name}/K", 9).reshape(3, 3)
    focal = matrix.diagonal()[:2]
    without_skew = np.diag([*focal, 1.0])
    without_skew[:2, 2] = matrix[:2, 2]
    finite = np.isfinite(matrix).all()
    if not finite or np.abs(matrix - without_skew).max() > TOLERANCE or focal.min() <= 0:
        raise DataError(
            f"{record.context}: {name}/K is {matrix.tolist()}, not [[fx, 0, cx], [0, fy, cy],"
            " [0, 0, 1]] with positive fx, fy; the data is damaged: fetch it again"
        )
    return matrix


def _refuse_other_lenses(record: Record, name: str) -> None:
    """Raise DataError unless a camera is a pinhole camera without distortion."""
    (camera_type,) = record.values(f"{name}/type", "bytes_list", 1)
    if camera_type != b"PERSPECTIVE":
        raise DataError(
            f"{record.context}: {name}/type is {camera_type!r}; PERSPECTIVE is expected"
        )
    record.expect(f"{name}/distortion/radial", np.zeros(3))
    record.expect(f"{name}/distortion/tangential", np.zeros(2))


def _check_image_size(record: Record, name: str, config: DatasetConfig) -> None:
    """Raise DataError if the intrinsics are of images of another size than the dataset's."""
    (height,) = record.values(f"{name}/image_height", "int64_list", 1)
    (width,) = record.values(f"{name}/image_width", "int64_list", 1)
    if (height, width) != config.image_size:
        raise DataError(
            f"{record.context}: {name} is of an image of {height} x {width} (rows x columns),"
            f" image_size is {config.image_size[0]} x {config.image_size[1]}"
        )
