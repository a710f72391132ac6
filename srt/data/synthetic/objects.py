"""Random objects of four classes: chairs, cars, lamps and airplanes, each a list of solids.

The z axis points up and an object faces +x. A finished object fills the unit cube, which is centred
at 0. The objects of a class have colours of one range, and the ranges of the classes are far apart.
A small model can then learn in minutes which class an object is of.

The numbers in a class' function are relative lengths, because the finished object is scaled. The
order in which a function draws its random numbers decides what every object looks like: changing it
changes all synthetic datasets.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from srt.common.shapes import Float
from srt.data.synthetic.solids import Colour, Material, Solid, bounding_box

Vector = Sequence[float | int] | NDArray[np.float64]

# A material's pattern for one colour only.
PLAIN = (0.0, 0.0, 0.0)

# The colours of what is not painted in the colour of the class.
IVORY, STEEL, RUBBER = (0.95, 0.92, 0.84), (0.55, 0.58, 0.62), (0.12, 0.12, 0.14)
WOOD, GLASS = (0.45, 0.3, 0.18), (0.25, 0.35, 0.45)

# The hues of the classes, on a circle from 0 to 1.
RED, GREEN, BLUE, PURPLE = 0.03, 0.33, 0.57, 0.83

# The longest half diagonal of an object that layout nmr's cameras still show whole.
RADIUS = 0.68


def shape_to_world(
    centre: Vector,
    half_sizes: Vector,
    axis: Vector = (0, 0, 1),
    shear: float = 0.0,
) -> Float[np.ndarray, "4 4"]:
    """Return the map that scales a canonical shape, turns its z axis to `axis` and moves it.

    Args:
        shear: how far x moves for each unit of y in the scaled shape. It makes swept wings.
    """
    # Any right-handed axes will do whose z axis is `axis`.
    z = np.asarray(axis, float) / np.linalg.norm(axis)
    helper = np.eye(3)[0 if abs(z[0]) < 0.9 else 1]
    y = _cross_product(z, helper)
    y /= np.linalg.norm(y)
    turn = np.stack((_cross_product(y, z), y, z), axis=1)

    # First scale, then shear, then turn, then move.
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag(half_sizes)
    matrix[:3, 3] = centre
    return matrix


def _cross_product(
    first: Float[np.ndarray, "3"], second: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """Return the cross product of two vectors. numpy's takes fifty times as long for only two."""
    (x, y, z), (u, v, w) = first, second
    return np.array((y * w - z * v, z * u - x * w, x * v - y * u))


def fit_unit_cube(solids: Sequence[Solid], radius: float) -> list[Solid]:
    """Return the solids, moved and scaled as one object to fill the unit cube around 0.

    Args:
        radius: the longest half diagonal that the object's bounding box may have.
    """
    # The bounding box of all solids.
    boxes = [bounding_box(solid) for solid in solids]
    low = np.min([corners[0] for corners in boxes], axis=0)
    high = np.max([corners[1] for corners in boxes], axis=0)

    # Its longest side becomes 1, or shorter where its diagonal would be too long.
    scale = min(1 / (high - low).max(), 2 * radius / float(np.linalg.norm(high - low)))
    fit = np.diag([scale, scale, scale, 1.0])
    fit[:3, 3] = -scale * (low + high) / 2
    return [replace(solid, to_world=fit @ solid.to_world) for solid in solids]


def _random_paint(
    rng: np.random.Generator, hue: float, pattern: tuple[float, float, float] = PLAIN
) -> Material:
    """Return a random paint near the hue, matte or glossy. A pattern alternates it with ivory.

    Args:
        hue: that of the class, on a circle from 0 to 1. The paint's is within 0.1 of it.
    """
    shade = (hue + rng.uniform(-0.1, 0.1)) % 1
    colour = colorsys.hsv_to_rgb(shade, rng.uniform(0.7, 0.95), rng.uniform(0.7, 1.0))
    return Material(
        colours=(colour, IVORY if any(pattern) else colour),
        pattern=pattern,
        specular=float(rng.choice([0.0, 0.6])),
        shininess=rng.uniform(10, 60),
    )


def _plain(colour: Colour, specular: float = 0.0) -> Material:
    """Return a material of one colour."""
    return Material(colours=(colour, colour), pattern=PLAIN, specular=specular, shininess=40.0)


