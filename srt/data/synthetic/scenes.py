"""Random scenes of several objects on a ground, z up: what layouts obsurf and msn are filled with.

The ground's top is the plane z = 0, the objects stand on it near the origin, every camera looks at
the origin without roll. There are three styles: `solids` are spheres, boxes, cylinders and cones on
a grey floor, `objects` a few chairs, cars, lamps and airplanes, `clutter` more of these on a floor
with a pattern, in another light each time.
"""

from __future__ import annotations

import colorsys
import io
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from srt.common.shapes import Float, UInt8
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.objects import CLASSES, PLAIN, place, random_object
from srt.data.synthetic.raycaster import Light, pixel_rays, render
from srt.data.synthetic.solids import Colour, Material, Solid, bounding_box
from srt.geometry.cameras import look_at

Style = Literal["solids", "objects", "clutter"]
RADIUS = 3.2  # all objects are within it
GROUND_HALF = 60.0  # so far away that its edge is nearly the horizon
GAP = 0.1  # between the circles that objects stand in
CPU = torch.device("cpu")
TRIES = 100  # places drawn for an object before all are made smaller
DETAIL = 0.2  # diagonal, in an object of size 1: of a scene's few pixels, a part of one
LIGHT = Light(direction=(0.5, -0.4, 0.9), ambient=0.6)
GREY, SAND = (0.55, 0.55, 0.57), (0.8, 0.76, 0.68)

# Shape, taper and the two colours of each kind: which one it is, a few pixels tell.
SOLIDS: dict[str, tuple[Literal["sphere", "box", "frustum"], float, tuple[Colour, Colour]]] = {
    "sphere": ("sphere", 1.0, ((0.8, 0.15, 0.12), (0.95, 0.8, 0.15))),
    "box": ("box", 1.0, ((0.15, 0.3, 0.85), (0.2, 0.75, 0.8))),
    "cylinder": ("frustum", 1.0, ((0.12, 0.55, 0.15), (0.5, 0.75, 0.2))),
    "cone": ("frustum", 0.0, ((0.55, 0.2, 0.7), (0.85, 0.4, 0.65))),
}
KINDS: dict[Style, tuple[str, ...]] = {
    "solids": tuple(SOLIDS),
    "objects": tuple(CLASSES),
    "clutter": tuple(CLASSES),
}


@dataclass(frozen=True, kw_only=True)
class SceneKey:
    """Which scene it is: all that it depends on, beside the sizes in the configuration."""

    seed: int
    dataset: str
    split: str
    index: int  # in its split

    def generator(self) -> np.random.Generator:
        dataset, split = zlib.crc32(self.dataset.encode()), SPLITS.index(self.split)
        return np.random.default_rng([self.seed, dataset, split, self.index])


@dataclass(frozen=True, kw_only=True)
class GroundScene:
    objects: tuple[tuple[Solid, ...], ...]
    kinds: tuple[int, ...]  # of each object: its number in KINDS, counted from 1
    ground: Solid
    light: Light


def style_of(config: DatasetConfig) -> Style:
    """Returns the style of a dataset's scenes, which the configuration was checked to have."""
    if config.synthetic is None or config.synthetic.scene not in KINDS:
        raise ValueError(f"{config.synthetic} are no scenes on a ground")
    return config.synthetic.scene


def ground_scene(style: Style, rng: np.random.Generator) -> GroundScene:
    """Returns a random scene; its objects neither overlap nor leave the ground."""
    make, counts, sizes = {
        "solids": (_solid, (1, 2, 3, 7), (1.8, 2.6)),
        "objects": (_coarse_object, (1, 2, 3), (2.6, 3.4)),
        "clutter": (_coarse_object, (3, 4, 5), (2.0, 2.6)),
    }[style]
    shares = (0.3, 0.3, 0.3, 0.1) if style == "solids" else None
    names = [str(name) for name in rng.choice(KINDS[style], rng.choice(counts, p=shares))]
    objects = [_standing(make(name, rng), rng.uniform(*sizes), rng) for name in names]
    return GroundScene(
        objects=_spread(objects, rng),
        kinds=tuple(KINDS[style].index(name) + 1 for name in names),
        ground=_ground(style, rng),
        light=_random_light(rng) if style == "clutter" else LIGHT,
    )


def camera_positions(
    rng: np.random.Generator,
    views: int,
    distances: tuple[float, float],
    elevations: tuple[float, float],
) -> Float[np.ndarray, "views 3"]:
    """Returns float32 positions spread evenly over a part of the half sphere above the ground.

    Args:
        elevations: the lowest and the highest, in degrees.
    """
    low, high = (math.sin(math.radians(elevation)) for elevation in elevations)
    sine, azimuth = rng.uniform(low, high, views), rng.uniform(0, 2 * math.pi, views)
    level = np.sqrt(1 - sine**2)
    directions = np.stack((level * np.cos(azimuth), level * np.sin(azimuth), sine), axis=1)
    return (rng.uniform(*distances, (views, 1)) * directions).astype(np.float32)


def look_at_origin(
    positions: Float[np.ndarray, "views 3"],
) -> Float[Tensor, "views 4 4"]:
    """Returns the float64 camera_to_world of cameras at these positions."""
    at = torch.from_numpy(positions).double()
    return look_at(at, torch.zeros_like(at))


