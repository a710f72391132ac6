"""Packed splits of smooth synthetic images, quickly: for the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from srt.data.images import compress
from srt.data.scenes import FORMAT
from srt.geometry import look_at, pinhole

DRAWN = 1000  # different images: the others repeat them


def write_packed(folder: Path, scenes: int, views: int, size: int, storage: str) -> Path:
    """Writes shaded discs on a gradient, which compress about as renders do; returns `folder`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    drawn = [draw_image(rng, size) for _ in range(min(DRAWN, scenes * views))]
    shape = (scenes, views, size, size, 3)
    if storage == "raw":
        images = np.lib.format.open_memmap(
            folder / "images-00000.npy", mode="w+", dtype=np.uint8, shape=shape
        )
    ends, end = np.zeros((scenes, views), np.uint64), 0
    with (folder / "images-00000.webp").open("wb") as file:
        for scene in range(scenes):
            for view in range(views):
                image = drawn[rng.integers(len(drawn))]
                if storage == "raw":
                    images[scene, view] = image
                else:
                    end += file.write(compress(image))
                    ends[scene, view] = end
    name = "images-00000.npy"
    if storage == "compressed":
        name = "images-00000.webp"
        np.save(folder / "ends.npy", ends)
    else:
        (folder / "images-00000.webp").unlink()
        images.flush()
    position = torch.from_numpy(rng.normal(size=(scenes, views, 3)))
    poses = look_at(9 * position / position.norm(dim=-1, keepdim=True), torch.zeros_like(position))
    intrinsics = pinhole(0.035, 0.032, size, size).expand(scenes, views, 3, 3)
    np.savez(folder / "cameras.npz", intrinsics=intrinsics, camera_to_world=poses)
    header = {
        "format": FORMAT,
        "storage": storage,
        "views": views,
        "height": size,
        "width": size,
        "scenes_per_shard": scenes,
        "files": [name],
        "names": [str(number) for number in range(scenes)],
        "classes": ["drawn"],
        "class_of": [0] * scenes,
        "source_views": [0] * scenes,
    }
    (folder / "scenes.json").write_text(json.dumps(header))
    return folder


def draw_image(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a gradient with noise and a few shaded discs."""
    y, x = np.mgrid[0:size, 0:size] / size
    tint = rng.uniform(100, 220, 3)
    image = tint * (0.7 + 0.3 * y[..., None]) + rng.normal(0, 1, (size, size, 3))
    for _ in range(4):
        (cx, cy), radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.08, 0.25)
        height = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        inside = height > 0
        image[inside] = rng.uniform(30, 255, 3) * np.sqrt(height[inside])[:, None]
    return image.clip(0, 255).astype(np.uint8)
