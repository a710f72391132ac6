"""The packed format and its reader: one form for every dataset, shards of images and cameras.

A split's folder holds `scenes.json` (names, classes, sizes, statistics, provenance), `cameras.npz`
(`intrinsics` [scenes, views, 3, 3] and `camera_to_world` [scenes, views, 4, 4], float64, in the
conventions of srt/geometry/cameras.py) and the images (srt/data/packed/images.py), an equal number of scenes in
each shard but the last. Rays are never stored.
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

FORMAT = 2


class Scenes:
    """One split of a packed dataset, on the device where it fits, else read from disk.

    b scenes, v views of each, r pixels of each.
    """

    def __init__(self, folder: Path, device: torch.device, resident: bool | None = None) -> None:
        header = read_split_header(folder)
        self.device = device
        self.names: list[str] = header["names"]
        self.classes: list[str] = header["classes"]
        self._class_of: list[int] = header["class_of"]
        self._source_views: list[int | None] = header["source_views"]
        self.views: int = header["views"]
        self.height: int = header["height"]
        self.width: int = header["width"]
        kind = CompressedImages if header["storage"] == "compressed" else RawImages
        self.disk: Images = kind(folder, header)
        if resident is None:
            resident = device.type == "cuda" and self.bytes < torch.cuda.mem_get_info(device)[0] / 2
        home = device if resident else torch.device("cpu")
        with np.load(folder / "cameras.npz") as file:
            self._intrinsics = torch.from_numpy(file["intrinsics"].astype(np.float32)).to(home)
            self._poses = torch.from_numpy(file["camera_to_world"].astype(np.float32)).to(home)
        self._resident = self._load() if resident else None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bytes(self) -> int:
        """The size of all images, uncompressed."""
        return len(self) * self.views * self.height * self.width * 3

    @property
    def resident(self) -> bool:
        """True where the images live on the device."""
        return self._resident is not None

    def info(self, index: int) -> SceneInfo:
        """Returns what is known of a scene."""
        class_name = self.classes[self._class_of[index]]
        return SceneInfo(self.names[index], class_name, self._source_views[index])

    def cameras(
        self, scene: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b views 3 3"], Float[Tensor, "b views 4 4"]]:
        """Returns the intrinsics and camera_to_world of all views, on the device."""
        index = scene.to(self._poses.device)
        return self._intrinsics[index].to(self.device), self._poses[index].to(self.device)

    def gather(
        self,
        scene: Int[Tensor, "b"],
        views: Int[Tensor, "b v"],
        place: Int[Tensor, "b r"],
        stride: int,
    ) -> tuple[UInt8[Tensor, "b v h w 3"], UInt8[Tensor, "b r 3"]]:
        """Returns whole views, and the colours of single pixels, on the device.

        Args:
            place: of a pixel in the scene's views x rows x columns, counted in that order.
            stride: of the whole views every so many-th row and column, from half of it on.
        """
        if self._resident is not None:
            each = scene[:, None]
            images = self._resident[each, views][
                ..., stride // 2 :: stride, stride // 2 :: stride, :
            ]
            return images, self._resident.view(len(self), -1, 3)[each, place]
        images, colours = self.empty(views.shape[0], views.shape[1], place.shape[1], stride)
        for i, (number, wanted, pixel) in enumerate(
            zip(scene.tolist(), views.tolist(), place.cpu().numpy())
        ):
            self.disk.read(number, wanted, pixel, stride, images[i].numpy(), colours[i].numpy())
        return images.to(self.device), colours.to(self.device)

    def empty(
        self, scenes: int, views: int, pixels: int, stride: int
    ) -> tuple[UInt8[Tensor, "b v h w 3"], UInt8[Tensor, "b r 3"]]:
        """Returns host memory for what `gather` reads, pinned where a GPU is to fetch it."""
        rows, columns = (len(range(stride // 2, n, stride)) for n in (self.height, self.width))
        pin = self.device.type == "cuda"
        return (
            torch.empty(scenes, views, rows, columns, 3, dtype=torch.uint8, pin_memory=pin),
            torch.empty(scenes, pixels, 3, dtype=torch.uint8, pin_memory=pin),
        )

    def _load(self) -> UInt8[Tensor, "scenes views height width 3"]:
        """Returns all images, on the device."""
        size = (len(self), self.views, self.height, self.width, 3)
        images = torch.empty(size, dtype=torch.uint8, device=self.device)
        for start, block in self.disk.blocks():
            images[start : start + len(block)] = torch.from_numpy(block).to(self.device)
        return images


def read_split_header(folder: Path) -> dict[str, Any]:
    """Returns `scenes.json`; raises DataError where it is missing or of another format."""
    path = folder / "scenes.json"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; run `python -m workflow.pack`")
    header: dict[str, Any] = json.loads(path.read_text())
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path}: format {header.get('format')!r}, this version reads {FORMAT}; pack again"
        )
    return header
