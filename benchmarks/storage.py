"""Ways to store packed images: size, and scenes a second that one core reads in random order.

    pip install array_record zarr && python -m benchmarks.storage > reports/storage.md

A read is what training needs of an MSN scene: 5 whole views and 8192 pixels of the 5 others. Scenes
are the synthetic ones of `srt/data/synthetic/scenes.py` at 128 × 128; all files are in the page
cache; medians of rounds, all in one run.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.packed import write_images
from srt.data.packed.images import METHOD, QUALITY, compress
from srt.data.packed.reader import Scenes
from srt.data.synthetic.scenes import SceneKey, camera_positions, ground_scene, pictures
from srt.geometry.cameras import pinhole

VIEWS, SIZE, INPUTS, RAYS = 10, 128, 5, 8192
Read = Callable[[int, np.ndarray, np.ndarray], None]


def render_scenes(count: int) -> np.ndarray:
    """Returns synthetic scenes, half of them with a patterned ground."""
    images = np.empty((count, VIEWS, SIZE, SIZE, 3), np.uint8)
    intrinsics = pinhole(0.035, 0.032, SIZE, SIZE)
    for index in range(count):
        rng = SceneKey(seed=0, dataset="storage", split="train", index=index).generator()
        scene = ground_scene("clutter" if index % 2 else "objects", rng)
        positions = camera_positions(rng, VIEWS, (8, 12), (15, 70))
        images[index] = pictures(scene, positions, intrinsics, (SIZE, SIZE))
    return images


def png(image: np.ndarray, level: int = 6) -> bytes:
    """Returns a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=level)
    return file.getvalue()


def decode(content: bytes) -> np.ndarray:
    """Returns an image file's pixels."""
    return np.asarray(Image.open(io.BytesIO(content)))


def from_views(view: Callable[[int, int], np.ndarray]) -> Read:
    """Returns a read that decodes all views of a scene."""

    def read(scene: int, inputs: np.ndarray, place: np.ndarray) -> None:
        decoded = np.stack([view(scene, number) for number in range(VIEWS)])
        _ = decoded[inputs], decoded.reshape(-1, 3)[place]

    return read


def ours(folder: Path, images: np.ndarray, storage: str) -> tuple[int, Read]:
    """Returns size and read of the packed format."""
    scenes = Scenes(write_images(folder, images, storage), torch.device("cpu"), resident=False)
    buffers = [tensor.numpy()[0] for tensor in scenes.empty(1, INPUTS, RAYS, 1)]

    def read(scene: int, inputs: np.ndarray, place: np.ndarray) -> None:
        scenes.disk.read(scene, inputs.tolist(), place, 1, *buffers)

    return size_of(folder, "images-*") + size_of(folder, "ends.npy"), read


def array_record(
    folder: Path, images: np.ndarray, encode: Callable[[np.ndarray], bytes]
) -> tuple[int, Read]:
    """Returns size and read of Google's ArrayRecord, a record for each view."""
    from array_record.python import array_record_module

    folder.mkdir()
    path = str(folder / "images.array_record")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1,uncompressed")
    for scene in images:
        for image in scene:
            writer.write(encode(image))
    writer.close()
    reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
    return size_of(folder, "*"), from_views(
        lambda scene, view: decode(reader.read([scene * VIEWS + view])[0])
    )


def zarr_array(folder: Path, images: np.ndarray) -> tuple[int, Read]:
    """Returns size and read of Zarr 3: zstd with a byte shuffle, a chunk for each view, sharded."""
    import zarr

    shape = images.shape
    array = zarr.create_array(
        folder,
        shape=shape,
        chunks=(1, 1, *shape[2:]),
        shards=(min(64, shape[0]), *shape[1:]),
        dtype="uint8",
        compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=3),
    )
    array[:] = images
    return size_of(folder, "**/*"), from_views(lambda scene, view: array[scene, view])


def size_of(folder: Path, pattern: str) -> int:
    """Returns the bytes of the files."""
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def rate(read: Read, scenes: int, rounds: int) -> float:
    """Returns scenes a second, the median of rounds over all scenes in random order."""
    rng, times = np.random.default_rng(0), []
    for _ in range(rounds):
        plans = []
        for scene in rng.permutation(scenes):
            views = rng.permutation(VIEWS)
            place = views[INPUTS:].repeat(-(-RAYS // INPUTS))[:RAYS] * SIZE**2
            plans.append((int(scene), views[:INPUTS], place + rng.integers(SIZE**2, size=RAYS)))
        began = time.perf_counter()
        for plan in plans:
            read(*plan)
        times.append((time.perf_counter() - began) / scenes)
    return 1 / statistics.median(times)


def measure(folder: Path, images: np.ndarray, rounds: int) -> list[str]:
    """Returns the table's rows."""
    stores: dict[str, Callable[[Path], tuple[int, Read]]] = {
        "ours, raw (.npy, memory-mapped)": lambda f: ours(f, images, "raw"),
        f"ours, compressed (WebP lossless, method {METHOD}, quality {QUALITY})": lambda f: ours(
            f, images, "compressed"
        ),
        f"array_record {version('array_record')}, PNG": lambda f: array_record(f, images, png),
        f"array_record {version('array_record')}, the same WebP": lambda f: array_record(
            f, images, lambda image: compress(image[None])
        ),
        f"zarr {version('zarr')}, blosc-zstd": lambda f: zarr_array(f, images),
    }
    rows = []
    for number, (name, make) in enumerate(stores.items()):
        began = time.perf_counter()
        size, read = make(folder / str(number))
        written = len(images) / (time.perf_counter() - began)
        speed = rate(read, len(images), rounds)
        rows.append(f"| {name} | {size / images.nbytes:.3f} | {written:.0f} | {speed:.0f} |")
    return rows


def main() -> None:
    """Prints the comparison as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = render_scenes(arguments.scenes)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), images, arguments.rounds)
    lines = [
        "| storage | size, raw = 1 | written, scenes/s | read at random, scenes/s |",
        "|---|---:|---:|---:|",
        *rows,
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
