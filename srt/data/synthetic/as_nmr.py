"""Synthetic objects in NMR's raw layout, which srt/data/raw/nmr.py describes.

As in the published dataset, every object fills the unit cube and all objects have the same cameras:
30° above the object and equally spaced around it. The classes have ids synth001, synth002 and so
on, which ShapeNet does not use.
"""

from __future__ import annotations

import functools
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from srt.common.devices import run_in_workers
from srt.common.errors import UserError
from srt.common.shapes import Float
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.objects import CLASSES, random_object
from srt.data.synthetic.raycaster import Light, pixel_rays, render
from srt.geometry.cameras import look_at, pinhole, rigid_inverse

# The published cameras: the focal length in units of half an image's width, which makes a field of
# view of 30°, the distance from the object's centre, and the elevation.
FOCAL = 3.732
DISTANCE = 2.732
ELEVATION = math.radians(30)

LIGHT = Light(direction=(0.5, -0.4, 0.9), ambient=0.5)

# From the layout's world, which is y-up, to ours: (x, y, z) -> (x, -z, y).
TO_Z_UP = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).double()


@dataclass(frozen=True, kw_only=True)
class ObjectKey:
    """What identifies a scene: it decides the scene's object and the names of its files."""

    seed: int
    split: str
    class_index: int
    index: int  # in its split and class

    @property
    def class_id(self) -> str:
        """The id of the class, which is also the folder of its scenes."""
        return f"synth{self.class_index + 1:03d}"

    @property
    def class_name(self) -> str:
        """The name of the class."""
        return list(CLASSES)[self.class_index]

    @property
    def name(self) -> str:
        """The name of the scene, which is also its folder below that of the class."""
        return f"{self.split}_{self.index:05d}"

    def source_view(self, views: int) -> int:
        """Return the random view that is the input of protocol pixelnerf."""
        return int(self.generator(1).integers(views))

    def generator(self, *purpose: int) -> np.random.Generator:
        """Return a random generator of this scene, at its start.

        Args:
            purpose: none for the object itself; other numbers give independent generators.
        """
        split = SPLITS.index(self.split)
        return np.random.default_rng([self.seed, split, self.class_index, self.index, *purpose])


def write_nmr(root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int) -> None:
    """Write the scenes. A file's content depends neither on `workers` nor on the other scenes.

    The classes take turns in the scenes of a split. `src_dvr.txt` has the name and the form of
    pixelNeRF's file: it lists the input view of each test scene.

    Args:
        name: of the dataset, for messages. The scenes do not depend on it.

    Raises:
        UserError: the images are not square, which cameras of this layout cannot express.
    """
    rows, columns = config.image_size
    if rows != columns:
        raise UserError(
            f"datasets.{name}: image_size {[rows, columns]}: images of layout nmr are square;"
            " set rows and columns to the same number"
        )

    # First the lists, which need no rendering. Then each worker renders a scene and writes it.
    scenes = [scene for split in SPLITS for scene in keys_by_class_in_turn(config, seed, split)]
    _write_lists(root, scenes, config.views)
    write_scene = functools.partial(_write_scene, root, config.views, rows)
    for _ in run_in_workers(write_scene, scenes, workers):
        pass


def turntable_poses(views: int) -> Float[Tensor, "views 4 4"]:
    """Return the float64 camera_to_world of the layout's cameras, in our z-up world."""
    azimuth = torch.arange(views, dtype=torch.float64) * (2 * math.pi / views)
    level = math.cos(ELEVATION) * torch.stack((azimuth.cos(), azimuth.sin()), dim=-1)
    height = torch.full((views, 1), math.sin(ELEVATION), dtype=torch.float64)
    position = DISTANCE * torch.cat((level, height), dim=-1)  # (views, 3)
    return look_at(position, torch.zeros_like(position))


def keys_by_class_in_turn(config: DatasetConfig, seed: int, split: str) -> Iterator[ObjectKey]:
    """Yield the scenes of a split. The classes take turns."""
    for number in range(getattr(config.synthetic, split)):
        index, class_index = divmod(number, len(CLASSES))
        yield ObjectKey(seed=seed, split=split, class_index=class_index, index=index)


def _write_lists(root: Path, scenes: list[ObjectKey], views: int) -> None:
    """Write the files that list the classes, their scenes and the views of protocol pixelnerf."""
    metadata, source_lines = {}, []
    for class_index, class_name in enumerate(CLASSES):
        # Every scene of a class knows the id of the class. Its seed and split do not matter.
        class_id = ObjectKey(seed=0, split="", class_index=class_index, index=0).class_id
        metadata[class_id] = {"id": class_id, "name": class_name}

        # The folder of the class has a list of each split.
        members = [scene for scene in scenes if scene.class_index == class_index]
        _write_class_lists(root / class_id, members)
        for scene in members:
            if scene.split == "test":
                source_lines.append(f"{class_id} {scene.name} {scene.source_view(views)}\n")
    (root / "metadata.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False))
    (root / "src_dvr.txt").write_text("".join(source_lines))


def _write_class_lists(folder: Path, scenes: list[ObjectKey]) -> None:
    """Make the folder of a class, and in it the list of each split's scenes."""
    folder.mkdir(parents=True)
    for split in SPLITS:
        names = [f"{scene.name}\n" for scene in scenes if scene.split == split]
        (folder / f"softras_{split}.lst").write_text("".join(names))


def _write_scene(root: Path, views: int, image_size: int, scene: ObjectKey) -> None:
    """Render all views of a scene, and write its images and cameras."""
    from PIL import Image

    folder = root / scene.class_id / scene.name
    (folder / "image").mkdir(parents=True)
    (folder / "cameras.npz").write_bytes(_camera_file(views))

    # Render all views at once.
    solids = random_object(scene.class_name, scene.generator())
    pixels = render(solids, LIGHT, *_rays(views, image_size))  # (views h w, 3)
    images = pixels.view(views, image_size, image_size, 3).numpy()

    # Run lengths are enough for a white background. They take half the time of the default, and the
    # files are no larger.
    for view, image in enumerate(images):
        path = folder / "image" / f"{view:04d}.png"
        Image.fromarray(image).save(path, compress_level=1, compress_type=zlib.Z_RLE)


@functools.cache
def _rays(views: int, size: int) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n 4"]]:
    """Return the rays of all pixels of all views, computed once for all objects."""
    intrinsics = pinhole(FOCAL, 2.0, size, size).expand(views, 3, 3)
    return pixel_rays(intrinsics, turntable_poses(views), size, size)


@functools.cache
def _camera_file(views: int) -> bytes:
    """Return the content of cameras.npz, which all objects share."""
    # All views have the same intrinsics. The poses are in the layout's y-up world.
    camera = np.diag([FOCAL, FOCAL, 1.0, 1.0])
    camera_to_world = TO_Z_UP.T @ turntable_poses(views)
    world_to_camera = rigid_inverse(camera_to_world)

    # Each view has four matrices: world to camera, camera to image, and their inverses.
    matrices: dict[str, Any] = {}
    for view in range(views):
        matrices[f"world_mat_{view}"] = world_to_camera[view].numpy()
        matrices[f"world_mat_inv_{view}"] = camera_to_world[view].numpy()
        matrices[f"camera_mat_{view}"] = camera
        matrices[f"camera_mat_inv_{view}"] = np.linalg.inv(camera)
    file = io.BytesIO()
    np.savez(file, **matrices)
    return file.getvalue()
