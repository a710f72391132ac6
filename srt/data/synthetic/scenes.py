"""Random scenes of several objects on a ground, as layouts obsurf, msn and generated have them.

The z axis points up and the ground's top is the plane z = 0. The objects stand on it near the
origin. All cameras look at the origin and do not roll. There are three styles:

    solids     spheres, boxes, cylinders and cones on a grey floor
    objects    one to three chairs, cars, lamps and airplanes on a sand-coloured floor
    clutter    three to five of these on a patterned floor, in another light for each scene

The order in which random numbers are drawn decides what the scenes look like: changing it changes
all synthetic datasets.
"""

from __future__ import annotations

import colorsys
import io
import math
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from srt.common.shapes import Float, UInt8
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.arrangement import spread_objects, stand_on_ground
from srt.data.synthetic.objects import CLASSES, PLAIN, random_object, shape_to_world
from srt.data.synthetic.raycaster import Light, pixel_rays, render
from srt.data.synthetic.solids import Colour, Material, Solid, bounding_box
from srt.geometry.cameras import look_at

Style = Literal["solids", "objects", "clutter"]
CPU = torch.device("cpu")

# Half the ground's width. It is so large that the ground's edge is nearly the horizon.
GROUND_HALF = 60.0

# An object of size 1 loses its solids whose diagonal is shorter than this. In a scene's small
# pictures, such a solid would be smaller than a pixel.
DETAIL = 0.2

LIGHT = Light(direction=(0.5, -0.4, 0.9), ambient=0.6)
GREY, SAND = (0.55, 0.55, 0.57), (0.8, 0.76, 0.68)

# Shape, taper and two colours. No two types share a colour, so that a few pixels are enough to tell
# which type it is.
SOLIDS: dict[str, tuple[Literal["sphere", "box", "frustum"], float, tuple[Colour, Colour]]] = {
    "sphere": ("sphere", 1.0, ((0.8, 0.15, 0.12), (0.95, 0.8, 0.15))),
    "box": ("box", 1.0, ((0.15, 0.3, 0.85), (0.2, 0.75, 0.8))),
    "cylinder": ("frustum", 1.0, ((0.12, 0.55, 0.15), (0.5, 0.75, 0.2))),
    "cone": ("frustum", 0.0, ((0.55, 0.2, 0.7), (0.85, 0.4, 0.65))),
}

# The types of objects in a style's scenes.
OBJECT_TYPES: dict[Style, tuple[str, ...]] = {
    "solids": tuple(SOLIDS),
    "objects": tuple(CLASSES),
    "clutter": tuple(CLASSES),
}


@dataclass(frozen=True, kw_only=True)
class SceneKey:
    """What identifies a scene. With the sizes in the configuration, it decides all of the scene."""

    seed: int
    dataset: str
    split: str
    index: int  # in its split

    def generator(self) -> np.random.Generator:
        """Return the random generator of this scene, at its start."""
        dataset, split = zlib.crc32(self.dataset.encode()), SPLITS.index(self.split)
        return np.random.default_rng([self.seed, dataset, split, self.index])


@dataclass(frozen=True, kw_only=True)
class GroundScene:
    """Objects that stand on a ground, and their light."""

    objects: tuple[tuple[Solid, ...], ...]
    type_numbers: tuple[int, ...]  # for each object, its type in OBJECT_TYPES, counted from 1
    ground: Solid
    light: Light


def scene_style(config: DatasetConfig) -> Style:
    """Return the style of a dataset's scenes. The configuration was checked to have one."""
    if config.synthetic is None or config.synthetic.scene not in OBJECT_TYPES:
        raise ValueError(f"{config.synthetic} does not describe scenes on a ground")
    return config.synthetic.scene


def random_ground_scene(style: Style, rng: np.random.Generator) -> GroundScene:
    """Return a random scene, in which no object touches another one or hangs over the ground."""
    # What makes an object from its type, how many objects there are, and how large they are.
    make_object, counts, sizes = {
        "solids": (_random_solid, (1, 2, 3, 7), (1.8, 2.6)),
        "objects": (_coarse_object, (1, 2, 3), (2.6, 3.4)),
        "clutter": (_coarse_object, (3, 4, 5), (2.0, 2.6)),
    }[style]

    # A tenth of the scenes of solids has 7 objects. `max_objects: 6`, which is the published
    # setting, then leaves out some scenes.
    probabilities = (0.3, 0.3, 0.3, 0.1) if style == "solids" else None
    count = rng.choice(counts, p=probabilities)
    names = [str(name) for name in rng.choice(OBJECT_TYPES[style], count)]
    objects = []
    for name in names:
        solids = make_object(name, rng)
        objects.append(stand_on_ground(solids, rng.uniform(*sizes), rng))

    # The generator also draws where the objects are, the ground and the light, in this order.
    return GroundScene(
        objects=spread_objects(objects, rng),
        type_numbers=tuple(OBJECT_TYPES[style].index(name) + 1 for name in names),
        ground=_random_ground(style, rng),
        light=_random_light(rng) if style == "clutter" else LIGHT,
    )


