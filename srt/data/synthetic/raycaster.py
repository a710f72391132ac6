"""The analytic ray caster that renders synthetic scenes.

A scene is a list of solids in the light of one far lamp, before a white background. Each pixel is
the mean of four rays. A hit point is shaded by Blinn and Phong's formula, and is in shadow if a ray
from it towards the light hits a solid.

The solids are a list on a CPU and a `SolidTable` on a GPU (srt/data/synthetic/raycaster_gpu.py).
Both give the same images but for rounding.

Shapes: n rays, or n packets of k rays that have one origin. A packet has the rays of a pixel, or a
single ray towards the light. Coordinates are the first dimension, (3, n): each coordinate is then
contiguous in memory, which makes it fast on a CPU. `owners` are the indices of the solids that rays
hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srt.common.shapes import Bool, Float, Int, UInt8
from srt.data.synthetic.raycaster_gpu import SolidTable
from srt.data.synthetic.solids import (
    Material,
    Solid,
    bounding_box,
    enter_box,
    enter_frustum,
    enter_sphere,
    local_normals,
    normalize,
    world_to_local,
)
from srt.geometry.cameras import camera_rays, resize_intrinsics

# Packets that are rendered at once. They bound the memory.
CHUNK = 1 << 17

# A ray towards the light starts so far above its surface, or the surface would shade itself.
SHADOW_OFFSET = 1e-3


@dataclass(frozen=True, kw_only=True)
class Light:
    """A far lamp and the light that comes from everywhere."""

    direction: tuple[float, float, float]  # towards the lamp
    ambient: float  # the light on a surface in shadow; the lamp adds what is missing to 1


def pixel_rays(
    intrinsics: Float[Tensor, "views 3 3"],
    camera_to_world: Float[Tensor, "views 4 4"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n 4"]]:
    """Return each pixel's origin and the directions of its 2 x 2 rays, in the form of `render`.

    The n packets are in the order of the views and, within a view, row by row.
    """
    # The rays of a pixel are the pixels of an image of twice the size.
    fine = resize_intrinsics(intrinsics, (height, width), (2 * height, 2 * width))
    origins, directions = camera_rays(fine, camera_to_world, 2 * height, 2 * width)

    # Bring the 2 x 2 rays of each pixel together, and the coordinates to the front.
    blocks = directions.unflatten(2, (width, 2)).unflatten(1, (height, 2))  # (v, h, 2, w, 2, 3)
    packets = blocks.permute(5, 0, 1, 3, 2, 4).reshape(3, -1, 4)  # (3, n, 4)
    return origins.T.repeat_interleave(height * width, dim=1).float(), packets.float()


def render(
    solids: Sequence[Solid] | SolidTable,
    light: Light,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> UInt8[Tensor, "n 3"]:
    """Return the mean colour of each packet's rays; `first_hits` says what rays are allowed."""
    # A GPU gets the solids as a table, once for all chunks.
    if origins.device.type == "cuda" and not isinstance(solids, SolidTable):
        solids = SolidTable(solids, origins.device)

    # Render a bounded number of packets at a time.
    chunks = zip(origins.split(CHUNK, dim=1), directions.split(CHUNK, dim=1))
    return torch.cat([_render_chunk(solids, light, *chunk) for chunk in chunks])


