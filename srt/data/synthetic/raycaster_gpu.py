"""What srt/data/synthetic/raycaster.py asks of rays and solids, all at once: as a GPU likes it.

A CPU goes through the solids and leaves out most rays of each. On a GPU that is thousands of small
launches for a scene; here each formula is computed once, for all solids and rays, and the solids
are copied there once.

Letters: s solids; n rays, or packets of k rays from one origin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from srt.common.shapes import Float, Int
from srt.data.synthetic.solids import (
    Solid,
    enter_box,
    enter_frustum,
    enter_sphere,
    local_normals,
    to_local,
    unit,
)

SHAPES = ("sphere", "box", "frustum")
WIDTHS = (1, 1, 3, 2, 6, 9, 3)  # of a solid's numbers, as they are copied
PAIRS = 1 << 22  # of a ray and a solid in flight: bounds the memory


class SolidTable:
    """Solids, grouped by shape, as arrays on a device."""

    def __init__(self, solids: Sequence[Solid], device: torch.device) -> None:
        grouped = sorted(solids, key=lambda solid: SHAPES.index(solid.shape))
        counts = [sum(solid.shape == shape for solid in solids) for shape in SHAPES]
        self.ends = np.cumsum(counts).tolist()
        linear, offset = to_local(grouped, torch.empty(0))
        own = torch.tensor([_numbers(solid) for solid in grouped], dtype=torch.float32)
        numbers = torch.cat((own, linear.flatten(1), offset.flatten(1)), dim=1)
        parts = numbers.to(device).split(WIDTHS, dim=1)
        self.shape, self.taper, self.pattern, self.highlight, colours, linear, offset = parts
        self.colours = colours.unflatten(1, (2, 3))
        self.linear, self.offset = linear.unflatten(1, (3, 3)), offset[..., None]

    def __len__(self) -> int:
        return len(self.shape)

    def first_hits(
        self, origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Returns what `synthetic.first_hits` returns; the solids are those of this table."""
        size = max(1, PAIRS // (len(self) * directions.shape[2]))
        pairs = zip(origins.split(size, dim=1), directions.split(size, dim=1))
        distances, owners = (torch.cat(parts) for parts in zip(*(self._nearest(*p) for p in pairs)))
        return distances, torch.where(distances.isinf(), -1, owners).int()

    def _nearest(
        self, origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Returns the smallest distance, and whose it is."""
        o = torch.einsum("sij,jn->isn", self.linear, origins) + self.offset.transpose(0, 1)
        d = torch.einsum("sij,jnk->isnk", self.linear, directions)
        entered, start = [], 0
        for shape, end in zip(SHAPES, self.ends):
            rays = o[:, start:end, :, None], d[:, start:end]
            if shape == "frustum":
                entered.append(enter_frustum(*rays, self.taper[start:end, None]))
            else:
                entered.append((enter_sphere if shape == "sphere" else enter_box)(*rays))
            start = end
        nearest, owners = torch.cat(entered).min(dim=0)
        return nearest, owners

    def surfaces(
        self, owners: Int[Tensor, "n"], points: Float[Tensor, "3 n"]
    ) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "2 n"]]:
        """Returns what `synthetic.surfaces` returns."""
        owner = owners.long()
        linear, taper = self.linear[owner], self.taper[owner, 0]
        local = torch.einsum("nij,jn->in", linear, points) + self.offset[owner, :, 0].T
        normals = torch.zeros_like(local)
        for number, shape in enumerate(SHAPES):
            own = local_normals(shape, taper, local)
            normals = torch.where(self.shape[owner, 0] == number, own, normals)
        second = (local * self.pattern[owner].T * (1 - 1e-4)).floor().sum(0).remainder(2).long()
        colours = self.colours[owner, second].T
        return unit(torch.einsum("nij,in->jn", linear, normals)), colours, self.highlight[owner].T


def _numbers(solid: Solid) -> list[float]:
    """Returns what a table has of a solid beside its place."""
    material = solid.material
    first, second = material.colours
    form = [float(SHAPES.index(solid.shape)), solid.taper, *material.pattern]
    return [*form, material.specular, material.shininess, *first, *second]
