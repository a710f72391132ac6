"""Synthetic scenes, the analytic ray caster that renders them, and the processes that do it.

A scene is a list of solids. One directional light; white where a ray hits nothing. On a GPU what
is asked of all solids comes from srt/data/synthetic/raycaster_gpu.py.

Letters: n rays, or packets of k rays from one origin (a pixel's, or one alone towards the light).
Coordinates come first, (3, n): each is then contiguous in memory, as a CPU needs it.
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
    Solid,
    bounding_box,
    enter_box,
    enter_frustum,
    enter_sphere,
    local_normals,
    to_local,
    unit,
)
from srt.geometry.cameras import camera_rays, resize_intrinsics

CHUNK = 1 << 17  # packets of rays in flight: bounds the memory
SHADOW_OFFSET = 1e-3  # shadow rays start this far off their surface


@dataclass(frozen=True, kw_only=True)
class Light:
    direction: tuple[float, float, float]  # towards the light
    ambient: float  # what a surface in shadow gets; the light adds the rest, up to 1


def _passes_near(
    solids: Sequence[Solid], origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
) -> Bool[Tensor, "solids n"]:
    """Returns which packets may have a ray that crosses which solids' bounding spheres.

    With p the point nearest to 0 of a packet's first ray, d its direction and c a centre, their
    squared distance is cᵀc - cᵀ(ddᵀ)c - 2cᵀp + pᵀp: one matrix product between terms of the solids
    and terms of the rays.
    """
    boxes = torch.from_numpy(np.array([bounding_box(solid) for solid in solids])).to(origins)
    centres, radii = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]).norm(dim=1) / 2
    first, last = directions[:, :, 0], directions[:, :, -1]
    spread = (last - first).square().sum(0).amax().sqrt()  # per unit of distance
    reach = origins.square().sum(0).amax().sqrt() + centres.norm(dim=1).amax()
    limit = (1.01 * radii + 0.01 + spread * reach).square() - centres.square().sum(1)
    p = origins - (origins * first).sum(0) * first
    of_line = (first * first, first * first.roll(-1, 0), p, (p * p).sum(0, keepdim=True))
    mixed = -2 * centres * centres.roll(-1, 1)
    of_centre = (-centres.square(), mixed, -2 * centres, torch.ones_like(centres[:, :1]))
    near: Tensor = torch.cat(of_centre, dim=1) @ torch.cat(of_line) < limit[:, None]
    return near


def first_hits(
    solids: Sequence[Solid] | SolidTable,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Returns the distance to the first solid that each ray enters, and the solid's index.

    They are infinite and -1 where a ray hits nothing. Origins must be outside all solids and
    directions of length 1; a packet's last ray is the one that parts most from its first.
    """
    distances = torch.full_like(directions[0], torch.inf)
    owners = torch.full_like(directions[0], -1, dtype=torch.int32)
    if not owners.numel():
        return distances, owners
    if isinstance(solids, SolidTable):
        return solids.first_hits(origins, directions)
    linear, offset = to_local(solids, origins)
    near = _passes_near(solids, origins, directions)
    for index, solid in enumerate(solids):
        packets = near[index].nonzero()[:, 0]
        o = torch.addmm(offset[index], linear[index], origins.index_select(1, packets))[:, :, None]
        d = directions.index_select(1, packets)
        d = (linear[index] @ d.flatten(1)).view_as(d)
        if solid.shape == "frustum":
            entered = enter_frustum(o, d, solid.taper)
        else:
            entered = (enter_sphere if solid.shape == "sphere" else enter_box)(o, d)
        before, owner = distances.index_select(0, packets), owners.index_select(0, packets)
        owners.index_copy_(0, packets, torch.where(entered < before, index, owner))
        distances.index_copy_(0, packets, torch.minimum(entered, before))
    return distances, owners


