"""Solids: canonical shapes under affine maps, and where rays meet them.

The shapes are the unit sphere, the box [-1, 1]³, and the frustum around the z axis from -1 to 1,
with radius 1 at its bottom and `taper` at its top (1: cylinder, 0: cone).

Letters: n rays, or packets of k rays from one origin. Coordinates come first, (3, n): each is then
contiguous in memory, as a CPU needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from srt.common.shapes import Float

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Two colours that alternate along the axes of the canonical shape, `pattern` times a unit.

    `pattern` (0, 0, 0) is the first colour alone, (0, 0, 2) stripes across z, (2, 2, 2) checks.
    """

    colours: tuple[Colour, Colour]
    pattern: tuple[float, float, float]
    specular: float  # strength of the white highlight; 0 is matte
    shininess: float


@dataclass(frozen=True, kw_only=True)
class Solid:
    shape: Literal["sphere", "box", "frustum"]
    to_world: Float[np.ndarray, "4 4"]
    material: Material
    taper: float = 1.0


def bounding_box(solid: Solid) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Returns the lowest and highest corner of the solid's axis-aligned box in the world."""
    linear, centre = solid.to_world[:3, :3], solid.to_world[:3, 3]
    if solid.shape == "sphere":
        half = np.linalg.norm(linear, axis=1)
        return centre - half, centre + half
    if solid.shape == "box":
        half = np.abs(linear).sum(axis=1)
        return centre - half, centre + half
    disc = np.linalg.norm(linear[:, :2], axis=1)
    bottom, top = centre - linear[:, 2], centre + linear[:, 2]
    low = np.minimum(bottom - disc, top - solid.taper * disc)
    return low, np.maximum(bottom + disc, top + solid.taper * disc)


def unit(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Returns vectors of length 1."""
    return vectors * vectors.square().sum(0).rsqrt()


def _positive(distance: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid & (distance > 0), distance, torch.inf)


def enter_sphere(o: Float[Tensor, "3 *n 1"], d: Float[Tensor, "3 *n k"]) -> Float[Tensor, "*n k"]:
    """Returns the distance at which rays enter the unit sphere, infinite where they miss it."""
    a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1
    root = b * b - a * c
    return _positive((-b - root.clamp_min(0).sqrt()) / a, root > 0)


def enter_box(o: Float[Tensor, "3 *n 1"], d: Float[Tensor, "3 *n k"]) -> Float[Tensor, "*n k"]:
    """Returns the same of the box [-1, 1]³."""
    inverse = torch.where(d.abs() < 1e-9, 1e-9, d).reciprocal()
    middle, half = -o * inverse, inverse.abs()
    enter = (middle - half).amax(0)
    return _positive(enter, enter < (middle + half).amin(0))


def enter_frustum(
    o: Float[Tensor, "3 *n 1"], d: Float[Tensor, "3 *n k"], taper: float | Float[Tensor, "s 1 1"]
) -> Float[Tensor, "*n k"]:
    """Returns the same of a frustum, or of one for each solid."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    middle, slope = (1 + taper) / 2, (1 - taper) / 2  # radius = middle - slope z
    dz = torch.where(dz.abs() < 1e-9, 1e-9, dz)
    cap_z = -dz.sign()
    cap = (cap_z - oz) / dz
    inside = (ox + cap * dx).square() + (oy + cap * dy).square() < (middle - slope * cap_z).square()
    nearest = _positive(cap, inside)
    at_o, along_d = middle - slope * oz, -slope * dz
    a = dx * dx + dy * dy - along_d * along_d
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    b = ox * dx + oy * dy - at_o * along_d
    c = ox * ox + oy * oy - at_o * at_o
    root = b * b - a * c
    offset = root.clamp_min(0).sqrt()
    for side in ((-b - offset) / a, (-b + offset) / a):  # a < 0: the nearer root may be the second
        on_side = (root > 0) & ((oz + side * dz).abs() < 1)
        nearest = torch.minimum(nearest, _positive(side, on_side))
    return nearest


def to_local(
    solids: Sequence[Solid], like: Tensor
) -> tuple[Float[Tensor, "solids 3 3"], Float[Tensor, "solids 3 1"]]:
    """Returns the maps from the world to the canonical shapes."""
    inverse = torch.from_numpy(np.linalg.inv([solid.to_world for solid in solids])).to(like)
    return inverse[:, :3, :3], inverse[:, :3, 3:]


def local_normals(
    shape: str, taper: float | Float[Tensor, "n"], points: Float[Tensor, "3 n"]
) -> Float[Tensor, "3 n"]:
    """Returns the outward normals, of any length, at points on a canonical shape."""
    if shape == "sphere":
        return points
    if shape == "box":
        return points * (points.abs() == points.abs().amax(0))
    radius, slope = points[:2].square().sum(0).sqrt(), (1 - taper) / 2
    full_radius = (1 + taper) / 2 - slope * points[2]
    on_cap = points[2].abs() - 1 > radius - full_radius
    side = torch.stack((points[0], points[1], slope * radius))
    cap = torch.stack((torch.zeros_like(radius), torch.zeros_like(radius), points[2]))
    return torch.where(on_cap, cap, side)
