"""The shards of a packed split: each is one worker's work; and what joins them at the end.

Beside its images a shard has a record of its cameras, of sums over its pixels and of where its
compressed views end. The records become `cameras.npz`, `ends.npy` and the header's statistics.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srt.common.files import write_atomically
from srt.common.shapes import UInt8
from srt.config.schema import DatasetConfig
from srt.data.packed.images import compress
from srt.data.packed.reader import FORMAT
from srt.data.raw import generated, msn, nmr, obsurf
from srt.data.raw.common import SceneInfo

SHARD_BYTES = 128 * 2**20  # of uncompressed images; what a kill costs, at most
READERS = {"nmr": nmr, "obsurf": obsurf, "msn": msn, "generated": generated}
SUFFIXES = {"raw": ".npy", "compressed": ".webp"}


@dataclass(frozen=True)
class Shard:
    """The work of one worker: some scenes of a split, into two files."""

    root: Path
    config: DatasetConfig
    scenes: list[SceneInfo]
    images: Path
    record: Path  # cameras, sums over pixels, and where compressed views end


def scene_bytes(config: DatasetConfig) -> int:
    """Returns the size of a scene's images."""
    return config.views * config.image_size[0] * config.image_size[1] * 3


def scenes_per_shard(config: DatasetConfig) -> int:
    """Returns how many scenes a shard holds, the last one apart."""
    return max(1, SHARD_BYTES // scene_bytes(config))


def columns(scenes: list[SceneInfo]) -> dict[str, Any]:
    """Returns the scenes' part of the header: columns, which a million scenes load fast from."""
    classes = list(dict.fromkeys(scene.class_name for scene in scenes))
    number = {name: index for index, name in enumerate(classes)}
    return {
        "names": [scene.name for scene in scenes],
        "classes": classes,
        "class_of": [number[scene.class_name] for scene in scenes],
        "source_views": [scene.source_view for scene in scenes],
    }


def write_shard(shard: Shard) -> int:
    """Returns the number of scenes written, one after the other."""
    config, reader = shard.config, READERS[shard.config.layout]
    shape = (len(shard.scenes), config.views, *config.image_size, 3)
    intrinsics, poses, ends, end = [], [], [], 0
    sums = PixelSums()
    with _appearing(shard.images) as file:
        if config.storage == "raw":
            np.lib.format.write_array_header_1_0(file, _array_header(shape, np.dtype(np.uint8)))
        for info in shard.scenes:
            scene = reader.read_scene(shard.root, info, config)
            intrinsics.append(scene.intrinsics)
            poses.append(scene.camera_to_world)
            sums.add(scene.images)
            if config.storage == "raw":
                file.write(np.ascontiguousarray(scene.images).data)
                continue
            end += file.write(compress(scene.images))
            ends.append(end)
        with _appearing(shard.record) as record:
            arrays: dict[str, Any] = {"intrinsics": np.stack(intrinsics)}
            arrays["camera_to_world"] = np.stack(poses)
            arrays["ends"] = np.array(ends, np.uint64)
            np.savez(record, **arrays, **vars(sums))
    return len(shard.scenes)


class PixelSums:
    """What the statistics of a split's pixels are computed from: exact, in any order."""

    def __init__(self) -> None:
        self.pixels = np.zeros((), np.uint64)
        self.sum = np.zeros(3, np.uint64)
        self.sum_of_squares = np.zeros(3, np.uint64)
        self.minimum = np.full(3, 255, np.uint8)
        self.maximum = np.zeros(3, np.uint8)

    def add(self, images: UInt8[np.ndarray, "views h w 3"]) -> None:
        """Takes a scene in."""
        axes = (0, 1, 2)
        self.pixels += np.uint64(images[..., 0].size)
        self.sum += images.sum(axes, np.uint64)
        self.sum_of_squares += np.square(images, dtype=np.uint32).sum(axes, np.uint64)
        self.minimum = np.minimum(self.minimum, images.min(axes))
        self.maximum = np.maximum(self.maximum, images.max(axes))


def statistics(records: Iterable[dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """Returns mean, standard deviation and range of each channel, in [0, 1].

    The mean is the best constant prediction: a baseline of evaluate.
    """
    pixels, total, squares = 0, np.zeros(3), np.zeros(3)
    low, high = np.full(3, 255), np.zeros(3)
    for record in records:
        pixels += int(record["pixels"])
        total = total + record["sum"]
        squares = squares + record["sum_of_squares"]
        low, high = np.minimum(low, record["minimum"]), np.maximum(high, record["maximum"])
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    values = {"mean_colour": mean, "std_colour": deviation, "minimum": low, "maximum": high}
    return {name: (value / 255).tolist() for name, value in values.items()}


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that gets its name when the block ends without an error."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _array_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }


def _records(folder: Path) -> Iterator[dict[str, np.ndarray]]:
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
    """Joins the shards' records, one at a time, and writes the split's header."""
    if not (folder / "scenes.json").exists():  # else an interrupted call had come so far
        _join_records(folder, len(scenes), config)
        files = sorted(path.name for path in folder.glob("images-*"))
        header = {
            "format": FORMAT,
            "split": split,
            "storage": config.storage,
            "views": config.views,
            "height": config.image_size[0],
            "width": config.image_size[1],
            "camera": "OpenCV axes, z-up world, pixel centres at index + 0.5",
            "pixel_grid": config.pixel_grid,
            "scenes_per_shard": scenes_per_shard(config),
            "statistics": statistics(_records(folder)),
            "files": files,
            "provenance": provenance,
            **columns(scenes),
        }
        write_atomically(folder / "scenes.json", json.dumps(header).encode())
    for path in folder.glob("record-*.npz"):
        path.unlink()


def _join_records(folder: Path, scenes: int, config: DatasetConfig) -> None:
    shapes = {"intrinsics": (scenes, config.views, 3, 3)}
    shapes["camera_to_world"] = (scenes, config.views, 4, 4)
    # What np.savez would write, without all of it in memory.
    with (
        _appearing(folder / "cameras.npz") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, shape in shapes.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same bytes at any time
            with archive.open(member, "w", force_zip64=True) as part:
                _stream_array(part, shape, np.dtype(np.float64), name, folder)
    if config.storage == "compressed":
        with _appearing(folder / "ends.npy") as file:
            _stream_array(file, (scenes,), np.dtype(np.uint64), "ends", folder)


def _stream_array(
    file: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, folder: Path
) -> None:
    """Writes the records' arrays of this name one after the other, as one .npy."""
    np.lib.format.write_array_header_1_0(file, _array_header(shape, dtype))
    for record in _records(folder):
        file.write(np.ascontiguousarray(record[name], dtype).tobytes())