def pictures(
    scene: GroundScene,
    positions: Float[np.ndarray, "views 3"],
    intrinsics: Float[Tensor, "3 3"],
    image_size: tuple[int, int],
    device: torch.device = CPU,
) -> UInt8[np.ndarray, "views h w 3"]:
    """Returns what cameras at these positions see that look at the origin."""
    poses = look_at_origin(positions)
    each = intrinsics.expand(len(poses), 3, 3)
    rays = pixel_rays(each.to(device), poses.to(device), *image_size)
    solids = [solid for parts in scene.objects for solid in parts]
    pixels = render([*solids, scene.ground], scene.light, *rays)
    return pixels.view(len(poses), *image_size, 3).cpu().numpy()


def png(pixels: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def _solid(name: str, rng: np.random.Generator) -> list[Solid]:
    """Returns a plain solid, 1 wide and high, matte or glossy."""
    shape, taper, colours = SOLIDS[name]
    colour = colours[rng.integers(2)]
    material = Material(
        colours=(colour, colour),
        pattern=PLAIN,
        specular=float(rng.choice([0.0, 0.6])),
        shininess=40.0,
    )
    half = (0.4, 0.4, 0.4) if shape == "box" else (0.5, 0.5, 0.5)  # the diagonal is what shows
    return [Solid(shape=shape, to_world=place((0, 0, 0), half), material=material, taper=taper)]


def _coarse_object(name: str, rng: np.random.Generator) -> list[Solid]:
    """Returns an object of the class without its small parts, which take time and show nowhere."""
    solids = random_object(name, rng)
    return [solid for solid in solids if np.linalg.norm(np.subtract(*bounding_box(solid))) > DETAIL]


def _standing(solids: list[Solid], size: float, rng: np.random.Generator) -> list[Solid]:
    """Returns an object, scaled and turned about the z axis, with its lowest point at z = 0."""
    yaw = rng.uniform(0, 2 * math.pi)
    to_world = np.diag([size, size, size, 1.0])
    to_world[:2, :2] = size * np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    to_world[2, 3] = -size * min(bounding_box(solid)[0][2] for solid in solids)
    return _moved(solids, to_world)


def _moved(solids: Sequence[Solid], by: Float[np.ndarray, "4 4"]) -> list[Solid]:
    return [replace(solid, to_world=by @ solid.to_world) for solid in solids]


def _spread(objects: list[list[Solid]], rng: np.random.Generator) -> tuple[tuple[Solid, ...], ...]:
    """Returns the objects in random places where none touches another.

    Where there is no room for all of them, all become smaller.
    """
    radii = np.array([max(_reach(solid) for solid in solids) for solids in objects])
    scale = 1.0
    while (places := _places(scale * radii, rng)) is None:
        scale *= 0.95
    spread = []
    for solids, centre in zip(objects, places):
        to_world = np.diag([scale, scale, scale, 1.0])
        to_world[:2, 3] = centre
        spread.append(tuple(_moved(solids, to_world)))
    return tuple(spread)


def _places(
    radii: Float[np.ndarray, "n"], rng: np.random.Generator
) -> Float[np.ndarray, "n 2"] | None:
    """Returns centres of circles that lie apart and within RADIUS, or None if that fails."""
    centres = np.zeros((0, 2))
    for index, radius in enumerate(radii):
        angle = rng.uniform(0, 2 * math.pi, TRIES)
        distance = (RADIUS - radius) * np.sqrt(rng.uniform(0, 1, TRIES))
        drawn = np.stack((distance * np.cos(angle), distance * np.sin(angle)), axis=1)
        apart = np.linalg.norm(drawn[:, None] - centres, axis=2) - radii[:index] - radius
        free = drawn[(apart > GAP).all(1)]
        if not len(free):
            return None
        centres = np.concatenate((centres, free[:1]))
    return centres


def _reach(solid: Solid) -> float:
    """Returns how far from the z axis the solid gets, or a little more."""
    linear, centre = solid.to_world[:2, :3], solid.to_world[:2, 3]
    if solid.shape == "box":
        corners = np.array(list(itertools.product((-1, 1), repeat=3)))
        return float(np.linalg.norm(centre + corners @ linear.T, axis=1).max())
    if solid.shape == "sphere":
        return float(np.linalg.norm(centre) + np.linalg.norm(linear, 2))
    ends = np.linalg.norm((centre - linear[:, 2], centre + linear[:, 2]), axis=1)
    return float(ends.max() + np.linalg.norm(linear[:, :2], 2))


def _ground(style: Style, rng: np.random.Generator) -> Solid:
    """Returns a slab whose top is at z = 0."""
    first: Colour = GREY if style == "solids" else SAND
    second, pattern = first, PLAIN
    if style == "clutter":
        hue, darker = rng.uniform(), rng.uniform(0.8, 0.9)
        first = colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.25), rng.uniform(0.75, 0.95))
        second = (first[0] * darker, first[1] * darker, first[2] * darker)
        per_unit = GROUND_HALF / rng.uniform(3, 5)
        pattern = (per_unit, float(rng.choice([0.0, per_unit])), 0.0)
    return Solid(
        shape="box",
        to_world=place((0, 0, -1), (GROUND_HALF, GROUND_HALF, 1)),
        material=Material(colours=(first, second), pattern=pattern, specular=0.0, shininess=1.0),
    )


def _random_light(rng: np.random.Generator) -> Light:
    azimuth, ambient = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 0.65)
    level = rng.uniform(0.4, 0.9)
    return Light(
        direction=(level * math.cos(azimuth), level * math.sin(azimuth), 0.9), ambient=ambient
    )
