"""Random objects of four classes, as lists of solids: z up, facing +x, in the unit cube.

Lengths inside a builder are relative: the finished object is scaled to fill the cube.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from srt.data.synthetic import Colour, Material, Solid, bounding_box
from srt.shapes import Float

Vector = Sequence[float | int] | NDArray[np.float64]
PLAIN = (0.0, 0.0, 0.0)
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
    y = np.cross(z, helper) / np.linalg.norm(np.cross(z, helper))
    turn = np.stack((np.cross(y, z), y, z), axis=1)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag(half_sizes)
    matrix[:3, 3] = centre
    return matrix


def fit_unit_cube(solids: Sequence[Solid], radius: float) -> list[Solid]:
    """Returns the solids, their common box centred, its longest side at most 1, its half diagonal
    at most `radius`."""
    boxes = [bounding_box(solid) for solid in solids]
    low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
    scale = min(1 / (high - low).max(), 2 * radius / float(np.linalg.norm(high - low)))
    fit = np.diag([scale, scale, scale, 1.0])
    fit[:3, 3] = -scale * (low + high) / 2
    return [replace(solid, to_world=fit @ solid.to_world) for solid in solids]


def _colour(rng: np.random.Generator) -> Colour:
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.55, 0.95), rng.uniform(0.75, 1.0))


def _material(rng: np.random.Generator, pattern: tuple[float, float, float] = PLAIN) -> Material:
    """Returns a matte or a glossy material, of two colours if there is a pattern."""
    return Material(
        colours=(_colour(rng), _colour(rng)),
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
    depth, width = rng.uniform(0.42, 0.6, 2)
    height, thick = rng.uniform(0.35, 0.55), rng.uniform(0.05, 0.11)
    frame, fabric = _material(rng), _material(rng, (0.0, rng.choice([0.0, 2.0, 3.0]), 0.0))
    x, y, top = depth / 2 - 0.04, width / 2 - 0.04, height + thick
    solids = [_box((0, 0, height + thick / 2), (depth, width, thick), fabric)]
    if rng.uniform() < 0.7:
        splay = 1 + rng.uniform(0, 0.4)
        for i, j in ((x, y), (x, -y), (-x, y), (-x, -y)):
            solids.append(_rod((splay * i, splay * j, 0), (i, j, height), 0.025, frame, taper=1.5))
    else:
        solids.append(_rod((0, 0, 0.05), (0, 0, height), 0.05, frame))
        solids.append(_rod((0, 0, 0), (0, 0, 0.06), 0.6 * depth, frame, taper=0.2))
    solids += _chair_back(rng, 0.03 - depth / 2, width, top, frame, fabric)
    if rng.uniform() < 0.5:
        for side in (-y - 0.02, y + 0.02):
            solids.append(_box((0, side, top + 0.2), (depth, 0.06, 0.04), frame))
            solids.append(_rod((x, side, top), (x, side, top + 0.19), 0.02, frame))
    return solids


def _chair_back(
    rng: np.random.Generator, x: float, width: float, low: float, frame: Material, fabric: Material
) -> list[Solid]:
    """Returns a panel, or slats between two posts."""
    height = rng.uniform(0.4, 0.75)
    if rng.uniform() < 0.5:
        return [_box((x, 0, low + height / 2), (0.06, width, height), fabric)]
    posts = [
        _rod((x, side, low), (x, side, low + height), 0.028, frame)
        for side in (0.04 - width / 2, width / 2 - 0.04)
    ]
    slats = np.linspace(low + height, low, int(rng.integers(2, 5)), endpoint=False) - 0.06
    return posts + [_box((x, 0, z), (0.035, width - 0.04, 0.08), fabric) for z in slats]


def _car(rng: np.random.Generator) -> list[Solid]:
    width, height = rng.uniform(0.36, 0.5), rng.uniform(0.13, 0.2)
    wheel = rng.uniform(0.085, 0.125)
    paint, rubber, hub = _material(rng), _plain((0.12, 0.12, 0.14)), _plain(_colour(rng), 0.6)
    z = wheel + height / 2
    solids = [_box((0, 0, z), (1, width, height), paint)]
    for x in (-0.3, 0.3):
        for side in (-1, 1):
            inner, y = (x, side * 0.4 * width, wheel), side * (width / 2 + 0.02)
            solids.append(_rod(inner, (x, y, wheel), wheel, rubber))
            solids.append(_rod(inner, (x, y + 0.01 * side, wheel), wheel / 2, hub))
    for y in (-0.3 * width, 0.3 * width):
        solids.append(_ball((0.5, y, z + 0.02), (0.03, 0.045, 0.045), _plain((1.0, 0.9, 0.4))))
        solids.append(_box((-0.5, y, z + 0.02), (0.03, 0.08, 0.06), _plain((0.8, 0.0, 0.0))))
    return solids + _car_top(rng, width, wheel + height, paint)


def _car_top(rng: np.random.Generator, width: float, low: float, paint: Material) -> list[Solid]:
    """Returns a saloon's, a van's or a lorry's cabin, and the roof or the load."""
    high, glass = rng.uniform(0.12, 0.24), _plain((0.25, 0.35, 0.45), 0.6)
    second = _material(rng, (rng.choice([0.0, 2.0, 3.0]), 0.0, 0.0))
    kind = rng.choice(["saloon", "van", "lorry"])
    if kind == "saloon":
        x, length = rng.uniform(-0.12, 0.02), rng.uniform(0.42, 0.55)
        return [
            _ball((x, 0, low), (length / 2 + 0.05, 0.46 * width, high), glass),
            _box((x, 0, low + 0.8 * high), (0.6 * length, 0.7 * width, 0.1), second),
        ]
    if kind == "van":
        return [
            _box((0.02, 0, low + high / 2), (0.76, 0.9 * width, high), glass),
            _box((-0.1, 0, low + 0.65 * high), (0.78, 0.94 * width, high), second),
        ]
    load = high + rng.uniform(0.05, 0.2)
    return [
        _box((0.33, 0, low + high / 2), (0.26, 0.9 * width, high), glass),
        _box((0.32, 0, low + high), (0.3, 0.94 * width, 0.05), paint),
        _box((-0.16, 0, low + load / 2), (0.62, 1.02 * width, load), second),
    ]