def surfaces(
    solids: Sequence[Solid] | SolidTable, owners: Int[Tensor, "n"], points: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "2 n"]]:
    """Returns the unit normals, the colours, and the highlights' strength and shininess."""
    if isinstance(solids, SolidTable):
        return solids.surfaces(owners, points)
    normals, colours, highlights = points.clone(), points.clone(), points[:2].clone()
    linear, offset = to_local(solids, points)
    for index, solid in enumerate(solids):
        chosen, material = (owners == index).nonzero()[:, 0], solid.material
        local = torch.addmm(offset[index], linear[index], points.index_select(1, chosen))
        outward = local_normals(solid.shape, solid.taper, local)
        normals.index_copy_(1, chosen, linear[index].T @ outward)
        pattern = torch.tensor(material.pattern).to(points)[:, None]
        # A face lies on a whole number: without the shrinking, rounding would choose its colour.
        second = (local * pattern * (1 - 1e-4)).floor().sum(0).remainder(2).long()
        both = torch.tensor(material.colours).to(points).T
        colours.index_copy_(1, chosen, both.index_select(1, second))
        highlight = torch.tensor([[material.specular], [material.shininess]]).to(points)
        highlights.index_copy_(1, chosen, highlight.expand(2, len(chosen)))
    return unit(normals), colours, highlights


def _shade(
    solids: Sequence[Solid] | SolidTable,
    light: Light,
    owners: Int[Tensor, "n"],
    points: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n"],
) -> Float[Tensor, "3 n"]:
    """Returns the colours of the surfaces' points, in [0, 1], by Blinn and Phong's formula."""
    normals, colours, (specular, shininess) = surfaces(solids, owners, points)
    to_light = unit(torch.tensor(light.direction).to(points)[:, None])
    facing = (normals * to_light).sum(0).clamp_min(0)
    lit = facing.nonzero()[:, 0]
    starts = (points + SHADOW_OFFSET * normals).index_select(1, lit)
    to_lights = to_light.expand_as(starts)[:, :, None]
    blocked = first_hits(solids, starts, to_lights)[1][:, 0] >= 0
    facing.index_fill_(0, lit[blocked], 0)
    half_way = unit(to_light - directions)
    shine = specular * (normals * half_way).sum(0).clamp_min(0).pow(shininess) * (facing > 0)
    # The sky gives more than the ground, so that surfaces in shadow still show their shape.
    ambient = light.ambient * (0.8 + 0.2 * normals[2])
    shades: Tensor = colours * (ambient + (1 - light.ambient) * facing) + shine
    return shades.clamp(0, 1)


def pixel_rays(
    intrinsics: Float[Tensor, "views 3 3"],
    camera_to_world: Float[Tensor, "views 4 4"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n 4"]]:
    """Returns what `render` takes: each pixel's origin and 2×2 directions, by view, row, column."""
    fine = resize_intrinsics(intrinsics, (height, width), (2 * height, 2 * width))
    origins, directions = camera_rays(fine, camera_to_world, 2 * height, 2 * width)
    blocks = directions.unflatten(2, (width, 2)).unflatten(1, (height, 2))
    packets = blocks.permute(5, 0, 1, 3, 2, 4).reshape(3, -1, 4)
    return origins.T.repeat_interleave(height * width, dim=1).float(), packets.float()


def render(
    solids: Sequence[Solid] | SolidTable,
    light: Light,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> UInt8[Tensor, "n 3"]:
    """Returns the mean colour of each packet's rays; see `first_hits`."""
    if origins.device.type == "cuda" and not isinstance(solids, SolidTable):
        solids = SolidTable(solids, origins.device)
    chunks = zip(origins.split(CHUNK, dim=1), directions.split(CHUNK, dim=1))
    return torch.cat([_render_chunk(solids, light, o, d) for o, d in chunks])


def _render_chunk(
    solids: Sequence[Solid] | SolidTable,
    light: Light,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> UInt8[Tensor, "n 3"]:
    distances, owners = first_hits(solids, origins, directions)
    pixels = torch.full_like(origins.T, 255, dtype=torch.uint8)  # the white background
    seen = (owners >= 0).any(1).nonzero()[:, 0]  # most packets show nothing else
    rays = directions.index_select(1, seen).flatten(1)
    owners = owners.index_select(0, seen).flatten()
    hit = (owners >= 0).nonzero()[:, 0]
    rays_hit = rays.index_select(1, hit)
    points = distances.index_select(0, seen).flatten().index_select(0, hit) * rays_hit
    points += origins.index_select(1, seen.index_select(0, hit // directions.shape[2]))
    shades = _shade(solids, light, owners.index_select(0, hit), points, rays_hit)
    colours = torch.ones_like(rays).index_copy_(1, hit, shades)
    means = colours.unflatten(1, (-1, directions.shape[2])).mean(2)
    return pixels.index_copy_(0, seen, (255 * means.T).round().to(torch.uint8))
