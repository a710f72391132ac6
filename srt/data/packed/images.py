"""The images of a packed split, as shards on disk: raw, or each scene losslessly compressed.

Raw: `images-NNNNN.npy`, uint8 [scenes, views, h, w, 3], memory-mapped. Compressed: the scenes'
lossless WebP files end to end in `images-NNNNN.webp`, each with the views below each other, and
`ends.npy`, uint64 [scenes], where each ends in its shard. Both can be read by several threads at
once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from srt.common.errors import DataError
from srt.common.shapes import Int, UInt8

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
    """Shards of lossless WebP files, one for each scene."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._shape = (header["views"], header["height"], header["width"], 3)
        self._per_shard: int = header["scenes_per_shard"]
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        self._paths = [folder / name for name in header["files"]]
        lasts = np.cumsum(_scenes_of_shards(header)) - 1
        self._shards = [
            _map_bytes(path, int(self._ends[last])) for path, last in zip(self._paths, lasts)
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
        decoded, half = self._decode(scene), stride // 2
        for image, view in zip(images, views):
            image[:] = decoded[view, half::stride, half::stride]
        decoded.reshape(-1, 3).take(place, axis=0, out=colours, mode="clip")

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yields the scenes one by one."""
        for scene in range(len(self._ends)):
            yield scene, self._decode(scene)[None]

    def _decode(self, scene: int) -> UInt8[np.ndarray, "views h w 3"]:
        from PIL import Image

        number, within = divmod(scene, self._per_shard)
        start = int(self._ends[scene - 1]) if within else 0
        content = self._shards[number][start : int(self._ends[scene])].tobytes()
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.array(image).reshape(self._shape)
        except Exception as error:  # damaged bytes raise more kinds than Pillow documents
            raise DataError(
                f"{self._paths[number]}: scene {scene} is damaged; pack again"
            ) from error


def compress(images: UInt8[np.ndarray, "views h w 3"]) -> bytes:
    """Returns a scene's lossless WebP file."""
    from PIL import Image

    file = io.BytesIO()
    below = images.reshape(-1, *images.shape[2:])
    Image.fromarray(below).save(file, "WEBP", lossless=True, method=METHOD, quality=QUALITY)
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
