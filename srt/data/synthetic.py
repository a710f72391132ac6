"""Synthetic scenes, the analytic ray caster that renders them, and the processes that do it.

A scene is a list of solids, each a canonical shape under an affine map: the unit sphere, the box
[-1, 1]³, and the frustum around the z axis from -1 to 1, with radius 1 at its bottom and `taper` at
its top (1: cylinder, 0: cone). One directional light; white where a ray hits nothing.

Letters: n rays, or packets of k rays from one origin (a pixel's, or one alone towards the light).
Coordinates come first, (3, n): each is then contiguous in memory, as a CPU needs it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from srt.geometry import camera_rays, resize_intrinsics
from srt.processes import die_with_parent
from srt.shapes import Bool, Float, Int, UInt8

Job = TypeVar("Job")
Result = TypeVar("Result")
Colour = tuple[float, float, float]  # red, green, blue in [0, 1]
CHUNK = 1 << 17  # packets of rays in flight: bounds the memory
SHADOW_OFFSET = 1e-3  # shadow rays start this far off their surface


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


@dataclass(frozen=True, kw_only=True)
class Light:
    direction: tuple[float, float, float]  # towards the light
    ambient: float  # what a surface in shadow gets; the light adds the rest, up to 1


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


def _unit(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    return vectors * vectors.square().sum(0).rsqrt()


def _positive(distance: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid & (distance > 0), distance, torch.inf)


def _enter_sphere(o: Float[Tensor, "3 n 1"], d: Float[Tensor, "3 n k"]) -> Float[Tensor, "n k"]:
    a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1
    root = b * b - a * c
    return _positive((-b - root.clamp_min(0).sqrt()) / a, root > 0)


def _enter_box(o: Float[Tensor, "3 n 1"], d: Float[Tensor, "3 n k"]) -> Float[Tensor, "n k"]:
    inverse = torch.where(d.abs() < 1e-9, 1e-9, d).reciprocal()
    middle, half = -o * inverse, inverse.abs()
    enter = (middle - half).amax(0)
    return _positive(enter, enter < (middle + half).amin(0))


def _enter_frustum(
    o: Float[Tensor, "3 n 1"], d: Float[Tensor, "3 n k"], taper: float
) -> Float[Tensor, "n k"]:
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


def _to_local(
    solids: Sequence[Solid], like: Tensor
) -> tuple[Float[Tensor, "solids 3 3"], Float[Tensor, "solids 3 1"]]:
    inverse = torch.from_numpy(np.linalg.inv([solid.to_world for solid in solids])).to(like)
    return inverse[:, :3, :3], inverse[:, :3, 3:]


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
    solids: Sequence[Solid],
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
    linear, offset = _to_local(solids, origins)
    near = _passes_near(solids, origins, directions)
    for index, solid in enumerate(solids):
        packets = near[index].nonzero()[:, 0]
        o = torch.addmm(offset[index], linear[index], origins.index_select(1, packets))[:, :, None]
        d = directions.index_select(1, packets)
        d = (linear[index] @ d.flatten(1)).view_as(d)
        if solid.shape == "frustum":
            entered = _enter_frustum(o, d, solid.taper)
        else:
            entered = (_enter_sphere if solid.shape == "sphere" else _enter_box)(o, d)
        before, owner = distances.index_select(0, packets), owners.index_select(0, packets)
        owners.index_copy_(0, packets, torch.where(entered < before, index, owner))
        distances.index_copy_(0, packets, torch.minimum(entered, before))
    return distances, owners


def _local_normals(solid: Solid, points: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    if solid.shape == "sphere":
        return points
    if solid.shape == "box":
        return points * (points.abs() == points.abs().amax(0))
    radius, slope = points[:2].square().sum(0).sqrt(), (1 - solid.taper) / 2
    full_radius = (1 + solid.taper) / 2 - slope * points[2]
    on_cap = points[2].abs() - 1 > radius - full_radius
    side = torch.stack((points[0], points[1], slope * radius))
    cap = torch.stack((torch.zeros_like(radius), torch.zeros_like(radius), points[2]))
    return torch.where(on_cap, cap, side)


def _surfaces(
    solids: Sequence[Solid], owners: Int[Tensor, "n"], points: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "2 n"]]:
    """Returns the unit normals, the colours, and the highlights' strength and shininess."""
    normals, colours, highlights = points.clone(), points.clone(), points[:2].clone()
    linear, offset = _to_local(solids, points)
    for index, solid in enumerate(solids):
        chosen, material = (owners == index).nonzero()[:, 0], solid.material
        local = torch.addmm(offset[index], linear[index], points.index_select(1, chosen))
        normals.index_copy_(1, chosen, linear[index].T @ _local_normals(solid, local))
        pattern = torch.tensor(material.pattern).to(points)[:, None]
        # A face lies on a whole number: without the shrinking, rounding would choose its colour.
        second = (local * pattern * (1 - 1e-4)).floor().sum(0).remainder(2).long()
        both = torch.tensor(material.colours).to(points).T
        colours.index_copy_(1, chosen, both.index_select(1, second))
        highlight = torch.tensor([[material.specular], [material.shininess]]).to(points)
        highlights.index_copy_(1, chosen, highlight.expand(2, len(chosen)))
    return _unit(normals), colours, highlights


def _shade(
    solids: Sequence[Solid],
    light: Light,
    owners: Int[Tensor, "n"],
    points: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n"],
) -> Float[Tensor, "3 n"]:
    """Returns the colours of the surfaces' points, in [0, 1], by Blinn and Phong's formula."""
    normals, colours, (specular, shininess) = _surfaces(solids, owners, points)
    to_light = _unit(torch.tensor(light.direction).to(points)[:, None])
    facing = (normals * to_light).sum(0).clamp_min(0)
    lit = facing.nonzero()[:, 0]
    starts = (points + SHADOW_OFFSET * normals).index_select(1, lit)
    to_lights = to_light.expand_as(starts)[:, :, None]
    blocked = first_hits(solids, starts, to_lights)[1][:, 0] >= 0
    facing.index_fill_(0, lit[blocked], 0)
    half_way = _unit(to_light - directions)
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
    solids: Sequence[Solid],
    light: Light,
    origins: Float[Tensor, "3 n"],
    directions: Float[Tensor, "3 n k"],
) -> UInt8[Tensor, "n 3"]:
    """Returns the mean colour of each packet's rays; see `first_hits`."""
    chunks = zip(origins.split(CHUNK, dim=1), directions.split(CHUNK, dim=1))
    return torch.cat([_render_chunk(solids, light, o, d) for o, d in chunks])


def _render_chunk(
    solids: Sequence[Solid],
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


def in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yields each job's result, in the jobs' order, and shows how far it has come."""
    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        done = pool.map(work, jobs, chunksize=4)
        yield from tqdm(done, total=len(jobs), desc="synthetic scenes", unit="scene")


def _start_worker() -> None:
    torch.set_num_threads(1)  # the workers are the threads; and then they all round alike
    die_with_parent()
