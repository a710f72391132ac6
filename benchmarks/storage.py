"""Compares ways to store packed images: size, and scenes that one core reads in a second.

    pip install array_record zarr
    python -m benchmarks.storage > reports/storage.md

A read is what training needs of an MSN scene: 5 whole views and 8192 pixels of the 5 others, in
random order of the scenes. Scenes are the synthetic ones of `srt/data/synthetic/scenes.py`, at
128 × 128 pixels. All files are in the page cache. A figure is the median of several rounds.
"""

from __future__ import annotations

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

from benchmarks.command_line import make_parser
from benchmarks.packed import write_images
from srt.data.packed.images import METHOD, QUALITY, compress
from srt.data.packed.reader import Scenes
from srt.data.synthetic.scenes import SceneKey, camera_positions, random_ground_scene, render_views
from srt.geometry.cameras import pinhole

VIEWS, SIZE, INPUTS, RAYS = 10, 128, 5, 8192

# Reads a scene's input views and single pixels: takes the scene, the views and the pixels' indices.
Read = Callable[[int, np.ndarray, np.ndarray], None]


def render_scenes(count: int) -> np.ndarray:
    """Return the images of synthetic scenes, half of which have a patterned ground."""
    images = np.empty((count, VIEWS, SIZE, SIZE, 3), np.uint8)
    intrinsics = pinhole(0.035, 0.032, SIZE, SIZE)
    for index in range(count):
        rng = SceneKey(seed=0, dataset="storage", split="train", index=index).generator()
        scene = random_ground_scene("clutter" if index % 2 else "objects", rng)
        positions = camera_positions(rng, VIEWS, (8, 12), (15, 70))
        images[index] = render_views(scene, positions, intrinsics, (SIZE, SIZE))
    return images


def encode_png(image: np.ndarray, level: int = 6) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=level)
    return file.getvalue()


def decode(content: bytes) -> np.ndarray:
    """Return the pixels of an image file."""
    return np.asarray(Image.open(io.BytesIO(content)))


def read_by_views(load_view: Callable[[int, int], np.ndarray]) -> Read:
    """Return a `Read` that loads all views of a scene with this function."""

    def read(scene: int, inputs: np.ndarray, pixel_index: np.ndarray) -> None:
        views = np.stack([load_view(scene, number) for number in range(VIEWS)])
        _ = views[inputs], views.reshape(-1, 3)[pixel_index]

    return read


def store_packed(folder: Path, images: np.ndarray, storage: str) -> tuple[int, Read]:
    """Store images in our packed format, and return the bytes and how a scene is read."""
    # The buffers are allocated once, as in training.
    scenes = Scenes(write_images(folder, images, storage), torch.device("cpu"), resident=False)
    buffers = [tensor.numpy()[0] for tensor in scenes.empty(1, INPUTS, RAYS, 1)]

    def read(scene: int, inputs: np.ndarray, pixel_index: np.ndarray) -> None:
        scenes.disk.read(scene, inputs.tolist(), pixel_index, 1, *buffers)

    return size_of(folder, "images-*") + size_of(folder, "ends.npy"), read


def store_array_record(
    folder: Path, images: np.ndarray, encode: Callable[[np.ndarray], bytes]
) -> tuple[int, Read]:
    """Store images in Google's ArrayRecord, with a record for each view."""
    from array_record.python import array_record_module

    folder.mkdir()
    path = str(folder / "images.array_record")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1,uncompressed")
    for scene in images:
        for image in scene:
            writer.write(encode(image))
    writer.close()
    reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
    return size_of(folder, "*"), read_by_views(
        lambda scene, view: decode(reader.read([scene * VIEWS + view])[0])
    )


def store_zarr(folder: Path, images: np.ndarray) -> tuple[int, Read]:
    """Store images in Zarr 3: zstd with a byte shuffle, a chunk for each view, in shards."""
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
    return size_of(folder, "**/*"), read_by_views(lambda scene, view: array[scene, view])


def size_of(folder: Path, pattern: str) -> int:
    """Return the bytes of all files."""
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def read_rate(read: Read, scenes: int, rounds: int) -> float:
    """Return scenes a second, the median of rounds over all scenes in random order."""
    rng, times = np.random.default_rng(0), []
    for _ in range(rounds):
        # Choose what is read before the clock starts: half of the views are inputs, and the pixels
        # are spread evenly over the others.
        reads = []
        for scene in rng.permutation(scenes):
            views = rng.permutation(VIEWS)
            first_pixel = views[INPUTS:].repeat(-(-RAYS // INPUTS))[:RAYS] * SIZE**2
            pixel_index = first_pixel + rng.integers(SIZE**2, size=RAYS)
            reads.append((int(scene), views[:INPUTS], pixel_index))

        start = time.perf_counter()
        for arguments in reads:
            read(*arguments)
        times.append((time.perf_counter() - start) / scenes)
    return 1 / statistics.median(times)


def measure(folder: Path, images: np.ndarray, rounds: int) -> list[str]:
    """Return the rows of the table."""
    stores: dict[str, Callable[[Path], tuple[int, Read]]] = {
        "ours, raw (.npy, memory-mapped)": lambda f: store_packed(f, images, "raw"),
        f"ours, compressed (WebP lossless, method {METHOD}, quality {QUALITY})": lambda f: (
            store_packed(f, images, "compressed")
        ),
        f"array_record {version('array_record')}, PNG": lambda f: store_array_record(
            f, images, encode_png
        ),
        f"array_record {version('array_record')}, the same WebP": lambda f: store_array_record(
            f, images, lambda image: compress(image[None])
        ),
        f"zarr {version('zarr')}, blosc-zstd": lambda f: store_zarr(f, images),
    }
    rows = []
    for number, (name, store) in enumerate(stores.items()):
        start = time.perf_counter()
        size, read = store(folder / str(number))
        written = len(images) / (time.perf_counter() - start)
        speed = read_rate(read, len(images), rounds)
        rows.append(f"| {name} | {size / images.nbytes:.3f} | {written:.0f} | {speed:.0f} |")
    return rows


def main() -> None:
    """Print the comparison as a Markdown table."""
    parser = make_parser(__doc__)
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
