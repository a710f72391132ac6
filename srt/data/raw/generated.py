"""Synthetic scenes that are rendered when they are packed: as many as a training needs.

Single objects and scenes on a ground as in the raw layouts' stand-ins (srt/data/synthetic_*.py),
but their raw data is only a recipe: pictures of 20 000 scenes are never written as files of their
own. On a GPU that takes minutes. Two kinds of device round differently, and so may their pixels.

    recipe.json     seed, and the name of the dataset: scenes of one are none of another's
"""

from __future__ import annotations

import functools
import json
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from srt.common.devices import shared_device
from srt.common.files import write_atomically
from srt.common.shapes import Float, UInt8
from srt.config.schema import DatasetConfig
from srt.data.raw.common import RawScene, SceneInfo
from srt.data.synthetic import as_msn
from srt.data.synthetic.as_nmr import DISTANCE, FOCAL, LIGHT, SyntheticScene, deal, turntable
from srt.data.synthetic.objects import random_object
from srt.data.synthetic.raycaster import pixel_rays, render
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    ground_scene,
    look_at_origin,
    pictures,
    style_of,
)
from srt.geometry.cameras import pinhole, resize_intrinsics

HIGHEST = 75.0  # degrees of elevation of cameras anywhere around an object
RECIPE = "recipe.json"
OBJECTS = ("object", "object_anywhere")


def write_generated(
    root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int
) -> None:
    """Writes the recipe; `config` and `workers` are what other layouts' writers need."""
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(root / RECIPE, json.dumps({"name": name, "seed": seed}).encode())


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Returns the scenes of a split, those of one class together, as layout nmr has them.

    Were they dealt out in turn, items spread evenly over them could all be of one class.
    """
    count, views = getattr(config.synthetic, split), config.views
    if config.subset and config.subset.max_scenes:
        count = min(count, config.subset.max_scenes)
    if not shows_object(config):
        return [SceneInfo(f"{split}_{index:05d}", "scene", None) for index in range(count)]
    return [
        SceneInfo(f"{key.class_id}/{key.name}", key.class_name, key.source_view(views))
        for key in sorted(islice(deal(config, recipe(root)[1], split), count), key=in_class)
    ]


def read_scene(root: Path, info: SceneInfo, config: DatasetConfig) -> RawScene:
    """Returns a scene, rendered now."""
    name, seed = recipe(root)
    split, index = info.name.split("/")[-1].split("_")
    if not shows_object(config):
        return on_a_ground(SceneKey(seed=seed, dataset=name, split=split, index=int(index)), config)
    class_index = int(info.name.split("/")[0].removeprefix("synth")) - 1
    key = SyntheticScene(seed=seed, split=split, class_index=class_index, index=int(index))
    return an_object(key, config)


def in_class(key: SyntheticScene) -> tuple[int, int]:
    """Returns what objects are ordered by."""
    return key.class_index, key.index


def shows_object(config: DatasetConfig) -> bool:
    """Says whether the scenes are single objects."""
    return config.synthetic is not None and config.synthetic.scene in OBJECTS


@functools.cache
def recipe(root: Path) -> tuple[str, int]:
    """Returns the dataset's name and seed."""
    values = json.loads((root / RECIPE).read_text())
    return values["name"], values["seed"]


def on_a_ground(key: SceneKey, config: DatasetConfig) -> RawScene:
    """Returns a scene of several objects, seen as in layout msn."""
    rng, size = key.generator(), config.image_size
    scene = ground_scene(style_of(config), rng)
    around = (as_msn.DISTANCES, as_msn.ELEVATIONS)
    positions = camera_positions(rng, config.views, *around)
    intrinsics = resize_intrinsics(as_msn.INTRINSICS, (128, 128), size)
    images = pictures(scene, positions, intrinsics, size, shared_device())
    return raw_scene(images, intrinsics, look_at_origin(positions))


def an_object(key: SyntheticScene, config: DatasetConfig) -> RawScene:
    """Returns an object, seen by layout nmr's cameras or by as many anywhere around it."""
    assert config.synthetic is not None  # the configuration was checked
    solids, (rows, columns) = random_object(key.class_name, key.generator()), config.image_size
    intrinsics, poses = pinhole(FOCAL, 2.0, rows, columns), turntable(config.views)
    if config.synthetic.scene == "object_anywhere":
        poses = anywhere(key.generator(2), config.views)
    each, device = intrinsics.expand(config.views, 3, 3), shared_device()
    rays = pixel_rays(each.to(device), poses.to(device), rows, columns)
    pixels = render(solids, LIGHT, *rays)
    return raw_scene(pixels.view(config.views, rows, columns, 3).cpu().numpy(), intrinsics, poses)


def anywhere(rng: np.random.Generator, views: int) -> Float[Tensor, "{views} 4 4"]:
    """Returns float64 camera_to_world, spread evenly over the sphere from the horizon up."""
    positions = camera_positions(rng, views, (DISTANCE, DISTANCE), (0.0, HIGHEST))
    return look_at_origin(positions)


def raw_scene(
    images: UInt8[np.ndarray, "views h w 3"],
    intrinsics: Float[Tensor, "3 3"],
    poses: Float[Tensor, "views 4 4"],
) -> RawScene:
    """Returns what a reader returns."""
    each = intrinsics.double().expand(len(poses), 3, 3)
    return RawScene(images, each.numpy().copy(), poses.double().numpy())
