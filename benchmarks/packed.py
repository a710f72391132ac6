"""Writes packed splits of smooth synthetic images within seconds, for the benchmarks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srt.data.packed.images import compress
from srt.data.packed.reader import FORMAT
from srt.geometry.cameras import look_at, pinhole

# The most different images that are drawn. A larger data set repeats them.
DRAWN = 1000


def write_packed(
    folder: Path, scenes: int, views: int, size: tuple[int, int], storage: str
) -> Path:
    """Write a split of drawn images, and return `folder`. They compress about as renders do."""
    rng = np.random.default_rng(0)
    images = np.stack([draw_image(rng, *size) for _ in range(min(DRAWN, scenes * views))])
    return write_images(folder, images, storage, rng.integers(len(images), size=(scenes, views)))


def write_images(
    folder: Path,
    images: np.ndarray,
    storage: str,
    choice: np.ndarray | None = None,
    poses: torch.Tensor | None = None,
    focal: float = 0.035 / 0.032,
) -> Path:
    """Write a split in one shard, and return `folder`. All cameras look at the origin.

    Args:
        images: (scenes, views, h, w, 3), or with `choice` (different images, h, w, 3).
        choice: the number of each view's image, (scenes, views).
        poses: camera_to_world, (scenes, views, 4, 4); None: random positions on a sphere.
        focal: the focal length in widths of an image.
    """
    folder.mkdir(parents=True)
    if choice is None:
        choice = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
        images = images.reshape(-1, *images.shape[2:])
    height, width = images.shape[1:3]
    name = write_shard(folder, images, choice, storage)

    # All cameras have the same distance, if no poses are given.
    if poses is None:
        position = torch.from_numpy(np.random.default_rng(1).normal(size=(*choice.shape, 3)))
        position = 9 * position / position.norm(dim=-1, keepdim=True)
        poses = look_at(position, torch.zeros_like(position))
    intrinsics = pinhole(focal, 1.0, height, width).expand(*choice.shape, 3, 3)
    np.savez(folder / "cameras.npz", intrinsics=intrinsics, camera_to_world=poses)

    scenes, views = choice.shape
    header = split_header(name, storage, scenes, views, (height, width))
    (folder / "scenes.json").write_text(json.dumps(header))
    return folder


def split_header(
    name: str, storage: str, scenes: int, views: int, size: tuple[int, int]
) -> dict[str, Any]:
    """Return scenes.json of a split with one shard, as srt/data/packed/reader.py expects it."""
    return {
        "format": FORMAT,
        "storage": storage,
        "views": views,
        "height": size[0],
        "width": size[1],
        "scenes_per_shard": scenes,
        "files": [name],
        "names": [str(number) for number in range(scenes)],
        "classes": ["drawn"],
        "class_of": [0] * scenes,
        "source_views": [0] * scenes,
    }


def write_shard(folder: Path, images: np.ndarray, choice: np.ndarray, storage: str) -> str:
    """Write the images of all scenes to one file, and return its name."""
    # Raw images are one array.
    if storage == "raw":
        name = "images-00000.npy"
        shape = (*choice.shape, *images.shape[1:])
        shard = np.lib.format.open_memmap(folder / name, "w+", np.uint8, shape)
        for scene, views in enumerate(choice):
            shard[scene] = images[views]
        shard.flush()
        return name

    # Compressed scenes follow each other, and their ends are in a second file.
    name = "images-00000.webp"
    ends = []
    with (folder / name).open("wb") as file, ThreadPoolExecutor() as threads:
        for data in threads.map(lambda views: compress(images[views]), choice):
            file.write(data)
            ends.append(file.tell())
    np.save(folder / "ends.npy", np.array(ends, np.uint64))
    return name


def draw_image(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return an image of a gradient with noise and a few shaded discs, (rows, columns, 3)."""
    y, x = np.mgrid[0:rows, 0:columns] / columns
    tint = rng.uniform(100, 220, 3)
    image = tint * (0.7 + 0.3 * y[..., None]) + rng.normal(0, 1, (rows, columns, 3))
    for _ in range(4):
        (cx, cy), radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.08, 0.25)
        elevation = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        inside = elevation > 0
        image[inside] = rng.uniform(30, 255, 3) * np.sqrt(elevation[inside])[:, None]
    return image.clip(0, 255).astype(np.uint8)
