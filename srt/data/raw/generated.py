"""Synthetic scenes that are rendered when they are packed: as many as a training needs.

The raw data is only a recipe:

    recipe.json     the name of the dataset, and a seed; scenes of two names are different

The scenes are those that stand in for the other raw layouts (srt/data/synthetic): single objects,
and several objects on a ground. The images of 20 000 scenes are not written as files of their own,
and a GPU renders them in minutes. A GPU and a CPU round differently, so their pixels can differ.
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
from srt.data.synthetic.as_nmr import (
    DISTANCE,
    FOCAL,
    LIGHT,
    ObjectKey,
    keys_by_class_in_turn,
    turntable_poses,
)
from srt.data.synthetic.objects import random_object
from srt.data.synthetic.raycaster import pixel_rays, render
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    look_at_origin,
    random_ground_scene,
    render_views,
    scene_style,
)
from srt.geometry.cameras import pinhole, resize_intrinsics

# Cameras anywhere around an object have an elevation from 0 to this, in degrees.
HIGHEST = 75.0

# The file that is the raw data, and the kinds of scenes that are single objects.
RECIPE = "recipe.json"
OBJECTS = ("object", "object_anywhere")


def write_generated(
    root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int
) -> None:
    """Write the recipe. `config` and `workers` are arguments that other layouts' writers use."""
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(root / RECIPE, json.dumps({"name": name, "seed": seed}).encode())


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Return the scenes of a split. Single objects are ordered by class, as in layout nmr.

    In this order, a few scenes at equal distances in the list are of all classes. If the classes
    took turns, they could all be of one class.
    """
    # Scenes on a ground are all of one class.
    count, views = getattr(config.synthetic, split), config.views
    if config.subset and config.subset.max_scenes:
        count = min(count, config.subset.max_scenes)
    if not shows_object(config):
        return [SceneInfo(f"{split}_{index:05d}", "scene", None) for index in range(count)]

    # Objects: the first `count`, of all classes in turn, and then ordered by class.
    _, seed = read_recipe(root)
    keys = sorted(islice(keys_by_class_in_turn(config, seed, split), count), key=_class_and_index)
    return [
        SceneInfo(f"{key.class_id}/{key.name}", key.class_name, key.source_view(views))
        for key in keys
    ]


def read_scene(root: Path, info: SceneInfo, config: DatasetConfig) -> RawScene:
    """Render a scene and return it."""
    # The scene's name says its split and number, and for an object also its class.
    name, seed = read_recipe(root)
    split, index = info.name.split("/")[-1].split("_")
    if not shows_object(config):
        ground_key = SceneKey(seed=seed, dataset=name, split=split, index=int(index))
        return render_ground_scene(ground_key, config)

    # Classes are numbered from 1 in their ids, and from 0 in their list.
    class_index = int(info.name.split("/")[0].removeprefix("synth")) - 1
    key = ObjectKey(seed=seed, split=split, class_index=class_index, index=int(index))
    return render_object(key, config)


def _class_and_index(key: ObjectKey) -> tuple[int, int]:
    """Return the numbers by which objects are ordered."""
    return key.class_index, key.index


def shows_object(config: DatasetConfig) -> bool:
    """Say whether the scenes are single objects."""
    return config.synthetic is not None and config.synthetic.scene in OBJECTS


@functools.cache
def read_recipe(root: Path) -> tuple[str, int]:
    """Return the dataset's name and seed."""
    values = json.loads((root / RECIPE).read_text())
    return values["name"], values["seed"]


def render_ground_scene(key: SceneKey, config: DatasetConfig) -> RawScene:
    """Return a scene of several objects, seen by cameras like those of layout msn."""
    # One generator draws first the scene, then the cameras.
    rng, size = key.generator(), config.image_size
    scene = random_ground_scene(scene_style(config), rng)
    positions = camera_positions(rng, config.views, as_msn.DISTANCES, as_msn.ELEVATIONS)
    intrinsics = resize_intrinsics(as_msn.INTRINSICS, (128, 128), size)
    images = render_views(scene, positions, intrinsics, size, shared_device())
    return make_raw_scene(images, intrinsics, look_at_origin(positions))


def render_object(key: ObjectKey, config: DatasetConfig) -> RawScene:
    """Return an object, seen by the cameras of layout nmr or by cameras anywhere around it."""
    assert config.synthetic is not None  # the configuration was checked
    # The object and the cameras come from different random streams of the key.
    rows, columns = config.image_size
    solids = random_object(key.class_name, key.generator())
    intrinsics, poses = pinhole(FOCAL, 2.0, rows, columns), turntable_poses(config.views)
    if config.synthetic.scene == "object_anywhere":
        poses = poses_around_object(key.generator(2), config.views)

    # Render all pixels of all views at once.
    device = shared_device()
    view_intrinsics = intrinsics.expand(config.views, 3, 3)
    rays = pixel_rays(view_intrinsics.to(device), poses.to(device), rows, columns)
    pixels = render(solids, LIGHT, *rays)  # (views rows columns, 3)
    images = pixels.view(config.views, rows, columns, 3).cpu().numpy()
    return make_raw_scene(images, intrinsics, poses)


def poses_around_object(rng: np.random.Generator, views: int) -> Float[Tensor, "{views} 4 4"]:
    """Return float64 camera_to_world, spread evenly over a sphere from the horizon up."""
    positions = camera_positions(rng, views, (DISTANCE, DISTANCE), (0.0, HIGHEST))
    return look_at_origin(positions)


def make_raw_scene(
    images: UInt8[np.ndarray, "views h w 3"],
    intrinsics: Float[Tensor, "3 3"],
    poses: Float[Tensor, "views 4 4"],
) -> RawScene:
    """Return a scene whose views all have the same intrinsics."""
    view_intrinsics = intrinsics.double().expand(len(poses), 3, 3)
    return RawScene(images, view_intrinsics.numpy().copy(), poses.double().numpy())
