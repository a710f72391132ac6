"""Items a second that one core can load, ours against decoding per item; all in one run.

    python -m benchmarks.loading

NMR-like: 64 × 64, 24 views, 8192 rays of an item. `per item` is how stelzner/srt loads: 24 PNGs,
96 members of an npz, all 94 208 rays and a permutation of them to use 8192. `from disk` gathers the
sampled pixels from the packed set and computes their rays; `pixels only` leaves the rays to the
device, as training on a GPU does. MSN-like: 128 × 128, 10 views, 5 of them inputs. Scenes are
synthetic; all files are in the page cache; the figures are medians of several rounds.
"""

from __future__ import annotations

import argparse
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

from benchmarks.packed import write_packed
from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.data.sampling import Sampler

CPU = torch.device("cpu")
RAYS, BATCH = 8192, 32
NMR = {"views": 24, "size": 64, "inputs": 1}
MSN = {"views": 10, "size": 128, "inputs": 5}


def write_raw_item(folder: Path, images: np.ndarray) -> None:
    """Writes an item in NMR's layout."""
    folder.mkdir(parents=True)
    matrices: dict[str, Any] = {}
    for view, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{view:04d}.png")
        for key in ("world_mat", "world_mat_inv", "camera_mat", "camera_mat_inv"):
            matrices[f"{key}_{view}"] = np.eye(4)
    np.savez(folder / "cameras.npz", **matrices)


def load_per_item(folder: Path, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Returns an item's input image and 8192 target rays, from everything that the item has."""
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
    pixels, rays, starts = (
        np.concatenate(part[1:]).reshape(-1, 3).astype(np.float32)
        for part in ([i.reshape(-1, 3) for i in images], directions, origins)
    )
    chosen = rng.permutation(len(pixels))[:RAYS]
    return images[0], pixels[chosen], rays[chosen], starts[chosen]


def rate(call: Callable[[int], Any], items: int, rounds: int) -> float:
    """Returns items a second: the median of rounds of one call, after one that warms up."""
    call(0)
    times = []
    for number in range(1, rounds + 1):
        began = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - began)
    return items / statistics.median(times)


def sampler(kind: dict[str, int]) -> Sampler:
    """Returns the sampler of a published setting."""
    view_config = ViewConfig(
        canonical=True,
        input_views=kind["inputs"],
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


def drawing(scenes: Scenes, kind: dict[str, int]) -> Callable[[int], Any]:
    """Returns a call that makes the batch of a step."""
    draw = sampler(kind)
    return lambda step: draw.batch(scenes, step)


def gathering(scenes: Scenes, kind: dict[str, int]) -> Callable[[int], Any]:
    """Returns a call that reads the pixels of a planned batch: what loading costs a host."""
    plan = sampler(kind).batch_indices(scenes, 0)
    place = plan.view * (scenes.height * scenes.width) + plan.pixel
    return lambda _: scenes.gather(plan.scene, plan.inputs, place, 1)


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Returns items (NMR) and scenes (MSN) a second, by the way they are loaded."""
    nmr = write_packed(folder / "nmr", count, NMR["views"], (NMR["size"], NMR["size"]), "raw")
    images = np.load(nmr / "images-00000.npy", mmap_mode="r")
    for number in range(BATCH):
        write_raw_item(folder / "raw" / str(number), images[number])
    rng = np.random.default_rng(0)
    one = [folder / "raw" / str(number) for number in range(BATCH)]
    results = {"NMR, per item": rate(lambda _: [load_per_item(i, rng) for i in one], BATCH, 5)}
    for name, resident in (("from disk", False), ("resident", True)):
        scenes = Scenes(nmr, CPU, resident)
        results[f"NMR, {name}"] = rate(drawing(scenes, NMR), BATCH, rounds)
        results[f"NMR, {name}, pixels only"] = rate(gathering(scenes, NMR), BATCH, rounds)
    for storage in ("raw", "compressed"):
        msn = write_packed(
            folder / f"msn-{storage}", count // 8, MSN["views"], (MSN["size"], MSN["size"]), storage
        )
        scenes = Scenes(msn, CPU, resident=False)
        results[f"MSN, {storage}"] = rate(drawing(scenes, MSN), BATCH, rounds)
        results[f"MSN, {storage}, pixels only"] = rate(gathering(scenes, MSN), BATCH, rounds)
    return results


def main() -> None:
    """Prints a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments.scenes, arguments.rounds)
    base = results["NMR, per item"]
    for name, value in results.items():
        ratio = f"{value / base:6.0f} ×" if name.startswith("NMR") else f"{500 / value:6.1f} cores"
        print(f"{name:32} {value:8.0f} a second {ratio}")
    print("cores: that feed a GPU at 500 scenes a second")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
