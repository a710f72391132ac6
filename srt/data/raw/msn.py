"""MultiShapeNet's raw layout, 2.3.3 and 2.8.0 alike: TFDS' TFRecords, one record a scene.

    dataset_info.json                               the number of records in each shard
    <name>-{train,val,test}.tfrecord-00000-of-NNNNN

Of a record, `cameras/camera_<n>/` are read: `color_image` (PNG), `extrinsics/R` and `extrinsics/t`
(world to camera, OpenCV axes, z-up world) and `intrinsics/` (`K` in pixels, no distortion). A
scene's name is `<split>-<shard>/<record>`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    refuse_swapped,
)
from srt.data.raw.tfrecords import read_record, record_offsets

CYCLE, BLOCK = 16, 16  # TFDS' defaults: so many shards at once, so many records of each in turn
DEPTH = 3  # of folders above a dataset, as in <root>/multi_shapenet_frames/2.3.3
NAMED = 5  # missing shards that an error names


def interleave(lengths: Sequence[int]) -> Iterator[tuple[int, range]]:
    """Yields the blocks of records, (shard, records), in the order in which TFDS reads a split.

    A shard that has ended is replaced by the next one when its turn comes again. Where it ends with
    a whole block, that is seen one turn late: a turn without records (tf.data's interleave).
    """
    waiting = deque(shard for shard, length in enumerate(lengths) if length)
    turns = deque((waiting.popleft(), 0) for _ in range(min(CYCLE, len(waiting))))
    while turns:
        shard, start = turns.popleft()
        stop = start + BLOCK
        yield shard, range(start, min(stop, lengths[shard]))
        if stop <= lengths[shard]:
            turns.append((shard, stop))
        elif waiting:
            turns.append((waiting.popleft(), 0))


def shards_needed(lengths: Sequence[int], end: int) -> int:
    """Returns how many of the first shards hold the first `end` scenes in TFDS' order."""
    needed = 0
    for shard, records in interleave(lengths):
        if end <= 0:
            break
        needed = max(needed, shard + 1)
        end -= len(records)
    return needed


@dataclass(frozen=True)
class SplitFiles:
    """The shards of a split: those that there should be, and those that there are."""

    info: Path
    split: str
    prefix: str
    lengths: tuple[int, ...]
    present: frozenset[int]

    def path(self, shard: int) -> Path:
        return self.info.with_name(f"{self.prefix}-{shard:05d}-of-{len(self.lengths):05d}")


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Returns the scenes of a split's range in TFDS' order of the shards that are chosen.

    Raises DataError for missing or superfluous shards and a range that ends beyond the data.
    """
    for known in (_known_files, _offsets):
        known.cache_clear()  # the data may have been mended since
    files = find_files(root, split)
    shards = _chosen_shards(files, config)
    lengths = [files.lengths[shard] for shard in shards]
    total = sum(lengths)
    start, end = getattr(config.ranges, split) if config.ranges else (0, total)
    if end > total and config.subset is None:
        raise DataError(
            f"{files.info}: {split} has {total} scenes, ranges.{split} ends at {end}; correct the"
            " range, or fetch the whole dataset"
        )
    if config.subset and config.subset.max_scenes:
        end = min(end, start + config.subset.max_scenes)
    names = ((shards[shard], record) for shard, block in interleave(lengths) for record in block)
    chosen = list(itertools.islice(names, start, end))
    if not chosen:
        raise DataError(
            f"{files.info}: {split} has {total} scenes in the chosen shards, none in its range: the"
            f" split is empty; correct ranges.{split} or subset"
        )
    _refuse_missing(files, sorted({shard for shard, _ in chosen} - files.present))
    return [SceneInfo(f"{split}-{n:05d}/{record:05d}", "scene", None) for n, record in chosen]


def find_files(root: Path, split: str) -> SplitFiles:
    """Returns the shards of a split; raises DataError where there is not one version of them."""
    info = _find_info(root)
    pattern = re.compile(rf"([^.].*-{split}\.tfrecord)-(\d+)-of-(\d+)")
    matches = [match for path in info.parent.iterdir() if (match := pattern.fullmatch(path.name))]
    versions = sorted({(match[1], int(match[3])) for match in matches})
    if not versions:
        raise DataError(f"{info.parent}: no file is *-{split}.tfrecord-*-of-*; fetch the dataset")
    if len(versions) > 1:
        names = " and ".join(f"{prefix}-*-of-{count:05d}" for prefix, count in versions)
        raise DataError(f"{info.parent}: {names} side by side; remove those of the other version")
    (prefix, count), lengths = versions[0], _shard_lengths(info, split)
    if count != len(lengths):
        raise DataError(
            f"{info}: shardLengths of {split} has {len(lengths)} shards, the files are of {count}:"
            " they are not of one version; fetch the dataset into an empty folder"
        )
    present = frozenset(int(match[2]) for match in matches) & set(range(count))
    return SplitFiles(info, split, prefix, tuple(lengths), present)


_known_files = functools.cache(find_files)


def _find_info(root: Path) -> Path:
    name = "dataset_info.json"
    if (root / name).is_file():
        return root / name
    found = [path for depth in range(1, DEPTH + 1) for path in root.glob("*/" * depth + name)]
    if len(found) > 1:
        folders = ", ".join(str(path.parent) for path in sorted(found))
        raise DataError(f"{root}: several datasets side by side: {folders}; set source to one")
    if not found:
        raise DataError(f"{root / name}: there is no such file; fetch it from where the shards are")
    return found[0]


def _shard_lengths(info: Path, split: str) -> list[int]:
    try:
        splits = {entry["name"]: entry for entry in json.loads(info.read_text())["splits"]}
        return [int(length) for length in splits[split]["shardLengths"]]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{info}: not TFDS' description of a dataset with the split {split} and its"
            f" shardLengths ({error!r}); fetch it again"
        ) from error


def _chosen_shards(files: SplitFiles, config: DatasetConfig) -> list[int]:
    text = config.subset.shards if config.subset else None
    if text is None:
        return list(range(len(files.lengths)))
    if text == "present":
        return sorted(files.present)
    return [shard for shard in shard_numbers(text) if shard < len(files.lengths)]


def _refuse_missing(files: SplitFiles, missing: list[int]) -> None:
    if missing:
        names = ", ".join(files.path(shard).name for shard in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise DataError(
            f"{files.info.parent}: {names}{more} missing; fetch again, or pack what is there with"
            " subset: {shards: present}"
        )


def read_scene(root: Path, scene: SceneInfo, config: DatasetConfig) -> RawScene:
    """Returns the images and cameras of a scene; raises DataError that names file and record."""
    split, *numbers = re.split("[-/]", scene.name)
    shard, number = map(int, numbers)
    files = _known_files(root, split)
    path = files.path(shard)
    offset, place = _offsets(path, files.lengths[shard])[number], f"{path}, record {number}"
    record = Record(_parse(read_record(path, offset, place), place), place)
    for key, value in (("R", np.eye(3).ravel()), ("t", np.zeros(3))):
        record.expect(f"pose/{key}", value)
    cameras = [_read_camera(record, camera, config) for camera in _cameras(record, config.views)]
    images, intrinsics, poses = (np.stack(parts) for parts in zip(*cameras))
    raw = RawScene(images, intrinsics, poses)
    refuse_swapped(raw, place, "are its extrinsics camera to world? They must be the inverse")
    return raw


@functools.lru_cache(maxsize=4 * CYCLE)
def _offsets(path: Path, length: int) -> list[int]:
    offsets = record_offsets(path)
    if len(offsets) != length:
        raise DataError(
            f"{path}: {len(offsets)} records, dataset_info.json has {length} in its shardLengths;"
            " fetch both again"
        )
    return offsets


def _parse(content: bytes, place: str) -> Any:
    """Returns a record's features by name. TensorFlow only takes the message apart: no device."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # or it writes about CPU instructions
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(content).features.feature
    except DecodeError as error:
        raise DataError(f"{place}: no tf.train.Example ({error}); is it MultiShapeNet?") from error


@dataclass(frozen=True)
class Record:
    """A record's features, and what an error names."""

    features: Any  # protobuf's map of name -> feature
    place: str

    def values(self, key: str, kind: str, count: int) -> Any:
        values = getattr(self.features[key], kind).value if key in self.features else ()
        if len(values) != count:
            raise DataError(f"{self.place}: {key} is missing or not {count} values of a {kind}")
        return values

    def floats(self, key: str, count: int) -> Float[np.ndarray, "{count}"]:
        return np.array(self.values(key, "float_list", count), dtype=np.float64)

    def expect(self, key: str, expected: Float[np.ndarray, "n"]) -> None:
        values = self.floats(key, len(expected))
        if not np.abs(values - expected).max() < TOLERANCE:
            raise DataError(
                f"{self.place}: {key} is {values.tolist()}, not {expected.tolist()}: such data"
                " cannot be used"
            )


def _cameras(record: Record, views: int) -> list[int]:
    """Returns the cameras' numbers, in order."""
    keys = (re.fullmatch(r"cameras/camera_(\d+)/color_image", key) for key in record.features)
    cameras = sorted(int(match[1]) for match in keys if match)
    if len(cameras) != views:
        raise DataError(
            f"{record.place}: it has {len(cameras)} cameras {cameras}, `views` is {views}"
        )
    return cameras


def _read_camera(
    record: Record, camera: int, config: DatasetConfig
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]:
    """Returns image, intrinsics and camera_to_world."""
    name = f"cameras/camera_{camera}"
    (content,) = record.values(f"{name}/color_image", "bytes_list", 1)
    image = decode_image(content, f"{record.place}, {name}/color_image", config.image_size)
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = record.floats(f"{name}/extrinsics/R", 9).reshape(3, 3)
    world_to_camera[:3, 3] = record.floats(f"{name}/extrinsics/t", 3)
    if not is_rigid(world_to_camera):
        raise DataError(
            f"{record.place}: {name}/extrinsics is not a rotation and a translation; the data is"
            " damaged: fetch it again"
        )
    pose = np.eye(4)
    pose[:3, :3] = world_to_camera[:3, :3].T
    pose[:3, 3] = -pose[:3, :3] @ world_to_camera[:3, 3]
    return image, _intrinsics(record, f"{name}/intrinsics", config), pose


def _intrinsics(record: Record, name: str, config: DatasetConfig) -> Float[np.ndarray, "3 3"]:
    (kind,) = record.values(f"{name}/type", "bytes_list", 1)
    if kind != b"PERSPECTIVE":
        raise DataError(f"{record.place}: {name}/type is {kind!r}; PERSPECTIVE is expected")
    record.expect(f"{name}/distortion/radial", np.zeros(3))
    record.expect(f"{name}/distortion/tangential", np.zeros(2))
    sizes = (record.values(f"{name}/image_{side}", "int64_list", 1) for side in ("height", "width"))
    size = tuple(value for (value,) in sizes)
    if size != config.image_size:
        raise DataError(
            f"{record.place}: {name} is of an image of {size[0]} x {size[1]} (rows x columns),"
            f" image_size is {config.image_size[0]} x {config.image_size[1]}"
        )
    matrix = record.floats(f"{name}/K", 9).reshape(3, 3)
    focal = matrix.diagonal()[:2]
    plain = np.diag([*focal, 1.0])
    plain[:2, 2] = matrix[:2, 2]
    finite = np.isfinite(matrix).all()
    if not finite or np.abs(matrix - plain).max() > TOLERANCE or focal.min() <= 0:
        raise DataError(
            f"{record.place}: {name}/K is {matrix.tolist()}, not [[fx, 0, cx], [0, fy, cy],"
            " [0, 0, 1]] with positive fx, fy; the data is damaged: fetch it again"
        )
    return matrix
