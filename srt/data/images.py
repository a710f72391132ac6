"""The images of a packed split, as shards on disk: raw, or each view losslessly compressed.

Raw: `images-NNNNN.npy`, uint8 [scenes, views, h, w, 3], memory-mapped. Compressed: the views'
lossless WebP files end to end in `images-NNNNN.webp`, and `ends.npy`, uint64 [scenes, views], where
each ends in its shard. Both can be read by several threads at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from srt.errors import DataError
from srt.shapes import Int, UInt8

# Effort of the encoder: see reports/storage.md.
METHOD, QUALITY = 2, 50


class Images(Protocol):
    """What both kinds of storage offer."""

    def read(
        self,
        scene: int,
        views: Sequence[int],
        place: Int[np.ndarray, "r"],
        stride: int,
        images: UInt8[np.ndarray, "v rows columns 3"],
        colours: UInt8[np.ndarray, "r 3"],
    ) -> None:
        """Reads whole views and single pixels of a scene into `images` and `colours`.

        Args: as of Scenes.gather.
        """

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yields all scenes in order, in parts, each with its first scene's number."""


class RawImages:
    """Shards of uint8 arrays; nothing is read before it is used."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._shape = (header["views"], header["height"], header["width"], 3)
        self._per_shard: int = header["scenes_per_shard"]
        counts = _scenes_of_shards(header)
        self._shards = [
            _map_array(folder / name, (count, *self._shape))
            for name, count in zip(header["files"], counts)
        ]

    def read(
        self,
        scene: int,
        views: Sequence[int],
        place: Int[np.ndarray, "r"],
        stride: int,
        images: UInt8[np.ndarray, "v rows columns 3"],
        colours: UInt8[np.ndarray, "r 3"],
    ) -> None:
        """Reads as `Images.read` says."""
        stored = self._shards[scene // self._per_shard][scene % self._per_shard]
        half = stride // 2
        for image, view in zip(images, views):
            image[:] = stored[view, half::stride, half::stride]
        # `clip`: with `raise` NumPy would go through a buffer; the places are in range.
        stored.reshape(-1, 3).take(place, axis=0, out=colours, mode="clip")

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yields the shards."""
        for number, shard in enumerate(self._shards):
            yield number * self._per_shard, shard


class CompressedImages:
    """Shards of lossless WebP files: a view that is used is decoded whole, once."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._shape = (header["views"], header["height"], header["width"], 3)
        self._per_shard: int = header["scenes_per_shard"]
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        self._paths = [folder / name for name in header["files"]]
        self._shards = []
        first = 0
        for path, count in zip(self._paths, _scenes_of_shards(header)):
            self._shards.append(_map_bytes(path, int(self._ends[first + count - 1, -1])))
            first += count

    def read(
        self,
        scene: int,
        views: Sequence[int],
        place: Int[np.ndarray, "r"],
        stride: int,
        images: UInt8[np.ndarray, "v rows columns 3"],
        colours: UInt8[np.ndarray, "r 3"],
    ) -> None:
        """Reads as `Images.read` says."""
        size, half = self._shape[1] * self._shape[2], stride // 2
        of_pixel = place // size
        needed = np.zeros(self._shape[0], dtype=bool)
        needed[of_pixel] = True
        needed[list(views)] = True
        decoded = np.empty(self._shape, dtype=np.uint8)
        for view in np.flatnonzero(needed).tolist():
            decoded[view] = self._decode(scene, view)
        for image, view in zip(images, views):
            image[:] = decoded[view, half::stride, half::stride]
        decoded.reshape(-1, 3).take(place, axis=0, out=colours, mode="clip")

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yields the scenes one by one."""
        for scene in range(len(self._ends)):
            views = [self._decode(scene, view) for view in range(self._shape[0])]
            yield scene, np.stack(views)[None]

    def _decode(self, scene: int, view: int) -> UInt8[np.ndarray, "h w 3"]:
        from PIL import Image

        number, within = divmod(scene, self._per_shard)
        place = scene * self._shape[0] + view
        start = int(self._ends.flat[place - 1]) if within or view else 0
        end = int(self._ends.flat[place])
        try:
            with Image.open(io.BytesIO(self._shards[number][start:end].tobytes())) as image:
                return np.asarray(image)
        except Exception as error:  # damaged bytes raise more kinds than Pillow documents
            raise DataError(
                f"{self._paths[number]}: view {view} of scene {scene} is damaged; pack again"
            ) from error


def compress(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Returns a view's lossless WebP file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True, method=METHOD, quality=QUALITY)
    return file.getvalue()


def _scenes_of_shards(header: dict[str, Any]) -> list[int]:
    total, size = len(header["names"]), header["scenes_per_shard"]
    return [min(size, total - start) for start in range(0, total, size)]


def _map_array(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "n views h w 3"]:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    return _map_bytes(path, offset + int(np.prod(shape)))[offset:].reshape(shape)


def _map_bytes(path: Path, size: int) -> UInt8[np.ndarray, "size"]:
    """Returns a file's bytes, mapped copy-on-write, without an open file for each shard.

    A shorter file would end the process on the first access beyond it, so it is refused here.
    """
    if path.stat().st_size != size:
        raise DataError(f"{path}: {path.stat().st_size} bytes, {size} are expected; pack again")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
