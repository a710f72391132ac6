"""What srt/data/synthetic.py asks of rays and solids, all at once: as a GPU likes it.

A CPU goes through the solids and leaves out most rays of each. On a GPU that is thousands of small
launches for a scene; here each formula is computed once, for all solids and rays.

Letters: s solids; n rays, or packets of k rays from one origin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srt.data.solids import (
    Solid,
    enter_box,
    enter_frustum,
    enter_sphere,
    local_normals,
    to_local,
    unit,
)
from srt.shapes import Float, Int

SHAPES = ("sphere", "box", "frustum")
PAIRS = 1 << 22  # of a ray and a solid in flight: bounds the memory


def first_hits(
    solids: Sequence[Solid], origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Returns what `synthetic.first_hits` returns."""
    size = max(1, PAIRS // (len(solids) * directions.shape[2]))
    order = sorted(range(len(solids)), key=lambda index: SHAPES.index(solids[index].shape))
    grouped = [solids[index] for index in order]
    parts = [
        _nearest(grouped, *part)
        for part in zip(origins.split(size, dim=1), directions.split(size, dim=1))
    ]
    distances = torch.cat([distance for distance, _ in parts])
    owners = torch.tensor(order, device=origins.device)[torch.cat([owner for _, owner in parts])]
    return distances, torch.where(distances.isinf(), -1, owners).int()


def _nearest(
    grouped: Sequence[Solid], origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Returns the smallest distance and the place of its solid; these are grouped by shape."""
    linear, offset = to_local(grouped, origins)
    o = torch.einsum("sij,jn->isn", linear, origins) + offset.transpose(0, 1)
    d = torch.einsum("sij,jnk->isnk", linear, directions)
    entered, end = [], 0
    for shape in SHAPES:
        here = [solid for solid in grouped if solid.shape == shape]
        start, end = end, end + len(here)
        rays = o[:, start:end, :, None], d[:, start:end]
        if shape == "frustum":
            taper = torch.tensor([solid.taper for solid in here]).to(o)[:, None, None]
            entered.append(enter_frustum(*rays, taper))
        elif here:
            entered.append((enter_sphere if shape == "sphere" else enter_box)(*rays))
    distances, owners = torch.cat(entered).min(dim=0)
    return distances, owners


def surfaces(
    solids: Sequence[Solid], owners: Int[Tensor, "n"], points: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "2 n"]]:
    """Returns what `synthetic.surfaces` returns."""
    owner = owners.long()

    def of_owner(values: Sequence[object]) -> Tensor:
        return torch.tensor(values).to(points)[owner]

    linear, offset = (part[owner] for part in to_local(solids, points))
    local = torch.einsum("nij,jn->in", linear, points) + offset[..., 0].T
    taper, normals = of_owner([solid.taper for solid in solids]), torch.zeros_like(local)
    shapes = of_owner([SHAPES.index(solid.shape) for solid in solids])
    for number, shape in enumerate(SHAPES):
        normals = torch.where(shapes == number, local_normals(shape, taper, local), normals)
    materials = [solid.material for solid in solids]
    pattern = of_owner([material.pattern for material in materials]).T
    second = (local * pattern * (1 - 1e-4)).floor().sum(0).remainder(2).long()
    both = of_owner([material.colours for material in materials])  # (n, 2, 3)
    colours = both[torch.arange(len(owner), device=owner.device), second].T
    highlights = of_owner([(material.specular, material.shininess) for material in materials]).T
    return unit(torch.einsum("nij,in->jn", linear, normals)), colours, highlights
