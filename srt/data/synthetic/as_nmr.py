"""Synthetic objects in the raw layout in which the NMR renders are published.

As there, every object is in the unit cube and is seen by the same cameras, 30° above it and equally
spaced around it. Only the classes' ids, synth001 and so on, are none of ShapeNet's.
"""

from __future__ import annotations

import functools
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from srt.common.devices import in_workers
from srt.common.errors import UserError
from srt.common.shapes import Float
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.objects import CLASSES, random_object
from srt.data.synthetic.raycaster import Light, pixel_rays, render
from srt.geometry.cameras import look_at, pinhole, rigid_inverse

FOCAL = 3.732  # in units of half an image's width: 30° from edge to edge
DISTANCE = 2.732
ELEVATION = math.radians(30)
LIGHT = Light(direction=(0.5, -0.4, 0.9), ambient=0.5)
TO_Z_UP = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).double()


@dataclass(frozen=True, kw_only=True)
class SyntheticScene:
    """Which scene it is: what its object and its files' names depend on."""

    seed: int
    split: str
    class_index: int
    index: int  # in its split and class

    @property
    def class_id(self) -> str:
        return f"synth{self.class_index + 1:03d}"

    @property
    def class_name(self) -> str:
        return list(CLASSES)[self.class_index]

    @property
    def name(self) -> str:
        return f"{self.split}_{self.index:05d}"

    def source_view(self, views: int) -> int:
        """Returns the input view of protocol pixelnerf."""
        return int(self.generator(1).integers(views))

    def generator(self, *purpose: int) -> np.random.Generator:
        split = SPLITS.index(self.split)
        return np.random.default_rng([self.seed, split, self.class_index, self.index, *purpose])


def write_nmr(root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int) -> None:
    """Writes the scenes; the files' bytes depend on neither `workers` nor the other scenes.

    A split's scenes are dealt out to the classes. `src_dvr.txt` names the input view of each test
    scene, as pixelNeRF's file of that name does.

    Args:
        name: of the dataset, for messages: there is one in this layout, so that the scenes do not
            depend on it.

    Raises UserError for images that are not square, which this layout's cameras cannot tell.
    """
    rows, columns = config.image_size
    if rows != columns:
        raise UserError(
            f"datasets.{name}: image_size {[rows, columns]}: layout nmr has square images only;"
            " give rows and columns the same number"
        )
    jobs = [scene for split in SPLITS for scene in deal(config, seed, split)]
    _write_index(root, jobs, config.views)
    for _ in in_workers(functools.partial(_write_scene, root, config.views, rows), jobs, workers):
        pass


def turntable(views: int) -> Float[Tensor, "views 4 4"]:
    """Returns the float64 camera_to_world of the layout's cameras, in our z-up world."""
    azimuth = torch.arange(views, dtype=torch.float64) * (2 * math.pi / views)
    level = math.cos(ELEVATION) * torch.stack((azimuth.cos(), azimuth.sin()), dim=-1)
    height = torch.full((views, 1), math.sin(ELEVATION), dtype=torch.float64)
    position = DISTANCE * torch.cat((level, height), dim=-1)
    return look_at(position, torch.zeros_like(position))


def deal(config: DatasetConfig, seed: int, split: str) -> Iterator[SyntheticScene]:
    """Yields a split's scenes, dealt out to the classes in turn."""
    for number in range(getattr(config.synthetic, split)):
        index, class_index = divmod(number, len(CLASSES))
        yield SyntheticScene(seed=seed, split=split, class_index=class_index, index=index)


def _write_index(root: Path, scenes: list[SyntheticScene], views: int) -> None:
    """Writes the files that say which scenes there are."""
    metadata = {}
    sources = []
    for class_index, class_name in enumerate(CLASSES):
        class_id = SyntheticScene(seed=0, split="", class_index=class_index, index=0).class_id
        metadata[class_id] = {"id": class_id, "name": class_name}
        (root / class_id).mkdir(parents=True)
        members = [scene for scene in scenes if scene.class_index == class_index]
        for split in SPLITS:
            names = [f"{scene.name}\n" for scene in members if scene.split == split]
            (root / class_id / f"softras_{split}.lst").write_text("".join(names))
        for scene in members:
            if scene.split == "test":
                sources.append(f"{class_id} {scene.name} {scene.source_view(views)}\n")
    (root / "metadata.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False))
    (root / "src_dvr.txt").write_text("".join(sources))


def _write_scene(root: Path, views: int, image_size: int, scene: SyntheticScene) -> None:
    from PIL import Image

    folder = root / scene.class_id / scene.name
    (folder / "image").mkdir(parents=True)
    (folder / "cameras.npz").write_bytes(_camera_file(views))
    solids = random_object(scene.class_name, scene.generator())
    pixels = render(solids, LIGHT, *_rays(views, image_size))
    images = pixels.view(views, image_size, image_size, 3).numpy()
    # Run lengths are what a white background needs: half the time of the default, and no larger.
    for view, image in enumerate(images):
        path = folder / "image" / f"{view:04d}.png"
        Image.fromarray(image).save(path, compress_level=1, compress_type=zlib.Z_RLE)


@functools.cache
def _rays(views: int, size: int) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n 4"]]:
    intrinsics = pinhole(FOCAL, 2.0, size, size).expand(views, 3, 3)
    return pixel_rays(intrinsics, turntable(views), size, size)


@functools.cache
def _camera_file(views: int) -> bytes:
    """Returns cameras.npz: every object of the layout has the same cameras, in a y-up world."""
    camera = np.diag([FOCAL, FOCAL, 1.0, 1.0])
    from_camera = TO_Z_UP.T @ turntable(views)
    matrices = {}
    for view, (inverse, forward) in enumerate(zip(from_camera, rigid_inverse(from_camera))):
        matrices[f"world_mat_{view}"] = forward.numpy()
        matrices[f"world_mat_inv_{view}"] = inverse.numpy()
        matrices[f"camera_mat_{view}"] = camera
        matrices[f"camera_mat_inv_{view}"] = np.linalg.inv(camera)
    file = io.BytesIO()
    np.savez(file, **matrices)
    return file.getvalue()