def _box(centre: Vector, sizes: Vector, material: Material, shear: float = 0.0) -> Solid:
    """Return a box with edges of these lengths along x, y and z."""
    to_world = shape_to_world(centre, np.asarray(sizes) / 2, shear=shear)
    return Solid(shape="box", to_world=to_world, material=material)


def _ellipsoid(centre: Vector, radii: Vector, material: Material) -> Solid:
    """Return an ellipsoid with these radii along x, y and z."""
    return Solid(shape="sphere", to_world=shape_to_world(centre, radii), material=material)


def _rod(
    start: Vector, end: Vector, radius: float, material: Material, taper: float = 1.0
) -> Solid:
    """Return a cylinder or cone from `start`, where it has this radius, to `end`."""
    bottom, top = np.asarray(start, float), np.asarray(end, float)
    half = float(np.linalg.norm(top - bottom)) / 2
    to_world = shape_to_world((bottom + top) / 2, (radius, radius, half), top - bottom)
    return Solid(shape="frustum", to_world=to_world, material=material, taper=taper)


def _chair(rng: np.random.Generator) -> list[Solid]:
    """Return a chair with four legs or one, with or without arm rests."""
    depth, width = rng.uniform(0.5, 0.65, 2)
    height, thickness = rng.uniform(0.35, 0.5), rng.uniform(0.08, 0.13)
    fabric, frame = _random_paint(rng, BLUE), _plain(WOOD)
    back = rng.uniform(0.4, 0.65)

    # The seat and the back.
    top = height + thickness
    solids = [
        _box((0, 0, height + thickness / 2), (depth, width, thickness), fabric),
        _box((0.05 - depth / 2, 0, top + back / 2), (0.1, width, back), fabric),
    ]

    # Four legs near the corners, or a pole on a round foot.
    x, y = depth / 2 - 0.05, width / 2 - 0.05
    if rng.uniform() < 0.6:
        solids += _legs(x, y, height, frame)
    else:
        solids.append(_rod((0, 0, 0.05), (0, 0, height), 0.07, frame))
        solids.append(_rod((0, 0, 0), (0, 0, 0.08), 0.5 * depth, frame, taper=0.4))

    # Every second chair has arm rests.
    if rng.uniform() < 0.5:
        for arm_y in (-y, y):
            solids.append(_box((0, arm_y, top + 0.11), (depth, 0.1, 0.22), fabric))
    return solids


def _legs(x: float, y: float, height: float, material: Material) -> list[Solid]:
    """Return the four legs of a chair, which stand at these distances from its middle."""
    solids = []
    for leg_x, leg_y in ((x, y), (x, -y), (-x, y), (-x, -y)):
        solids.append(_rod((leg_x, leg_y, 0), (leg_x, leg_y, height), 0.04, material))
    return solids


def _car(rng: np.random.Generator) -> list[Solid]:
    """Return a saloon car or a van."""
    width, height = rng.uniform(0.4, 0.5), rng.uniform(0.16, 0.22)
    wheel, cabin_height = rng.uniform(0.1, 0.13), rng.uniform(0.15, 0.24)
    paint, glass = _random_paint(rng, RED), _plain(GLASS, 0.6)

    # The body is between the wheels' axles and the windows.
    middle, top = wheel + height / 2, wheel + height
    solids = [_box((0, 0, middle), (1, width, height), paint)]
    solids += _wheels(width, wheel)
    solids += _car_lights(width, middle + 0.02)

    # The cabin: a saloon has glass on all sides, a van only in front.
    cabin = top + cabin_height / 2
    if rng.uniform() < 0.5:
        solids.append(_box((-0.08, 0, cabin), (0.5, 0.9 * width, cabin_height), glass))
        solids.append(_box((-0.08, 0, top + cabin_height), (0.46, 0.86 * width, 0.06), paint))
    else:
        load, load_sizes = top + 0.6 * cabin_height, (0.82, 0.94 * width, 1.2 * cabin_height)
        solids.append(_box((0.06, 0, cabin), (0.7, 0.9 * width, cabin_height), glass))
        solids.append(_box((-0.08, 0, load), load_sizes, paint))
    return solids


def _wheels(width: float, radius: float) -> list[Solid]:
    """Return the four wheels of a car of this width, each a tyre and a hub that stands out."""
    rubber, steel = _plain(RUBBER), _plain(STEEL, 0.6)
    solids = []
    for x in (-0.3, 0.3):
        for side in (-1, 1):
            inner = (x, side * 0.4 * width, radius)
            tyre_end = (x, side * (width / 2 + 0.02), radius)
            hub_end = (x, side * (width / 2 + 0.03), radius)
            solids.append(_rod(inner, tyre_end, radius, rubber))
            solids.append(_rod(inner, hub_end, radius / 2, steel))
    return solids


