"""Random objects of four classes, as lists of solids: z up, facing +x, in the unit cube.

Each class has a range of colours, and an object one of these: a small model learns it in minutes.

Lengths inside a builder are relative: the finished object is scaled to fill the cube.
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
PLAIN = (0.0, 0.0, 0.0)
IVORY, STEEL, RUBBER = (0.95, 0.92, 0.84), (0.55, 0.58, 0.62), (0.12, 0.12, 0.14)
WOOD, GLASS = (0.45, 0.3, 0.18), (0.25, 0.35, 0.45)
RED, GREEN, BLUE, PURPLE = 0.03, 0.33, 0.57, 0.83  # hues
RADIUS = 0.68  # the half diagonal that every view of the unit cube's cameras still shows whole


def place(
    centre: Vector,
    half_sizes: Vector,
    axis: Vector = (0, 0, 1),
    shear: float = 0.0,
) -> Float[np.ndarray, "4 4"]:
    """Returns the map that scales a canonical shape, turns its z axis to `axis` and moves it.

    Args:
        shear: how far x moves for each unit of y, in the scaled shape: swept wings.
    """
    z = np.asarray(axis, float) / np.linalg.norm(axis)
    helper = np.eye(3)[0 if abs(z[0]) < 0.9 else 1]
    y = _cross(z, helper)
    y /= np.linalg.norm(y)
    turn = np.stack((_cross(y, z), y, z), axis=1)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag(half_sizes)
    matrix[:3, 3] = centre
    return matrix


def _cross(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Returns the cross product of two vectors: numpy's takes fifty times as long for only two."""
    (x, y, z), (u, v, w) = a, b
    return np.array((y * w - z * v, z * u - x * w, x * v - y * u))


def fit_unit_cube(solids: Sequence[Solid], radius: float) -> list[Solid]:
    """Returns the solids, their common box centred, its longest side at most 1, its half diagonal
    at most `radius`."""
    boxes = [bounding_box(solid) for solid in solids]
    low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
    scale = min(1 / (high - low).max(), 2 * radius / float(np.linalg.norm(high - low)))
    fit = np.diag([scale, scale, scale, 1.0])
    fit[:3, 3] = -scale * (low + high) / 2
    return [replace(solid, to_world=fit @ solid.to_world) for solid in solids]


def _paint(
    rng: np.random.Generator, hue: float, pattern: tuple[float, float, float] = PLAIN
) -> Material:
    """Returns an object's own colour, matte or glossy; a pattern alternates it with ivory.

    Args:
        hue: of the class, 0 to 1; the object's lies within a tenth of the circle.
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
    return Material(colours=(colour, colour), pattern=PLAIN, specular=specular, shininess=40.0)


def _box(centre: Vector, sizes: Vector, material: Material, shear: float = 0.0) -> Solid:
    to_world = place(centre, np.asarray(sizes) / 2, shear=shear)
    return Solid(shape="box", to_world=to_world, material=material)


def _ball(centre: Vector, radii: Vector, material: Material) -> Solid:
    return Solid(shape="sphere", to_world=place(centre, radii), material=material)


def _rod(
    start: Vector, end: Vector, radius: float, material: Material, taper: float = 1.0
) -> Solid:
    """Returns a cylinder or cone from `start`, where it has this radius, to `end`."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    half = float(np.linalg.norm(last - first)) / 2
    to_world = place((first + last) / 2, (radius, radius, half), last - first)
    return Solid(shape="frustum", to_world=to_world, material=material, taper=taper)


def _chair(rng: np.random.Generator) -> list[Solid]:
    depth, width = rng.uniform(0.5, 0.65, 2)
    height, thick = rng.uniform(0.35, 0.5), rng.uniform(0.08, 0.13)
    fabric, frame = _paint(rng, BLUE), _plain(WOOD)
    x, y, top = depth / 2 - 0.05, width / 2 - 0.05, height + thick
    back = rng.uniform(0.4, 0.65)
    solids = [
        _box((0, 0, height + thick / 2), (depth, width, thick), fabric),
        _box((0.05 - depth / 2, 0, top + back / 2), (0.1, width, back), fabric),
    ]
    if rng.uniform() < 0.6:
        for i, j in ((x, y), (x, -y), (-x, y), (-x, -y)):
            solids.append(_rod((i, j, 0), (i, j, height), 0.04, frame))
    else:
        solids.append(_rod((0, 0, 0.05), (0, 0, height), 0.07, frame))
        solids.append(_rod((0, 0, 0), (0, 0, 0.08), 0.5 * depth, frame, taper=0.4))
    if rng.uniform() < 0.5:
        for side in (-y, y):
            solids.append(_box((0, side, top + 0.11), (depth, 0.1, 0.22), fabric))
    return solids