def _render_chunk(
    solids: Sequence[Solid] | SolidTable,
    light: Light,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> UInt8[Tensor, "n 3"]:
    """Return the mean colour of each packet's rays, for all packets at once."""
    # Most packets see nothing but the white background. Go on with those that hit a solid.
    distances, owners = first_hits(solids, origins, directions)
    pixels = torch.full_like(origins.T, 255, dtype=torch.uint8)  # (n, 3)
    covered = (owners >= 0).any(1).nonzero()[:, 0]  # (p,): the packets with a hit
    rays = directions.index_select(1, covered).flatten(1)  # (3, p k)
    owners = owners.index_select(0, covered).flatten()  # (p k,)

    # Of these packets' rays, compute the points that are hit.
    hit = (owners >= 0).nonzero()[:, 0]  # (m,): the rays with a hit
    hit_rays = rays.index_select(1, hit)  # (3, m)
    points = distances.index_select(0, covered).flatten().index_select(0, hit) * hit_rays
    points += origins.index_select(1, covered.index_select(0, hit // directions.shape[2]))

    # Rays without a hit stay white. The pixel is the mean of its rays.
    shades = _shade(solids, light, owners.index_select(0, hit), points, hit_rays)
    colours = torch.ones_like(rays).index_copy_(1, hit, shades)
    means = colours.unflatten(1, (-1, directions.shape[2])).mean(2)  # (3, p)
    return pixels.index_copy_(0, covered, (255 * means.T).round().to(torch.uint8))


def first_hits(
    solids: Sequence[Solid] | SolidTable,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return the distance to the first solid that each ray enters, and the solid's index.

    They are infinite and -1 where a ray hits nothing. Origins must be outside all solids, and
    directions must have length 1. Of a packet's rays, the last must differ most from the first.
    """
    distances = torch.full_like(directions[0], torch.inf)  # (n, k)
    owners = torch.full_like(directions[0], -1, dtype=torch.int32)  # (n, k)
    if not owners.numel():
        return distances, owners
    if isinstance(solids, SolidTable):
        return solids.first_hits(origins, directions)

    # For each solid, compute only the packets that come near it, in the solid's coordinates.
    linear, offset = world_to_local(solids, origins)
    near = _passes_near(solids, origins, directions)
    for index, solid in enumerate(solids):
        packets = near[index].nonzero()[:, 0]  # (p,)
        local_origins = torch.addmm(
            offset[index], linear[index], origins.index_select(1, packets)
        )  # (3, p)
        local_directions = directions.index_select(1, packets)  # (3, p, k)
        local_directions = (linear[index] @ local_directions.flatten(1)).view_as(local_directions)
        entered = _enter(solid, local_origins[:, :, None], local_directions)  # (p, k)

        # Where this solid is nearer than all solids so far, the ray is this solid's.
        nearest, owner = distances.index_select(0, packets), owners.index_select(0, packets)
        owners.index_copy_(0, packets, torch.where(entered < nearest, index, owner))
        distances.index_copy_(0, packets, torch.minimum(entered, nearest))
    return distances, owners


def _enter(
    solid: Solid, origins: Float[Tensor, "3 n 1"], directions: Float[Tensor, "3 n k"]
) -> Float[Tensor, "n k"]:
    """Return the distances at which rays in the solid's coordinates enter it."""
    if solid.shape == "frustum":
        return enter_frustum(origins, directions, solid.taper)
    if solid.shape == "sphere":
        return enter_sphere(origins, directions)
    return enter_box(origins, directions)


def _passes_near(
    solids: Sequence[Solid], origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
) -> Bool[Tensor, "solids n"]:
    """Return which packets may have a ray that crosses which solid's bounding sphere."""
    # A packet passes near a solid if its first ray's line passes near the bounding sphere's centre.
    # The bounding sphere is that of the bounding box.
    boxes = torch.from_numpy(np.array([bounding_box(solid) for solid in solids])).to(origins)
    centres, radii = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]).norm(dim=1) / 2  # (s, 3), (s,)

    # The other rays of a packet leave its first one by at most `spread` for each unit of distance,
    # so the sphere must be larger by that much. The term cᵀc is moved to this side.
    first, last = directions[:, :, 0], directions[:, :, -1]  # (3, n)
    spread = (last - first).square().sum(0).amax().sqrt()
    reach = origins.square().sum(0).amax().sqrt() + centres.norm(dim=1).amax()
    limit = (1.01 * radii + 0.01 + spread * reach).square() - centres.square().sum(1)  # (s,)
    near: Tensor = _distances_to_lines(centres, origins, first) < limit[:, None]
    return near


def _distances_to_lines(
    centres: Float[Tensor, "s 3"], origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n"]
) -> Float[Tensor, "s n"]:
    """Return the squared distance of each centre c from each ray's line, less cᵀc.

    Let p be the point of the line that is nearest to 0, and d the line's direction. The squared
    distance is cᵀc - cᵀ(ddᵀ)c - 2cᵀp + pᵀp. All these distances are one matrix product, of a matrix
    of the centres and a matrix of the rays.
    """
    # The squares and the mixed products of d, then p and its square; the same for the centres.
    d = directions
    p = origins - (origins * d).sum(0) * d  # (3, n)
    line_terms = (d * d, d * d.roll(-1, 0), p, (p * p).sum(0, keepdim=True))
    mixed = -2 * centres * centres.roll(-1, 1)
    centre_terms = (-centres.square(), mixed, -2 * centres, torch.ones_like(centres[:, :1]))
    return torch.cat(centre_terms, dim=1) @ torch.cat(line_terms)


def surfaces(
    solids: Sequence[Solid] | SolidTable, owners: Int[Tensor, "n"], points: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "2 n"]]:
    """Return the unit normals, the colours, and the highlights' strength and shininess.

    Args:
        owners: for each point, the index of the solid on which it is.
    """
    if isinstance(solids, SolidTable):
        return solids.surfaces(owners, points)

    # For each solid, fill in the values at its points.
    normals, colours, highlights = points.clone(), points.clone(), points[:2].clone()
    linear, offset = world_to_local(solids, points)
    for index, solid in enumerate(solids):
        own_points, material = (owners == index).nonzero()[:, 0], solid.material

        # Normals go from the solid to the world by the transpose of the map that brings points
        # from the world to the solid.
        local = torch.addmm(offset[index], linear[index], points.index_select(1, own_points))
        outward = local_normals(solid.shape, solid.taper, local)
        normals.index_copy_(1, own_points, linear[index].T @ outward)

        colours.index_copy_(1, own_points, _pattern_colours(material, local))
        highlight = torch.tensor([[material.specular], [material.shininess]]).to(points)
        highlights.index_copy_(1, own_points, highlight.expand(2, len(own_points)))
    return normalize(normals), colours, highlights


def _pattern_colours(material: Material, local: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Return the material's colours at points in the coordinates of the canonical shape."""
    # The cell of the pattern is odd or even. A face lies on a whole number: the shrinking moves it
    # inside its cell, or rounding would choose its colour.
    pattern = torch.tensor(material.pattern).to(local)[:, None]
    second = (local * pattern * (1 - 1e-4)).floor().sum(0).remainder(2).long()
    both = torch.tensor(material.colours).to(local).T  # (3, 2)
    return both.index_select(1, second)


def _shade(
    solids: Sequence[Solid] | SolidTable,
    light: Light,
    owners: Int[Tensor, "n"],
    points: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n"],
) -> Float[Tensor, "3 n"]:
    """Return the colours of points on solids, in [0, 1], by Blinn and Phong's formula.

    Args:
        directions: of the rays that see the points.
    """
    normals, colours, (specular, shininess) = surfaces(solids, owners, points)
    to_light = normalize(torch.tensor(light.direction).to(points)[:, None])  # (3, 1)
    facing = _facing_lamp(solids, to_light, points, normals)  # (n,)

    # A lit surface has its highlight where it mirrors the lamp towards the eye.
    half_way = normalize(to_light - directions)
    shine = specular * (normals * half_way).sum(0).clamp_min(0).pow(shininess) * (facing > 0)

    # The sky gives more light than the ground, so that surfaces in shadow still show their shape.
    ambient = light.ambient * (0.8 + 0.2 * normals[2])
    shades: Tensor = colours * (ambient + (1 - light.ambient) * facing) + shine
    return shades.clamp(0, 1)


def _facing_lamp(
    solids: Sequence[Solid] | SolidTable,
    to_light: Float[Tensor, "3 1"],
    points: Float[Tensor, "3 n"],
    normals: Float[Tensor, "3 n"],
) -> Float[Tensor, "n"]:
    """Return how much of the lamp's light each point gets, from 0 to 1."""
    # Surfaces that face the lamp get most, and those that face away get none.
    facing = (normals * to_light).sum(0).clamp_min(0)

    # A point also gets none if a solid is in between: follow a ray from each lit point.
    lit = facing.nonzero()[:, 0]
    starts = (points + SHADOW_OFFSET * normals).index_select(1, lit)
    to_lights = to_light.expand_as(starts)[:, :, None]
    blocked = first_hits(solids, starts, to_lights)[1][:, 0] >= 0
    return facing.index_fill_(0, lit[blocked], 0)
