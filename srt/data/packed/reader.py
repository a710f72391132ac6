"""The packed format, which is one for all datasets, and its reader.

A folder holds one split of a dataset:

    scenes.json     names, classes, sizes, statistics and provenance
    cameras.npz     intrinsics [scenes, views, 3, 3] and camera_to_world [scenes, views, 4, 4]
    images-*        the images in shards (srt/data/packed/images.py)

Cameras are float64 and follow the conventions of srt/geometry/cameras.py. All shards but the last
hold the same number of scenes. Rays are never stored: they are computed from the cameras.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srt.common.errors import DataError
from srt.common.shapes import Float, Int, UInt8
from srt.data.packed.images import CompressedImages, Images, RawImages
from srt.data.raw.common import SceneInfo

# The version of the format: data of another version must be packed again.
FORMAT = 2


class Scenes:
    """One split of a packed dataset: on the device if it fits there, else read from disk.

    Shapes: b scenes that are asked for, v views and r pixels of each; h x w pixels of an image.
    """

    def __init__(self, folder: Path, device: torch.device, resident: bool | None = None) -> None:
        """Open a split.

        Args:
            resident: hold all images on the device; None: on a GPU, if they need less than half of
                its free memory.
        """
        header = read_split_header(folder)
        self.device = device
        self.names: list[str] = header["names"]
        self.classes: list[str] = header["classes"]
        self._class_of: list[int] = header["class_of"]
        self._source_views: list[int | None] = header["source_views"]
        self.views: int = header["views"]
        self.height: int = header["height"]
        self.width: int = header["width"]

        # Open the shards, which reads nothing yet, and decide where the images will be.
        images_class = CompressedImages if header["storage"] == "compressed" else RawImages
        self.disk: Images = images_class(folder, header)
        if resident is None:
            resident = device.type == "cuda" and self.bytes < torch.cuda.mem_get_info(device)[0] / 2

        # The cameras are small: they are always in memory, beside the images.
        home = device if resident else torch.device("cpu")
        self._intrinsics, self._poses = _read_cameras(folder / "cameras.npz", home)
        self._resident = self._load() if resident else None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bytes(self) -> int:
        """The size of all images, uncompressed."""
        return len(self) * self.views * self.height * self.width * 3

    @property
    def pixels_per_view(self) -> int:
        """The number of pixels of a full-size view."""
        return self.height * self.width

    @property
    def resident(self) -> bool:
        """True if all images are on the device."""
        return self._resident is not None

    def info(self, index: int) -> SceneInfo:
        """Return the name, class and source view of a scene."""
        class_name = self.classes[self._class_of[index]]
        return SceneInfo(self.names[index], class_name, self._source_views[index])

    def cameras(
        self, scene: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b views 3 3"], Float[Tensor, "b views 4 4"]]:
        """Return the intrinsics and camera_to_world of all views of some scenes, on the device."""
        # The cameras may be on the host while the numbers of the scenes are on the device.
        index = scene.to(self._poses.device)
        return self._intrinsics[index].to(self.device), self._poses[index].to(self.device)

    def gather(
        self,
        scene: Int[Tensor, "b"],
        views: Int[Tensor, "b v"],
        pixel_index: Int[Tensor, "b r"],
        stride: int,
    ) -> tuple[UInt8[Tensor, "b v h w 3"], UInt8[Tensor, "b r 3"]]:
        """Return whole views and the colours of single pixels of some scenes, on the device.

        Args:
            pixel_index: the pixels' positions among all pixels of their scene, view after view and
                row by row: of views x rows x columns.
            stride: of the whole views, every n-th row and column is returned, from n // 2 on.
        """
        # If all images are on the device, this is plain indexing.
        first = stride // 2
        if self._resident is not None:
            slot_scene = scene[:, None]  # (b, 1)
            images = self._resident[slot_scene, views][..., first::stride, first::stride, :]
            return images, self._resident.view(len(self), -1, 3)[slot_scene, pixel_index]

        # Else read into host memory, and copy the result to the device.
        images, colours = self._read(scene, views, pixel_index, stride)
        return images.to(self.device), colours.to(self.device)

    def _read(
        self,
        scene: Int[Tensor, "b"],
        views: Int[Tensor, "b v"],
        pixel_index: Int[Tensor, "b r"],
        stride: int,
    ) -> tuple[UInt8[Tensor, "b v h w 3"], UInt8[Tensor, "b r 3"]]:
        """Return what `gather` returns, read from the disk into host memory."""
        # Each scene of the batch has a slot of the memory.
        images, colours = self.empty(views.shape[0], views.shape[1], pixel_index.shape[1], stride)
        numbers = zip(scene.tolist(), views.tolist(), pixel_index.cpu().numpy())
        for slot, (scene_number, view_numbers, pixels) in enumerate(numbers):
            image_memory, colour_memory = images[slot].numpy(), colours[slot].numpy()
            self.disk.read(scene_number, view_numbers, pixels, stride, image_memory, colour_memory)
        return images, colours

    def empty(
        self, scenes: int, views: int, pixels: int, stride: int
    ) -> tuple[UInt8[Tensor, "b v h w 3"], UInt8[Tensor, "b r 3"]]:
        """Return uninitialised host memory for the images and colours that `gather` reads.

        The memory is pinned if they are for a GPU.
        """
        # A stride leaves fewer rows and columns.
        rows, columns = (len(range(stride // 2, n, stride)) for n in (self.height, self.width))
        pin = self.device.type == "cuda"
        return (
            torch.empty(scenes, views, rows, columns, 3, dtype=torch.uint8, pin_memory=pin),
            torch.empty(scenes, pixels, 3, dtype=torch.uint8, pin_memory=pin),
        )

    def _load(self) -> UInt8[Tensor, "scenes views height width 3"]:
        """Return all images, on the device."""
        # Block by block, so that the host never holds all of them.
        size = (len(self), self.views, self.height, self.width, 3)
        images = torch.empty(size, dtype=torch.uint8, device=self.device)
        for start, block in self.disk.blocks():
            images[start : start + len(block)] = torch.from_numpy(block).to(self.device)
        return images


def _read_cameras(
    path: Path, device: torch.device
) -> tuple[Float[Tensor, "scenes views 3 3"], Float[Tensor, "scenes views 4 4"]]:
    """Return the intrinsics and camera_to_world of all views of a split, as float32."""
    with np.load(path) as file:
        intrinsics = torch.from_numpy(file["intrinsics"].astype(np.float32))
        poses = torch.from_numpy(file["camera_to_world"].astype(np.float32))
    return intrinsics.to(device), poses.to(device)


def read_split_header(folder: Path) -> dict[str, Any]:
    """Return the content of `scenes.json`.

    Raises:
        DataError: the file is missing or of another format.
    """
    path = folder / "scenes.json"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; run `python -m workflow.pack`")
    header: dict[str, Any] = json.loads(path.read_text())
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path}: format {header.get('format')!r}, this version reads {FORMAT}; pack again"
        )
    return header
