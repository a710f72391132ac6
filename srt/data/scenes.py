"""The packed format and its reader: one form for every dataset, shards of uint8 images and cameras.

A split's folder holds `scenes.json` (names, classes, sizes, provenance), `images-NNNNN.npy` (uint8,
[scenes, views, h, w, 3], an equal number of scenes in each but the last) and `cameras.npz`
(`intrinsics` [scenes, views, 3, 3] and `camera_to_world` [scenes, views, 4, 4], float64, in the
conventions of srt/geometry.py). Rays are never stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srt.errors import UserError
from srt.shapes import Float, Int, UInt8

FORMAT = 1


class DataError(UserError):
    """Data on disk is not what it must be; the text names the file and says what to do."""


@dataclass(frozen=True)
class SceneInfo:
    """What is known of a scene beside its images and cameras."""

    name: str
    class_name: str
    source_view: int | None  # the input view of protocol pixelnerf


class Scenes:
    """One split of a packed dataset, on the device where it fits, else memory-mapped."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        header = read_header(folder)
        self.device = device
        self.infos = [SceneInfo(**info) for info in header["scenes"]]
        self.views: int = header["views"]
        self.height: int = header["height"]
        self.width: int = header["width"]
        with np.load(folder / "cameras.npz") as cameras:
            self.intrinsics = torch.from_numpy(cameras["intrinsics"]).float().to(device)
            self.camera_to_world = torch.from_numpy(cameras["camera_to_world"]).float().to(device)
        self._scenes_per_shard: int = header["scenes_per_shard"]
        # Copy-on-write maps: nothing is read before it is used, and torch needs writable memory.
        shards = [np.load(folder / name, mmap_mode="c") for name in header["files"]]
        self._shards = [torch.from_numpy(shard).view(-1, 3) for shard in shards]
        if device.type == "cuda" and self.bytes < torch.cuda.mem_get_info(device)[0] / 2:
            resident = torch.empty(self.bytes // 3, 3, dtype=torch.uint8, device=device)
            torch.cat([shard.to(device) for shard in self._shards], out=resident)
            self._shards, self._scenes_per_shard = [resident], len(self)

    def __len__(self) -> int:
        return len(self.infos)

    @property
    def bytes(self) -> int:
        """The size of all images."""
        return len(self) * self.views * self.height * self.width * 3

    def pixels(self, scene: Int[Tensor, "*n"], pixel: Int[Tensor, "*n"]) -> UInt8[Tensor, "*n 3"]:
        """Returns the colours of single pixels, on the device.

        Args:
            pixel: place in the scene's views x rows x columns, counted in that order.
        """
        home = self._shards[0].device
        scene, pixel = scene.to(home), pixel.to(home)
        shard, within = scene // self._scenes_per_shard, scene % self._scenes_per_shard
        flat = within * (self.views * self.height * self.width) + pixel
        if len(self._shards) == 1:
            return self._shards[0][flat].to(self.device)
        colours = torch.empty((*flat.shape, 3), dtype=torch.uint8)
        for index in shard.unique().tolist():
            here = shard == index
            colours[here] = self._shards[index][flat[here]]
        return colours.to(self.device)

    def images(
        self, scene: Int[Tensor, "b"], view: Int[Tensor, "b v"]
    ) -> Float[Tensor, "b v h w 3"]:
        """Returns whole views, with values in [0, 1], on the device."""
        size = self.height * self.width
        pixel = view[..., None] * size + torch.arange(size, device=view.device)  # (b, v, h·w)
        colours = self.pixels(scene[:, None, None].expand_as(pixel), pixel)
        return colours.unflatten(2, (self.height, self.width)).float() / 255


def read_header(folder: Path) -> dict[str, Any]:
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
