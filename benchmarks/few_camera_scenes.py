"""Scenes for benchmarks/camera_overfitting.py: objects seen by fixed, random and test cameras.

All cameras look at the object from the same distance, as NMR's do. NMR has 24 fixed cameras on a
circle; the random ones are anywhere above the ground.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.packed import write_images
from srt.data.batch import Batch
from srt.data.packed.reader import Scenes
from srt.data.synthetic.as_nmr import DISTANCE, FOCAL, LIGHT, turntable_poses
from srt.data.synthetic.objects import CLASSES, random_object
from srt.data.synthetic.raycaster import pixel_rays, render
from srt.geometry.cameras import look_at, pinhole

VIEWS = 24  # of a training scene

# The highest elevation of a random camera, in degrees.
HIGHEST = 75.0

# Test cameras: these elevations in degrees, and so many cameras at each of them.
ELEVATIONS = (0, 10, 20, 25, 30, 35, 40, 50, 60, 70)
AZIMUTHS = 4


def camera_poses(camera_set: str, objects: int, rng: np.random.Generator) -> Tensor:
    """Return camera_to_world of all views of all objects, (objects, views, 4, 4).

    Args:
        camera_set: `fixed` and `dense` are for training. `test` has first the input, then other
            fixed cameras, then cameras at all elevations.
    """
    if camera_set == "fixed":
        return turntable_poses(VIEWS).expand(objects, VIEWS, 4, 4)

    # Equal areas of the sphere are equally likely if the sine of the elevation is uniform.
    if camera_set == "dense":
        sine = rng.uniform(0, math.sin(math.radians(HIGHEST)), (objects, VIEWS))
        azimuth = torch.from_numpy(rng.uniform(0, 360, (objects, VIEWS)))
        return sphere_poses(azimuth, torch.from_numpy(np.degrees(np.arcsin(sine))))

    # Every third fixed camera, from a random one on, which is the input.
    first = rng.integers(VIEWS, size=(objects, 1))
    ring = (first + np.arange(0, VIEWS, 3)) % VIEWS  # (objects, 8)
    elevation = torch.tensor(ELEVATIONS).double().repeat_interleave(AZIMUTHS)
    azimuth = torch.from_numpy(rng.uniform(0, 360, (objects, len(elevation))))
    anywhere = sphere_poses(azimuth, elevation.expand_as(azimuth))
    return torch.cat((turntable_poses(VIEWS)[ring], anywhere), dim=1)


def sphere_poses(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Return camera_to_world of cameras at NMR's distance. Angles are in degrees."""
    azimuth, elevation = azimuth.deg2rad(), elevation.deg2rad()
    level = elevation.cos()
    direction = torch.stack((level * azimuth.cos(), level * azimuth.sin(), elevation.sin()), -1)
    return look_at(DISTANCE * direction, torch.zeros_like(direction))


def make_scenes(
    folder: Path, camera_set: str, objects: int, size: int, device: torch.device
) -> Scenes:
    """Render objects and return them on the device. `fixed` and `dense` have the same objects."""
    poses = camera_poses(camera_set, objects, np.random.default_rng(len(camera_set)))
    intrinsics = pinhole(FOCAL, 2.0, size, size).expand(poses.shape[1], 3, 3)
    images = np.empty((objects, poses.shape[1], size, size, 3), np.uint8)

    # Objects of the test have seeds of their own.
    names = list(CLASSES)
    for index in range(objects):
        seed = [int(camera_set == "test"), index]
        solids = random_object(names[index % len(names)], np.random.default_rng(seed))
        rays = (tensor.to(device) for tensor in pixel_rays(intrinsics, poses[index], size, size))
        images[index] = render(solids, LIGHT, *rays).view(images.shape[1:]).cpu().numpy()
    write_images(folder / camera_set, images, "raw", poses=poses, focal=FOCAL / 2)
    return Scenes(folder / camera_set, device, resident=True)


def nearest_camera_angles(scenes: Scenes) -> np.ndarray:
    """Return the angle in degrees from each test camera to the nearest fixed one.

    The shape is (objects, views - 1): the input is left out.
    """
    position = scenes.cameras(torch.arange(len(scenes)))[1][..., 1:, :3, 3].cpu().double()
    fixed = turntable_poses(VIEWS)[:, :3, 3] / DISTANCE
    cosine = (position / DISTANCE) @ fixed.T
    return np.degrees(np.arccos(cosine.amax(dim=-1).clamp(-1, 1).numpy()))


def rotate_items(batch: Batch, seed: int) -> Batch:
    """Return the batch with the rays of each item rotated at random about the origin."""
    # The Q of a random matrix is a random rotation, or a reflection, which the sign removes.
    count = len(batch.images)
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(matrices)  # (b, 3, 3)
    rotation = (rotation * torch.linalg.det(rotation)[:, None, None].sign()).to(batch.images)

    names = ("image_origins", "image_directions", "origins", "directions")
    rotated: dict[str, Any] = {
        name: torch.einsum("bij,b...j->b...i", rotation, getattr(batch, name)) for name in names
    }
    return dataclasses.replace(batch, **rotated)
