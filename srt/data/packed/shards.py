"""The shards of a packed split: how a worker writes one, and how they are joined at the end.

A worker writes two files for a shard: its images, and a record. The record holds the cameras, sums
over the pixels and the ends of the compressed scenes. When all shards of a split are written, their
records become `cameras.npz`, `ends.npy` and the statistics in `scenes.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srt.common.files import write_atomically
from srt.common.shapes import Float, UInt8
from srt.config.schema import DatasetConfig
from srt.data.packed.images import compress
from srt.data.packed.reader import FORMAT
from srt.data.raw.common import RawScene, SceneInfo

# Bytes of uncompressed images in a shard. A kill loses at most one shard of each worker.
SHARD_BYTES = 128 * 2**20

# The file name's ending of each way to store images.
SUFFIXES = {"raw": ".npy", "compressed": ".webp"}


@dataclass(frozen=True)
class Shard:
    """One task of a worker: to pack some scenes of a split into two files."""

    root: Path  # of the raw data
    config: DatasetConfig
    read_scene: Callable[[Path, SceneInfo, DatasetConfig], RawScene]  # of the data's layout
    scenes: list[SceneInfo]
    images: Path
    record: Path  # cameras, sums over pixels, and ends of compressed scenes


def scene_bytes(config: DatasetConfig) -> int:
    """Return the bytes of the uncompressed images of a scene."""
    return config.views * config.image_size[0] * config.image_size[1] * 3


def scenes_per_shard(config: DatasetConfig) -> int:
    """Return how many scenes a shard holds; the last shard of a split may hold fewer."""
    return max(1, SHARD_BYTES // scene_bytes(config))


def scene_columns(scenes: list[SceneInfo]) -> dict[str, Any]:
    """Return the entries of `scenes.json` that have a value for each scene.

    They are columns instead of an entry for each scene, so that a million scenes load fast.
    """
    # A scene refers to its class by the class' position in the list of classes.
    classes = list(dict.fromkeys(scene.class_name for scene in scenes))
    class_index = {name: index for index, name in enumerate(classes)}
    return {
        "names": [scene.name for scene in scenes],
        "classes": classes,
        "class_of": [class_index[scene.class_name] for scene in scenes],
        "source_views": [scene.source_view for scene in scenes],
    }


def write_shard(shard: Shard) -> int:
    """Write the two files of a shard, scene after scene, and return the number of its scenes."""
    config = shard.config
    shape = (len(shard.scenes), config.views, *config.image_size, 3)
    intrinsics, poses, ends = [], [], []
    end = 0
    sums = PixelSums()
    with _replace_when_written(shard.images) as file:
        # A raw shard is one .npy file: a header for all scenes, and then their pixels.
        if config.storage == "raw":
            np.lib.format.write_array_header_1_0(file, _array_header(shape, np.dtype(np.uint8)))

        # Write the images, and remember what goes into the record.
        for info in shard.scenes:
            scene = shard.read_scene(shard.root, info, config)
            intrinsics.append(scene.intrinsics)
            poses.append(scene.camera_to_world)
            sums.add(scene.images)
            if config.storage == "raw":
                file.write(np.ascontiguousarray(scene.images).data)
            else:
                end += file.write(compress(scene.images))
                ends.append(end)

        # The record gets its name before the images do: if the images are there, both are.
        _write_record(shard.record, intrinsics, poses, ends, sums)
    return len(shard.scenes)


def _write_record(
    path: Path,
    intrinsics: list[Float[np.ndarray, "views 3 3"]],
    poses: list[Float[np.ndarray, "views 4 4"]],
    ends: list[int],
    sums: PixelSums,
) -> None:
    """Write the cameras of a shard's scenes, where each scene's bytes end, and the pixel sums."""
    arrays: dict[str, Any] = {
        "intrinsics": np.stack(intrinsics),
        "camera_to_world": np.stack(poses),
        "ends": np.array(ends, np.uint64),
    }
    with _replace_when_written(path) as record:
        np.savez(record, **arrays, **vars(sums))


class PixelSums:
    """Sums over pixels, from which `statistics` computes a split's mean and deviation.

    They are whole numbers, so that they are exact and do not depend on the order of the scenes. The
    names of the attributes are those of the arrays in a shard's record.
    """

    def __init__(self) -> None:
        self.pixels = np.zeros((), np.uint64)
        self.sum = np.zeros(3, np.uint64)
        self.sum_of_squares = np.zeros(3, np.uint64)
        self.minimum = np.full(3, 255, np.uint8)
        self.maximum = np.zeros(3, np.uint8)

    def add(self, images: UInt8[np.ndarray, "views h w 3"]) -> None:
        """Add the pixels of a scene."""
        # Sums of 64-bit integers have room for 10^14 pixels.
        axes = (0, 1, 2)
        self.pixels += np.uint64(images[..., 0].size)
        self.sum += images.sum(axes, np.uint64)
        self.sum_of_squares += np.square(images, dtype=np.uint32).sum(axes, np.uint64)
        self.minimum = np.minimum(self.minimum, images.min(axes))
        self.maximum = np.maximum(self.maximum, images.max(axes))


def statistics(records: Iterable[dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """Return the mean, standard deviation and range of each colour channel, in [0, 1].

    The mean is the best constant prediction, which evaluate uses as a baseline.

    Args:
        records: of all shards of a split.
    """
    # Add up the sums of all shards.
    pixels = 0
    total, squares = np.zeros(3), np.zeros(3)
    low, high = np.full(3, 255), np.zeros(3)
    for record in records:
        pixels += int(record["pixels"])
        total = total + record["sum"]
        squares = squares + record["sum_of_squares"]
        low = np.minimum(low, record["minimum"])
        high = np.maximum(high, record["maximum"])

    # Rounding can make the variance of a constant channel slightly negative.
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    values = {"mean_colour": mean, "std_colour": deviation, "minimum": low, "maximum": high}
    return {name: (value / 255).tolist() for name, value in values.items()}


@contextlib.contextmanager
def _replace_when_written(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that gets its name only when the block ends without an error."""
    # The bytes reach the disk before the name does: after a crash, a file that is there is whole.
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _array_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the header of a .npy file."""
    return {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }


def _read_records(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield the records of a split's shards one at a time, in order."""
    for path in sorted(folder.glob("record-*.npz")):
        with np.load(path) as file:
            yield dict(file)