def _lamp(rng: np.random.Generator) -> list[Solid]:
    metal, base = _material(rng), _material(rng)
    bulb = _plain((1.0, 0.95, 0.6))
    foot, pole = rng.uniform(0.16, 0.26), rng.uniform(0.55, 0.85)
    solids = [_rod((0, 0, 0), (0, 0, 0.07), foot, base, taper=rng.uniform(0.5, 1))]
    elbow = np.array([rng.uniform(-0.3, 0.1), 0, pole])
    solids += [_rod((0, 0, 0.05), elbow, 0.03, metal), _ball(elbow, (0.05, 0.05, 0.05), base)]
    arms = int(rng.integers(1, 4))
    first = rng.uniform(-0.5, 0.5)
    for arm in range(arms):
        angle, reach = first + 2 * np.pi * arm / arms, rng.uniform(0.35, 0.55)
        shade = _material(rng, (0.0, 0.0, rng.choice([0.0, 1.5, 2.0])))
        out = np.array([np.cos(angle), np.sin(angle), 0])
        end = elbow + reach * out + (0, 0, rng.uniform(-0.1, 0.2))
        solids.append(_rod(elbow, end, 0.022, metal))
        tilt = rng.uniform(0, 0.4) * out + (0, 0, -1)
        length, wide = rng.uniform(0.2, 0.3), rng.uniform(0.13, 0.2)
        mouth = end + length * tilt
        solids.append(_rod(mouth, end - 0.05 * tilt, wide, shade, taper=rng.uniform(0.2, 0.7)))
        solids.append(_ball(mouth, (0.6 * wide, 0.6 * wide, 0.6 * wide), bulb))
    return solids


def _airplane(rng: np.random.Generator) -> list[Solid]:
    radius, span, sweep = rng.uniform(0.06, 0.1), rng.uniform(0.7, 1.0), rng.uniform(0, 0.5)
    hull = _material(rng, (0.0, 0.0, rng.choice([0.0, 2.0, 3.0])))
    wing, tail, engine = _material(rng), _material(rng), _material(rng)
    solids = [
        _rod((-0.25, 0, 0), (0.35, 0, 0), radius, hull),
        _ball((0.35, 0, 0), (0.15, radius, radius), tail),
        _rod((-0.25, 0, 0), (-0.5, 0, 0.03), radius, hull, taper=0.3),
        _ball(
            (0.3, 0, 0.6 * radius), (0.08, 0.5 * radius, 0.7 * radius), _plain((0.2, 0.3, 0.4), 0.6)
        ),
    ]
    high = rng.choice([-0.4, 0.5]) * radius
    chord, fin = rng.uniform(0.16, 0.26), rng.uniform(0.16, 0.26)
    engines = rng.choice([0, 1, 2])
    for side in (-1, 1):
        lean = -side * sweep  # both halves sweep back
        y = side * span / 4
        solids.append(_box((0.06 + lean * y, y, high), (chord, span / 2, 0.03), wing, lean))
        y = side * span / 10
        solids.append(_box((-0.42 + lean * y, y, 0.04), (0.11, span / 5, 0.025), tail, lean))
        for place_out in np.arange(1, engines + 1) / (engines + 1):
            y = side * span / 2 * place_out
            x, z = 0.06 + lean * y, high - 0.055
            solids.append(_rod((x - 0.08, y, z), (x + 0.14, y, z), 0.045, engine, taper=0.8))
    solids.append(_box((-0.44, 0, 0.02 + fin / 2), (0.12, 0.03, fin), tail))
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
