"""The images of a packed split: shards on disk, either raw or losslessly compressed.

Raw: `images-NNNNN.npy`, uint8 [scenes, views, h, w, 3], memory-mapped.

Compressed: `images-NNNNN.webp`, the lossless WebP files of the shard's scenes one after the other.
The image of a scene has the scene's views below each other. `ends.npy`, uint64 [scenes], has the
byte at which each scene ends in its shard.

Several threads can read from either at once.

Shapes: v views and r pixels that are read of a scene; h x w pixels of a view; n scenes.
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
    """The functions that both kinds of storage offer."""

    def read(
        self,
        scene: int,
        views: Sequence[int],
        pixel_index: Int[np.ndarray, "r"],
        stride: int,
        images: UInt8[np.ndarray, "v rows columns 3"],
        colours: UInt8[np.ndarray, "r 3"],
    ) -> None:
        """Read whole views and single pixels of a scene into `images` and `colours`.

        Args:
            pixel_index: the pixels' positions among all pixels of the scene, view after view.
            stride: `images` gets every n-th row and column of the views, from n // 2 on.
        """

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yield all scenes in order, in blocks; with each block the number of its first scene."""


class RawImages:
    """Images in shards of uint8 arrays. Only the bytes that are used are read from the disk."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._shape = (header["views"], header["height"], header["width"], 3)
        self._per_shard: int = header["scenes_per_shard"]
        counts = _scene_counts(header)
        self._shards = [
            _map_array(folder / name, (count, *self._shape))
            for name, count in zip(header["files"], counts)
        ]

    def read(
        self,
        scene: int,
        views: Sequence[int],
        pixel_index: Int[np.ndarray, "r"],
        stride: int,
        images: UInt8[np.ndarray, "v rows columns 3"],
        colours: UInt8[np.ndarray, "r 3"],
    ) -> None:
        """Read whole views and single pixels of a scene; see `Images.read` for the arguments."""
        # Copy the whole views.
        stored = self._shards[scene // self._per_shard][scene % self._per_shard]  # (views, h, w, 3)
        first = stride // 2
        for image, view in zip(images, views):
            image[:] = stored[view, first::stride, first::stride]

        # Pick the single pixels. All indices are in range; with `raise` instead of `clip`, NumPy
        # would copy them through a buffer.
        stored.reshape(-1, 3).take(pixel_index, axis=0, out=colours, mode="clip")

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yield the shards, each with the number of its first scene."""
        for number, shard in enumerate(self._shards):
            yield number * self._per_shard, shard


class CompressedImages:
    """Images in shards of lossless WebP files, one file for each scene."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._shape = (header["views"], header["height"], header["width"], 3)
        self._per_shard: int = header["scenes_per_shard"]
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        self._paths = [folder / name for name in header["files"]]

        # A shard is as long as the end of its last scene says.
        last_scenes = np.cumsum(_scene_counts(header)) - 1
        self._shards = [
            _map_bytes(path, int(self._ends[last])) for path, last in zip(self._paths, last_scenes)
        ]

    def read(
        self,
        scene: int,
        views: Sequence[int],
        pixel_index: Int[np.ndarray, "r"],
        stride: int,
        images: UInt8[np.ndarray, "v rows columns 3"],
        colours: UInt8[np.ndarray, "r 3"],
    ) -> None:
        """Read whole views and single pixels of a scene; see `Images.read` for the arguments."""
        # All views of the scene are one file, which is decoded as a whole.
        decoded = self._decode(scene)  # (views, h, w, 3)
        first = stride // 2
        for image, view in zip(images, views):
            image[:] = decoded[view, first::stride, first::stride]

        # Pick the single pixels, as for raw images.
        decoded.reshape(-1, 3).take(pixel_index, axis=0, out=colours, mode="clip")

    def blocks(self) -> Iterator[tuple[int, UInt8[np.ndarray, "n views h w 3"]]]:
        """Yield the scenes one by one, each with its number."""
        for scene in range(len(self._ends)):
            yield scene, self._decode(scene)[None]

    def _decode(self, scene: int) -> UInt8[np.ndarray, "views h w 3"]:
        """Return all images of a scene. Raise DataError where they are damaged."""
        from PIL import Image

        # The scene's file starts where the previous scene of the shard ends.
        shard, position = divmod(scene, self._per_shard)
        start = int(self._ends[scene - 1]) if position else 0
        content = self._shards[shard][start : int(self._ends[scene])].tobytes()
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.array(image).reshape(self._shape)
        except Exception as error:  # damaged bytes raise exceptions that Pillow does not document
            raise DataError(
                f"{self._paths[shard]}: scene {scene} is damaged; pack again"
            ) from error


def compress(images: UInt8[np.ndarray, "views h w 3"]) -> bytes:
    """Return a lossless WebP file of a scene's images, one below the other."""
    from PIL import Image

    file = io.BytesIO()
    column = images.reshape(-1, *images.shape[2:])  # (views h, w, 3)
    Image.fromarray(column).save(file, "WEBP", lossless=True, method=METHOD, quality=QUALITY)
    return file.getvalue()


def _scene_counts(header: dict[str, Any]) -> list[int]:
    """Return the number of scenes in each shard; the last one may have fewer."""
    # All shards but the last are full.
    total, per_shard = len(header["names"]), header["scenes_per_shard"]
    return [min(per_shard, total - start) for start in range(0, total, per_shard)]


def _map_array(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "n views h w 3"]:
    """Return the array of a .npy file, memory-mapped."""
    # The array begins where NumPy's header ends.
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    return _map_bytes(path, offset + int(np.prod(shape)))[offset:].reshape(shape)


def _map_bytes(path: Path, size: int) -> UInt8[np.ndarray, "size"]:
    """Return a file's bytes, mapped copy-on-write. No file stays open for them.

    Raises:
        DataError: the file has another size. Access beyond its end would kill the process.
    """
    if path.stat().st_size != size:
        raise DataError(f"{path}: {path.stat().st_size} bytes, {size} are expected; pack again")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
