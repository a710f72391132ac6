"""Solids: simple shapes under affine maps, and where rays enter them.

There are three canonical shapes: the unit sphere, the box [-1, 1]³, and the frustum. The frustum
stands around the z axis from z = -1 to z = 1. Its radius is 1 at the bottom and `taper` at the top,
so that taper 1 makes a cylinder and taper 0 a cone. A solid is a canonical shape with a map to the
world and a material.

All `enter_*` functions take rays in the coordinates of the canonical shape. A ray reaches the point
origin + t · direction at the distance t.

Shapes: n rays, or n packets of k rays that have one origin. Coordinates are the first dimension,
(3, n): each coordinate is then contiguous in memory, which makes it fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from srt.common.shapes import Float

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]

# The origins and directions of rays: x, y, z, dx, dy, dz, each of which is a tensor.
_Coordinates = tuple[Tensor, ...]

# Instead of zero, the least absolute value of what a formula divides by.
TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Material:
    """The colours and the gloss of a surface.

    Two colours alternate along each axis of the canonical shape. `pattern` says how often they
    change in a unit of length: (0, 0, 0) shows only the first colour, (0, 0, 2) makes stripes
    across z, and (2, 2, 2) makes a checkerboard.
    """

    colours: tuple[Colour, Colour]
    pattern: tuple[float, float, float]

    # The strength of the white highlight, where 0 is matte, and how small the highlight is: the
    # exponent of Blinn and Phong's formula.
    specular: float
    shininess: float


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A canonical shape, the map that brings it to the world, and its material."""

    shape: Literal["sphere", "box", "frustum"]
    to_world: Float[np.ndarray, "4 4"]
    material: Material
    taper: float = 1.0  # of a frustum: its radius at the top


def bounding_box(solid: Solid) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Return the lowest and the highest corner of the solid's axis-aligned box in the world."""
    # Row i of the linear map says how the shape's axes add up along the world's axis i.
    linear, centre = solid.to_world[:3, :3], solid.to_world[:3, 3]
    if solid.shape == "sphere":
        half = np.linalg.norm(linear, axis=1)
        return centre - half, centre + half
    if solid.shape == "box":
        half = np.abs(linear).sum(axis=1)
        return centre - half, centre + half

    # A frustum's box is that of its two end discs.
    disc = np.linalg.norm(linear[:, :2], axis=1)
    bottom, top = centre - linear[:, 2], centre + linear[:, 2]
    low = np.minimum(bottom - disc, top - solid.taper * disc)
    return low, np.maximum(bottom + disc, top + solid.taper * disc)


