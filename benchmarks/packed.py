"""Packed splits of smooth synthetic images, quickly: for the benchmarks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from srt.data.packed.images import compress
from srt.data.packed.reader import FORMAT
from srt.geometry.cameras import look_at, pinhole

DRAWN = 1000  # different images: the others repeat them


def write_packed(
    folder: Path, scenes: int, views: int, size: tuple[int, int], storage: str
) -> Path:
    """Writes shaded discs on a gradient, which compress about as renders do; returns `folder`."""
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_image(rng, *size) for _ in range(min(DRAWN, scenes * views))])
    return write_images(folder, drawn, storage, rng.integers(len(drawn), size=(scenes, views)))


def write_images(
    folder: Path,
    images: np.ndarray,
    storage: str,
    choice: np.ndarray | None = None,
    poses: torch.Tensor | None = None,
    focal: float = 0.035 / 0.032,
) -> Path:
    """Writes one shard of scenes, of cameras that look at the origin; returns `folder`.

    Args:
        images: [scenes, views, h, w, 3], or with `choice` [different images, h, w, 3].
        choice: [scenes, views], which image each view is.
        poses: [scenes, views, 4, 4]; None: anywhere on a sphere.
        focal: in units of an image's width.
    """
    folder.mkdir(parents=True)
    if choice is None:
        choice = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
        images = images.reshape(-1, *images.shape[2:])
    height, width = images.shape[1:3]
    name = "images-00000.npy" if storage == "raw" else "images-00000.webp"
    if storage == "raw":
        shape = (*choice.shape, height, width, 3)
        shard = np.lib.format.open_memmap(folder / name, "w+", np.uint8, shape)
        for scene, views in enumerate(choice):
            shard[scene] = images[views]
        shard.flush()
    else:
        ends = []
        with (folder / name).open("wb") as file, ThreadPoolExecutor() as threads:
            for data in threads.map(lambda views: compress(images[views]), choice):
                file.write(data)
                ends.append(file.tell())
        np.save(folder / "ends.npy", np.array(ends, np.uint64))
    if poses is None:
        position = torch.from_numpy(np.random.default_rng(1).normal(size=(*choice.shape, 3)))
        position = 9 * position / position.norm(dim=-1, keepdim=True)
        poses = look_at(position, torch.zeros_like(position))
    intrinsics = pinhole(focal, 1.0, height, width).expand(*choice.shape, 3, 3)
    np.savez(folder / "cameras.npz", intrinsics=intrinsics, camera_to_world=poses)
    header = {
        "format": FORMAT,
        "storage": storage,
        "views": choice.shape[1],
        "height": height,
        "width": width,
        "scenes_per_shard": len(choice),
        "files": [name],
        "names": [str(number) for number in range(len(choice))],
        "classes": ["drawn"],
        "class_of": [0] * len(choice),
        "source_views": [0] * len(choice),
    }
    (folder / "scenes.json").write_text(json.dumps(header))
    return folder


def draw_image(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Returns a gradient with noise and a few shaded discs."""
    y, x = np.mgrid[0:rows, 0:columns] / columns
    tint = rng.uniform(100, 220, 3)
    image = tint * (0.7 + 0.3 * y[..., None]) + rng.normal(0, 1, (rows, columns, 3))
    for _ in range(4):
        (cx, cy), radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.08, 0.25)
        height = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        inside = height > 0
        image[inside] = rng.uniform(30, 255, 3) * np.sqrt(height[inside])[:, None]
    return image.clip(0, 255).astype(np.uint8)