def _car(rng: np.random.Generator) -> list[Solid]:
    width, height = rng.uniform(0.4, 0.5), rng.uniform(0.16, 0.22)
    wheel, high = rng.uniform(0.1, 0.13), rng.uniform(0.15, 0.24)
    paint, rubber, glass = _paint(rng, RED), _plain(RUBBER), _plain(GLASS, 0.6)
    z, low = wheel + height / 2, wheel + height
    solids = [_box((0, 0, z), (1, width, height), paint)]
    for x in (-0.3, 0.3):
        for side in (-1, 1):
            inner, outer = (x, side * 0.4 * width, wheel), (x, side * (width / 2 + 0.02), wheel)
            solids.append(_rod(inner, outer, wheel, rubber))
            hub = (x, side * (width / 2 + 0.03), wheel)
            solids.append(_rod(inner, hub, wheel / 2, _plain(STEEL, 0.6)))
    for y in (-0.3 * width, 0.3 * width):
        solids.append(_ball((0.5, y, z + 0.02), (0.03, 0.045, 0.045), _plain((1.0, 0.9, 0.4))))
        solids.append(_box((-0.5, y, z + 0.02), (0.03, 0.08, 0.06), _plain((0.8, 0.0, 0.0))))
    if rng.uniform() < 0.5:  # a saloon, else a van
        solids.append(_box((-0.08, 0, low + high / 2), (0.5, 0.9 * width, high), glass))
        solids.append(_box((-0.08, 0, low + high), (0.46, 0.86 * width, 0.06), paint))
    else:
        solids.append(_box((0.06, 0, low + high / 2), (0.7, 0.9 * width, high), glass))
        solids.append(_box((-0.08, 0, low + 0.6 * high), (0.82, 0.94 * width, 1.2 * high), paint))
    return solids


def _lamp(rng: np.random.Generator) -> list[Solid]:
    metal, bulb = _plain(STEEL, 0.6), _plain((1.0, 0.95, 0.6))
    shade = _paint(rng, GREEN, (0.0, 0.0, rng.choice([0.0, 1.5])))
    foot, pole = rng.uniform(0.2, 0.28), rng.uniform(0.6, 0.75)
    reach, wide, length = rng.uniform(0.25, 0.4), rng.uniform(0.22, 0.3), rng.uniform(0.28, 0.36)
    end = np.array([reach, 0, pole])
    mouth = end - (0, 0, length)
    return [
        _rod((0, 0, 0), (0, 0, 0.09), foot, shade, taper=0.7),
        _rod((0, 0, 0.05), (0, 0, pole), 0.05, metal),
        _rod((-0.05, 0, pole), end, 0.045, metal),
        _rod(mouth, (reach, 0, pole + 0.05), wide, shade, taper=rng.uniform(0.3, 0.6)),
        _ball(mouth, (0.5 * wide, 0.5 * wide, 0.5 * wide), bulb),
    ]


def _airplane(rng: np.random.Generator) -> list[Solid]:
    radius, span, sweep = rng.uniform(0.08, 0.12), rng.uniform(0.75, 1.0), rng.uniform(0, 0.4)
    hull, wing = _plain(IVORY, 0.6), _paint(rng, PURPLE)
    solids = [
        _rod((-0.25, 0, 0), (0.35, 0, 0), radius, hull),
        _ball((0.35, 0, 0), (0.15, radius, radius), wing),
        _rod((-0.25, 0, 0), (-0.5, 0, 0.03), radius, hull, taper=0.3),
        _ball((0.3, 0, 0.6 * radius), (0.08, 0.5 * radius, 0.7 * radius), _plain(GLASS, 0.6)),
    ]
    chord, fin, high = rng.uniform(0.22, 0.3), rng.uniform(0.2, 0.28), 0.3 * radius
    for side in (-1, 1):
        lean = -side * sweep  # both halves sweep back
        y = side * span / 4
        solids.append(_box((0.06 + lean * y, y, high), (chord, span / 2, 0.05), wing, lean))
        solids.append(_rod((0.02 + lean * y, y, -0.04), (0.2 + lean * y, y, -0.04), 0.05, hull))
        y = side * span / 8
        solids.append(_box((-0.42 + lean * y, y, 0.04), (0.14, span / 4, 0.04), wing, lean))
    solids.append(_box((-0.43, 0, 0.02 + fin / 2), (0.15, 0.05, fin), wing))
    return solids


CLASSES: dict[str, Callable[[np.random.Generator], list[Solid]]] = {
    "chair": _chair,
    "car": _car,
    "lamp": _lamp,
    "airplane": _airplane,
}


def random_object(name: str, rng: np.random.Generator) -> list[Solid]:
    """Returns an object of this class in the unit cube."""
    return fit_unit_cube(CLASSES[name](rng), RADIUS)