def write_split(
    folder: Path,
    split: str,
    scenes: list[SceneInfo],
    config: DatasetConfig,
    provenance: dict[str, Any],
) -> None:
    """Join the records of a split's shards, write the split's header and delete the records."""
    # The header is written last. If it exists, an interrupted call has joined the records already.
    if not (folder / "scenes.json").exists():
        _join_records(folder, len(scenes), config)
        header = _split_header(folder, split, scenes, config, provenance)
        write_atomically(folder / "scenes.json", json.dumps(header).encode())
    for path in folder.glob("record-*.npz"):
        path.unlink()


def _split_header(
    folder: Path,
    split: str,
    scenes: list[SceneInfo],
    config: DatasetConfig,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of a split's `scenes.json`."""
    files = sorted(path.name for path in folder.glob("images-*"))
    return {
        "format": FORMAT,
        "split": split,
        "storage": config.storage,
        "views": config.views,
        "height": config.image_size[0],
        "width": config.image_size[1],
        "camera": "OpenCV axes, z-up world, pixel centres at index + 0.5",
        "pixel_grid": config.pixel_grid,
        "scenes_per_shard": scenes_per_shard(config),
        "statistics": statistics(_read_records(folder)),
        "files": files,
        "provenance": provenance,
        **scene_columns(scenes),
    }


def _join_records(folder: Path, scene_count: int, config: DatasetConfig) -> None:
    """Write the arrays of a split's records to `cameras.npz` and, if compressed, to `ends.npy`."""
    shapes = {
        "intrinsics": (scene_count, config.views, 3, 3),
        "camera_to_world": (scene_count, config.views, 4, 4),
    }

    # Write the bytes that np.savez would write, but hold only one record in memory.
    with (
        _replace_when_written(folder / "cameras.npz") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, shape in shapes.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same bytes at any time
            with archive.open(member, "w", force_zip64=True) as array_file:
                _stream_array(array_file, shape, np.dtype(np.float64), name, folder)
    if config.storage == "compressed":
        with _replace_when_written(folder / "ends.npy") as file:
            _stream_array(file, (scene_count,), np.dtype(np.uint64), "ends", folder)


def _stream_array(
    file: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, folder: Path
) -> None:
    """Write one .npy file: the arrays of this name of all records, one after the other."""
    # `shape` is that of the whole array; the records have slices of it.
    np.lib.format.write_array_header_1_0(file, _array_header(shape, dtype))
    for record in _read_records(folder):
        file.write(np.ascontiguousarray(record[name], dtype).tobytes())
