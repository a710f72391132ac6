"""A small valid dataset in ObSuRF's layout on disk, and functions that change it."""

import dataclasses

import numpy as np
from PIL import Image
from support.small_nmr import REPOSITORY

from srt.config.load import load_dataset
from srt.config.schema import SPLITS, SplitRanges
from srt.data.raw import obsurf

SIZE = (6, 8)  # rows, columns

# Scene 8 is in no split. Of the published dataset, those from 80500 on are in none.
RANGES = SplitRanges(train=(0, 5), val=(5, 8), test=(9, 12))
OBJECTS = [1, 2, 3, 2, 1, 4, 2, 1, 1, 2, 5, 3]  # of each scene
PUBLISHED = load_dataset(REPOSITORY / "params.yaml", "clevr3d", "paper")
TINY = dataclasses.replace(PUBLISHED, image_size=SIZE, ranges=RANGES, max_objects=3, storage="raw")


def write_raw(root):
    """Write a small valid dataset of random images, and return its folder."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for scene in range(len(OBJECTS)):
        for view in range(TINY.views):
            pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(image(root, scene, view))
    write_metadata(root, **valid_metadata(rng))
    return root


def valid_metadata(rng):
    """Return the arrays of metadata.npz; they have one view more than is used."""
    # Each scene has six slots for objects; 0 is an empty slot.
    shape = np.zeros((len(OBJECTS), 6), dtype=np.int64)
    for row, count in zip(shape, OBJECTS):
        row[rng.permutation(6)[:count]] = rng.integers(1, 4, count)
    camera_pos = rng.uniform(3, 8, (len(OBJECTS), TINY.views + 1, 3)) * rng.choice([-1, 1], 3)

    # An array that NumPy pickles, and does not load again by default.
    colour = np.array([["red", "blue"]] * len(OBJECTS), dtype=object)
    return {"shape": shape, "camera_pos": camera_pos, "colour": colour}


def write_metadata(root, **arrays):
    np.savez(root / "metadata.npz", **arrays)


def change_metadata(root, **changes):
    """Change arrays of metadata.npz.

    Args:
        changes: a function for each array's name; None deletes the array.
    """
    with np.load(root / "metadata.npz") as file:
        arrays = {key: file[key] for key in ("shape", "camera_pos")}
    for key, change in changes.items():
        array = arrays.pop(key)
        if change is not None:
            arrays[key] = change(array)
    write_metadata(root, **arrays)


def image(root, scene=7, view=1):
    return root / "images" / f"img_{scene}_{view}.png"


def read_all(root, config=TINY):
    """Return the scenes of all splits by name."""
    infos = [info for split in SPLITS for info in obsurf.list_scenes(root, split, config, None)]
    return {info.name: obsurf.read_scene(root, info, config) for info in infos}
