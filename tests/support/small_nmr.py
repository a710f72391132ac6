"""A small valid NMR dataset on disk, and functions that change it."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from support.paths import REPOSITORY

from srt.config.load import load_dataset
from srt.data.packed import shards, writer
from srt.data.raw import nmr
from srt.geometry.cameras import look_at

PUBLISHED = dataclasses.replace(
    load_dataset(REPOSITORY / "params.yaml", "nmr", "paper"), view_list=0
)
VIEWS, SIZE, FOCAL = 3, 8, 1.5
TINY = dataclasses.replace(
    PUBLISHED, views=VIEWS, image_size=(SIZE, SIZE), pixel_grid="center", view_list="views.txt"
)
SCENE_BYTES = VIEWS * SIZE * SIZE * 3
# Not in alphabetical order. Without quotes, YAML reads the first id as an octal number.
METADATA = """
04256520: {id: 04256520, name: "sofa,couch"}
02828884: {id: 02828884, name: bench}
"""
LISTS = {
    "04256520": {"train": ["s1", "s0", "s2"], "val": [], "test": ["s3"]},
    "02828884": {"train": ["b0"], "val": ["b1"], "test": ["b2"]},
}


def write_raw(root):
    """Write a small valid dataset of random images and cameras, and return its folder."""
    rng = np.random.default_rng(0)
    for class_id, lists in LISTS.items():
        for split, names in lists.items():
            for name in names:
                write_scene(root / class_id / name, rng)
            (root / class_id / f"softras_{split}.lst").write_text("\n".join(names) + "\n")
    (root / "metadata.yaml").write_text(METADATA)
    (root / "views.txt").write_text("04256520 s3 2\n02828884 b2 0\n02828884 other 1\n")
    return root


def write_scene(folder, rng):
    """Write the images and the cameras of a scene, in the raw form of NMR."""
    (folder / "image").mkdir(parents=True)
    cameras = {}
    for view in range(VIEWS):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "image" / f"{view:04d}.png")
        pose = random_pose(rng)
        cameras[f"world_mat_inv_{view}"] = pose
        cameras[f"world_mat_{view}"] = np.linalg.inv(pose)
        cameras[f"camera_mat_{view}"] = np.diag([FOCAL, FOCAL, 1, 1])
    np.savez(folder / "cameras.npz", **cameras)


def random_pose(rng):
    """Return a random camera_to_world that sees the world's origin.

    It is in the raw world of NMR, where y is up.
    """
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.2)
    level = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])
    position = rng.uniform(2, 3) * np.array([*level, np.sin(elevation)])
    target = rng.uniform(-0.2, 0.2, 3)
    return nmr.Z_UP.T @ look_at(torch.from_numpy(position), torch.from_numpy(target)).numpy()


def pack(raw, out, config=TINY, workers=1):
    """Pack `raw` to `out` and return `out`."""
    view_list = raw / "views.txt"
    writer.pack(raw, view_list, config, out, provenance={"source": "test"}, workers=workers)
    return out


def pack_in_threads(monkeypatch):
    """Let this test pack in a thread; to start a process takes seconds."""
    monkeypatch.setattr(writer, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))


def use_small_shards(monkeypatch):
    """Let this test pack two scenes into each shard."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * SCENE_BYTES)


def contents(folder):
    """Return the bytes of all files in a folder, by their relative path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def image(raw, scene="04256520/s1", view=1):
    return raw / scene / "image" / f"{view:04d}.png"


def truncate(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def resave(path, mode, size=(SIZE, SIZE)):
    """Save an image again in another mode and size (width, height)."""
    Image.open(path).convert(mode).resize(size).save(path)


def delete_lines(path, word):
    """Delete the lines of a file that have a word."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if word not in line))