def _car_lights(width: float, height: float) -> list[Solid]:
    """Return two yellow headlights and two red tail lights at this height."""
    yellow, red = _plain((1.0, 0.9, 0.4)), _plain((0.8, 0.0, 0.0))
    solids = []
    for y in (-0.3 * width, 0.3 * width):
        solids.append(_ellipsoid((0.5, y, height), (0.03, 0.045, 0.045), yellow))
        solids.append(_box((-0.5, y, height), (0.03, 0.08, 0.06), red))
    return solids


def _lamp(rng: np.random.Generator) -> list[Solid]:
    """Return a lamp whose shade hangs from an arm."""
    # Paint of the foot and the shade, which may have stripes.
    metal, bulb = _plain(STEEL, 0.6), _plain((1.0, 0.95, 0.6))
    paint = _random_paint(rng, GREEN, (0.0, 0.0, rng.choice([0.0, 1.5])))
    foot, pole = rng.uniform(0.2, 0.28), rng.uniform(0.6, 0.75)
    reach, radius, length = rng.uniform(0.25, 0.4), rng.uniform(0.22, 0.3), rng.uniform(0.28, 0.36)

    # The arm goes from the pole's top to `end`, and the shade opens downwards at `opening`.
    end = np.array([reach, 0, pole])
    opening = end - (0, 0, length)
    shade_top = (reach, 0, pole + 0.05)
    return [
        _rod((0, 0, 0), (0, 0, 0.09), foot, paint, taper=0.7),
        _rod((0, 0, 0.05), (0, 0, pole), 0.05, metal),
        _rod((-0.05, 0, pole), end, 0.045, metal),
        _rod(opening, shade_top, radius, paint, taper=rng.uniform(0.3, 0.6)),
        _ellipsoid(opening, (0.5 * radius, 0.5 * radius, 0.5 * radius), bulb),
    ]


def _airplane(rng: np.random.Generator) -> list[Solid]:
    """Return an airplane with swept wings, engines below them, and a tail."""
    radius, span, sweep = rng.uniform(0.08, 0.12), rng.uniform(0.75, 1.0), rng.uniform(0, 0.4)
    hull, paint = _plain(IVORY, 0.6), _random_paint(rng, PURPLE)

    solids = _fuselage(radius, hull, paint)

    # On either side a wing, an engine and a tailplane. Both sides are swept back.
    chord, fin, wing_height = rng.uniform(0.22, 0.3), rng.uniform(0.2, 0.28), 0.3 * radius
    for side in (-1, 1):
        shear = -side * sweep
        y = side * span / 4
        wing_sizes = (chord, span / 2, 0.05)
        solids.append(_box((0.06 + shear * y, y, wing_height), wing_sizes, paint, shear))
        engine_start, engine_end = (0.02 + shear * y, y, -0.04), (0.2 + shear * y, y, -0.04)
        solids.append(_rod(engine_start, engine_end, 0.05, hull))
        y = side * span / 8
        solids.append(_box((-0.42 + shear * y, y, 0.04), (0.14, span / 4, 0.04), paint, shear))

    # The upright fin.
    solids.append(_box((-0.43, 0, 0.02 + fin / 2), (0.15, 0.05, fin), paint))
    return solids


def _fuselage(radius: float, hull: Material, paint: Material) -> list[Solid]:
    """Return the fuselage of an airplane, its nose, its tail cone and the cockpit."""
    cockpit_radii = (0.08, 0.5 * radius, 0.7 * radius)
    return [
        _rod((-0.25, 0, 0), (0.35, 0, 0), radius, hull),
        _ellipsoid((0.35, 0, 0), (0.15, radius, radius), paint),
        _rod((-0.25, 0, 0), (-0.5, 0, 0.03), radius, hull, taper=0.3),
        _ellipsoid((0.3, 0, 0.6 * radius), cockpit_radii, _plain(GLASS, 0.6)),
    ]


CLASSES: dict[str, Callable[[np.random.Generator], list[Solid]]] = {
    "chair": _chair,
    "car": _car,
    "lamp": _lamp,
    "airplane": _airplane,
}


def random_object(name: str, rng: np.random.Generator) -> list[Solid]:
    """Return a random object of this class in the unit cube."""
    return fit_unit_cube(CLASSES[name](rng), RADIUS)