def normalize(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Return the vectors, scaled to length 1."""
    return vectors * vectors.square().sum(0).rsqrt()


def _infinite_unless(valid: Tensor, distance: Tensor) -> Tensor:
    """Return the distances that are valid and in front of the origin, and infinity elsewhere."""
    return torch.where(valid & (distance > 0), distance, torch.inf)


def enter_sphere(
    origins: Float[Tensor, "3 *n 1"], directions: Float[Tensor, "3 *n k"]
) -> Float[Tensor, "*n k"]:
    """Return the distances at which rays enter the unit sphere, infinite where they miss it."""
    # The surface is where |origin + t direction|² = 1, which is a t² + 2 b t + c = 0.
    a = (directions * directions).sum(0)
    b = (origins * directions).sum(0)
    c = (origins * origins).sum(0) - 1
    discriminant = b * b - a * c
    return _infinite_unless(discriminant > 0, (-b - discriminant.clamp_min(0).sqrt()) / a)


def enter_box(
    origins: Float[Tensor, "3 *n 1"], directions: Float[Tensor, "3 *n k"]
) -> Float[Tensor, "*n k"]:
    """Return the distances at which rays enter the box [-1, 1]³, infinite where they miss it."""
    # Between the two planes across one axis, a ray is from middle - half to middle + half.
    inverse = torch.where(directions.abs() < TINY, TINY, directions).reciprocal()
    middle, half = -origins * inverse, inverse.abs()

    # It is in the box while it is between the planes of all three axes.
    enter = (middle - half).amax(0)
    return _infinite_unless(enter < (middle + half).amin(0), enter)


def enter_frustum(
    origins: Float[Tensor, "3 *n 1"],
    directions: Float[Tensor, "3 *n k"],
    taper: float | Float[Tensor, "s 1 1"],
) -> Float[Tensor, "*n k"]:
    """Return the distances at which rays enter a frustum, infinite where they miss it.

    Args:
        taper: the frustum's radius at the top; a tensor has one for each of s solids.
    """
    # The formulas divide by dz. The radius at z is middle - slope z.
    dx, dy, dz = directions
    rays = (*origins, dx, dy, torch.where(dz.abs() < TINY, TINY, dz))
    middle, slope = (1 + taper) / 2, (1 - taper) / 2

    # Of a side and an end disc, a ray enters by the one that it reaches first.
    nearest = _enter_end_disc(rays, middle, slope)
    for side in _enter_side(rays, middle, slope):
        nearest = torch.minimum(nearest, side)
    return nearest


def _enter_end_disc(
    rays: _Coordinates, middle: float | Tensor, slope: float | Tensor
) -> Float[Tensor, "*n k"]:
    """Return the distances at which rays enter by an end disc of a frustum."""
    # Only the end disc that faces the ray can be where it enters: the top if the ray goes down.
    ox, oy, oz, dx, dy, dz = rays
    cap_z = -dz.sign()
    cap = (cap_z - oz) / dz
    inside = (ox + cap * dx).square() + (oy + cap * dy).square() < (middle - slope * cap_z).square()
    return _infinite_unless(inside, cap)


def _enter_side(
    rays: _Coordinates, middle: float | Tensor, slope: float | Tensor
) -> Iterator[Float[Tensor, "*n k"]]:
    """Yield the two distances at which rays cross the side of a frustum."""
    # The side is where x² + y² is the square of the radius at z: a t² + 2 b t + c = 0.
    ox, oy, oz, dx, dy, dz = rays
    origin_radius, radius_change = middle - slope * oz, -slope * dz
    a = dx * dx + dy * dy - radius_change * radius_change
    a = torch.where(a.abs() < TINY, TINY, a)
    b = ox * dx + oy * dy - origin_radius * radius_change
    c = ox * ox + oy * oy - origin_radius * origin_radius
    discriminant = b * b - a * c
    offset = discriminant.clamp_min(0).sqrt()

    # Of the two solutions, the second is the nearer one where a < 0. Both must be between the ends.
    for side in ((-b - offset) / a, (-b + offset) / a):
        on_side = (discriminant > 0) & ((oz + side * dz).abs() < 1)
        yield _infinite_unless(on_side, side)


def world_to_local(
    solids: Sequence[Solid], like: Tensor
) -> tuple[Float[Tensor, "solids 3 3"], Float[Tensor, "solids 3 1"]]:
    """Return the linear parts and the offsets of the maps to canonical shapes, in `like`'s type."""
    inverse = torch.from_numpy(np.linalg.inv([solid.to_world for solid in solids])).to(like)
    return inverse[:, :3, :3], inverse[:, :3, 3:]


def local_normals(
    shape: str, taper: float | Float[Tensor, "n"], points: Float[Tensor, "3 n"]
) -> Float[Tensor, "3 n"]:
    """Return the outward normals, of any length, at points on a canonical shape."""
    # On the box, the coordinate of largest magnitude is the face that the point is on.
    if shape == "sphere":
        return points
    if shape == "box":
        return points * (points.abs() == points.abs().amax(0))

    # A point is on an end disc if it is nearer to that disc's plane than to the side.
    radius, slope = points[:2].square().sum(0).sqrt(), (1 - taper) / 2
    full_radius = (1 + taper) / 2 - slope * points[2]
    on_cap = points[2].abs() - 1 > radius - full_radius
    side = torch.stack((points[0], points[1], slope * radius))
    cap = torch.stack((torch.zeros_like(radius), torch.zeros_like(radius), points[2]))
    return torch.where(on_cap, cap, side)
