"""Measures how many items one core loads in a second, from packed data and by decoding each item.

    python -m benchmarks.loading

NMR-like items have 24 views of 64 × 64 pixels, and 8192 target rays. They are loaded in three ways:

- `per item` is how stelzner/srt loads: it decodes 24 PNGs, reads 96 arrays of an npz, computes all
  94 208 rays, and uses 8192 of them;
- `from disk` and `resident` read the sampled pixels of the packed data, and compute their rays;
- `pixels only` computes no rays: in training, the GPU does.

MSN-like items have 10 views of 128 × 128 pixels, 5 of which are inputs. Scenes are synthetic, and
all files are in the page cache. A figure is the median of several rounds.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.command_line import make_parser
from benchmarks.packed import write_packed
from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.data.sampling import Sampler

CPU = torch.device("cpu")
RAYS, BATCH = 8192, 32
NMR = {"views": 24, "size": 64, "inputs": 1}
MSN = {"views": 10, "size": 128, "inputs": 5}


def write_raw_item(folder: Path, images: np.ndarray) -> None:
    """Write an item in NMR's layout."""
    folder.mkdir(parents=True)
    matrices: dict[str, Any] = {}
    for view, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{view:04d}.png")
        for key in ("world_mat", "world_mat_inv", "camera_mat", "camera_mat_inv"):
            matrices[f"{key}_{view}"] = np.eye(4)
    np.savez(folder / "cameras.npz", **matrices)


def load_per_item(folder: Path, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return an item's input image and 8192 target rays, loaded as stelzner/srt loads them."""
    # Load all views and compute all rays.
    images, origins, directions = [], [], []
    grid = np.linspace(-1, 1, NMR["size"])
    plane = np.stack(np.meshgrid(grid, grid), axis=-1)
    file = np.load(folder / "cameras.npz")
    cameras = {key: file[key] for key in file.files}
    for view in range(NMR["views"]):
        with Image.open(folder / f"{view:04d}.png") as image:
            images.append(np.asarray(image).astype(np.float32) / 255)
        points = np.concatenate((plane, np.ones_like(plane)), axis=-1).reshape(-1, 4)
        to_world = cameras[f"world_mat_inv_{view}"] @ cameras[f"camera_mat_inv_{view}"]
        ends = (points @ to_world.T)[:, :3]
        centre = cameras[f"world_mat_inv_{view}"][:3, 3]
        rays = ends - centre
        directions.append(rays / np.linalg.norm(rays, axis=-1, keepdims=True))
        origins.append(np.tile(centre, (len(rays), 1)))

    # View 0 is the input. A random choice of the rays of all other views is used.
    pixels, rays, starts = (
        np.concatenate(views[1:]).reshape(-1, 3).astype(np.float32)
        for views in ([i.reshape(-1, 3) for i in images], directions, origins)
    )
    sample = rng.permutation(len(pixels))[:RAYS]
    return images[0], pixels[sample], rays[sample], starts[sample]


def rate(call: Callable[[int], Any], items: int, rounds: int) -> float:
    """Return items a second, the median of rounds. The first call does not count."""
    call(0)
    times = []
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - start)
    return items / statistics.median(times)


def make_sampler(setting: dict[str, int]) -> Sampler:
    """Return the sampler of NMR-like or MSN-like items."""
    view_config = ViewConfig(
        canonical=True,
        input_views=setting["inputs"],
        input_stride=1,
        all_targets=False,
        near=2.0,
        far=4.0,
    )
    return Sampler(
        batch_size=BATCH,
        rays_per_scene=RAYS,
        uniforms_per_ray=0,
        view_config=view_config,
        seed=0,
        rank=0,
        world_size=1,
    )


def batch_loader(scenes: Scenes, setting: dict[str, int]) -> Callable[[int], Any]:
    """Return a function that makes the batch of a step."""
    sampler = make_sampler(setting)
    return lambda step: sampler.batch(scenes, step)


def pixel_loader(scenes: Scenes, setting: dict[str, int]) -> Callable[[int], Any]:
    """Return a function that reads the pixels of a batch, which a host has to do in training."""
    indices = make_sampler(setting).batch_indices(scenes, 0)
    pixel_index = indices.view * (scenes.height * scenes.width) + indices.pixel
    return lambda _: scenes.gather(indices.scene, indices.inputs, pixel_index, 1)


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Return items a second for each way to load them."""
    # NMR: write the same images in the raw layout and packed.
    nmr = write_packed(folder / "nmr", count, NMR["views"], (NMR["size"], NMR["size"]), "raw")
    images = np.load(nmr / "images-00000.npy", mmap_mode="r")
    for number in range(BATCH):
        write_raw_item(folder / "raw" / str(number), images[number])
    rng = np.random.default_rng(0)
    items = [folder / "raw" / str(number) for number in range(BATCH)]
    results = {"NMR, per item": rate(lambda _: [load_per_item(i, rng) for i in items], BATCH, 5)}
    for name, resident in (("from disk", False), ("resident", True)):
        scenes = Scenes(nmr, CPU, resident)
        results[f"NMR, {name}"] = rate(batch_loader(scenes, NMR), BATCH, rounds)
        results[f"NMR, {name}, pixels only"] = rate(pixel_loader(scenes, NMR), BATCH, rounds)

    # MSN: raw and compressed.
    for storage in ("raw", "compressed"):
        msn = write_packed(
            folder / f"msn-{storage}", count // 8, MSN["views"], (MSN["size"], MSN["size"]), storage
        )
        scenes = Scenes(msn, CPU, resident=False)
        results[f"MSN, {storage}"] = rate(batch_loader(scenes, MSN), BATCH, rounds)
        results[f"MSN, {storage}, pixels only"] = rate(pixel_loader(scenes, MSN), BATCH, rounds)
    return results


def main() -> None:
    """Print a table and, as the last line, JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments.scenes, arguments.rounds)

    # NMR is compared with loading per item, MSN with what a GPU needs.
    base = results["NMR, per item"]
    for name, value in results.items():
        ratio = f"{value / base:6.0f} ×" if name.startswith("NMR") else f"{500 / value:6.1f} cores"
        print(f"{name:32} {value:8.0f} a second {ratio}")
    print("cores: that feed a GPU at 500 scenes a second")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