def camera_positions(
    rng: np.random.Generator,
    views: int,
    distances: tuple[float, float],
    elevations: tuple[float, float],
) -> Float[np.ndarray, "views 3"]:
    """Return random float32 positions, evenly spread over a zone of the sphere around the origin.

    Args:
        distances: the smallest and the largest distance from the origin.
        elevations: the lowest and the highest elevation, in degrees.
    """
    # On a sphere, the sine of the elevation is evenly distributed.
    low, high = (math.sin(math.radians(elevation)) for elevation in elevations)
    sine, azimuth = rng.uniform(low, high, views), rng.uniform(0, 2 * math.pi, views)
    cosine = np.sqrt(1 - sine**2)
    directions = np.stack((cosine * np.cos(azimuth), cosine * np.sin(azimuth), sine), axis=1)
    return (rng.uniform(*distances, (views, 1)) * directions).astype(np.float32)


def look_at_origin(
    positions: Float[np.ndarray, "views 3"],
) -> Float[Tensor, "views 4 4"]:
    """Return the float64 camera_to_world of cameras at these positions that look at the origin."""
    at = torch.from_numpy(positions).double()
    return look_at(at, torch.zeros_like(at))


def render_views(
    scene: GroundScene,
    positions: Float[np.ndarray, "views 3"],
    intrinsics: Float[Tensor, "3 3"],
    image_size: tuple[int, int],
    device: torch.device = CPU,
) -> UInt8[np.ndarray, "views h w 3"]:
    """Return the images of cameras at these positions that look at the origin."""
    # All views have the same intrinsics.
    poses = look_at_origin(positions)
    view_intrinsics = intrinsics.expand(len(poses), 3, 3)
    rays = pixel_rays(view_intrinsics.to(device), poses.to(device), *image_size)

    # The ray caster takes all solids in one list.
    solids = [solid for object_solids in scene.objects for solid in object_solids]
    pixels = render([*solids, scene.ground], scene.light, *rays)  # (views h w, 3)
    return pixels.view(len(poses), *image_size, 3).cpu().numpy()


def encode_png(pixels: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]) -> bytes:
    """Return the content of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def _random_solid(name: str, rng: np.random.Generator) -> list[Solid]:
    """Return one solid of this type, about 1 wide and high, in one colour, matte or glossy."""
    shape, taper, colours = SOLIDS[name]
    colour = colours[rng.integers(2)]
    material = Material(
        colours=(colour, colour),
        pattern=PLAIN,
        specular=float(rng.choice([0.0, 0.6])),
        shininess=40.0,
    )

    # A box is smaller, because from most sides it is as wide as its diagonal.
    half = (0.4, 0.4, 0.4) if shape == "box" else (0.5, 0.5, 0.5)
    to_world = shape_to_world((0, 0, 0), half)
    return [Solid(shape=shape, to_world=to_world, material=material, taper=taper)]


def _coarse_object(name: str, rng: np.random.Generator) -> list[Solid]:
    """Return an object of this class without its small solids, which cost time and do not show."""
    solids = random_object(name, rng)
    return [solid for solid in solids if np.linalg.norm(np.subtract(*bounding_box(solid))) > DETAIL]


def _random_ground(style: Style, rng: np.random.Generator) -> Solid:
    """Return a slab whose top is at z = 0."""
    first: Colour = GREY if style == "solids" else SAND
    second, pattern = first, PLAIN

    # In clutter, the ground has checks or stripes of a pale colour and a darker one. They are 3 to
    # 5 units wide, and the pattern counts in the slab's canonical shape.
    if style == "clutter":
        hue, darker = rng.uniform(), rng.uniform(0.8, 0.9)
        first = colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.25), rng.uniform(0.75, 0.95))
        second = (first[0] * darker, first[1] * darker, first[2] * darker)
        changes = GROUND_HALF / rng.uniform(3, 5)
        pattern = (changes, float(rng.choice([0.0, changes])), 0.0)
    return Solid(
        shape="box",
        to_world=shape_to_world((0, 0, -1), (GROUND_HALF, GROUND_HALF, 1)),
        material=Material(colours=(first, second), pattern=pattern, specular=0.0, shininess=1.0),
    )


def _random_light(rng: np.random.Generator) -> Light:
    """Return light from a random side, at an elevation of 45 to 66 degrees."""
    azimuth, ambient = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 0.65)
    level = rng.uniform(0.4, 0.9)
    direction = (level * math.cos(azimuth), level * math.sin(azimuth), 0.9)
    return Light(direction=direction, ambient=ambient)
