"""The ray caster's two questions about solids, answered for all solids at once, as suits a GPU.

srt/data/synthetic/raycaster.py asks which solid a ray hits first, and what its surface is like
there. On a CPU it goes through the solids one by one, and leaves out most rays of each. On a GPU
that would be thousands of small launches for a scene. Here each formula is computed once, for all
solids and rays, and the solids are copied to the GPU once.

Shapes: s solids; n rays, or n packets of k rays that have one origin.
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
    normalize,
    world_to_local,
)

# Solids are sorted by shape, in this order. A shape's position is its number in the table.
SHAPES = ("sphere", "box", "frustum")

# The widths of the table's columns: shape, taper, pattern, specular and shininess, two colours,
# and the linear part and the offset of the map from the world.
WIDTHS = (1, 1, 3, 2, 6, 9, 3)

# Pairs of a ray and a solid that are computed at once. They bound the memory.
PAIRS = 1 << 22


class SolidTable:
    """Solids as arrays on a device, sorted by shape."""

    def __init__(self, solids: Sequence[Solid], device: torch.device) -> None:
        # The solids of one shape are neighbours: `ends` says where each shape's solids end.
        by_shape = sorted(solids, key=lambda solid: SHAPES.index(solid.shape))
        counts = [sum(solid.shape == shape for solid in solids) for shape in SHAPES]
        self.ends = np.cumsum(counts).tolist()

        # Put all numbers into one array, so that they are copied to the device at once.
        linear, offset = world_to_local(by_shape, torch.empty(0))
        look = torch.tensor([_look_columns(solid) for solid in by_shape], dtype=torch.float32)
        table = torch.cat((look, linear.flatten(1), offset.flatten(1)), dim=1)
        columns = table.to(device).split(WIDTHS, dim=1)
        self.shape, self.taper, self.pattern, self.highlight, colours, linear, offset = columns
        self.colours = colours.unflatten(1, (2, 3))  # (s, 2, 3)
        self.linear, self.offset = linear.unflatten(1, (3, 3)), offset[..., None]

    def __len__(self) -> int:
        return len(self.shape)

    def first_hits(
        self, origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return the distance to the first solid that each ray enters, and its index in the table.

        They are infinite and -1 where a ray hits nothing.
        """
        # As many packets at once as the memory allows.
        size = max(1, PAIRS // (len(self) * directions.shape[2]))
        chunks = zip(origins.split(size, dim=1), directions.split(size, dim=1))
        hits = [self._nearest(*chunk) for chunk in chunks]

        # Where nothing is hit, the smallest distance is infinite and its index means nothing.
        distances, owners = (torch.cat(tensors) for tensors in zip(*hits))
        return distances, torch.where(distances.isinf(), -1, owners).int()

    def _nearest(
        self, origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n k"]
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return each ray's smallest distance to a solid, and which solid that is."""
        # All rays in the coordinates of all solids.
        local_origins = torch.einsum("sij,jn->isn", self.linear, origins)  # (3, s, n)
        local_origins = local_origins + self.offset.transpose(0, 1)
        local_directions = torch.einsum("sij,jnk->isnk", self.linear, directions)  # (3, s, n, k)

        # Each shape has its own formula.
        entered, start = [], 0
        for shape, end in zip(SHAPES, self.ends):
            rays = local_origins[:, start:end, :, None], local_directions[:, start:end]
            if shape == "frustum":
                entered.append(enter_frustum(*rays, self.taper[start:end, None]))
            else:
                entered.append((enter_sphere if shape == "sphere" else enter_box)(*rays))
            start = end
        nearest, owners = torch.cat(entered).min(dim=0)  # of (s, n, k)
        return nearest, owners

    def surfaces(
        self, owners: Int[Tensor, "n"], points: Float[Tensor, "3 n"]
    ) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "2 n"]]:
        """Return the unit normals, the colours, and the highlights' strength and shininess.

        Args:
            owners: for each point, the index of the solid on which it is.
        """
        # The points in the coordinates of their solids.
        owner = owners.long()
        linear, taper = self.linear[owner], self.taper[owner, 0]
        local = torch.einsum("nij,jn->in", linear, points) + self.offset[owner, :, 0].T  # (3, n)

        # Compute the normals by all formulas, and use that of the point's shape.
        normals = torch.zeros_like(local)
        for number, shape in enumerate(SHAPES):
            has_shape = self.shape[owner, 0] == number
            normals = torch.where(has_shape, local_normals(shape, taper, local), normals)

        # Choose between the two colours as the CPU does, see `surfaces` in raycaster.py.
        second = (local * self.pattern[owner].T * (1 - 1e-4)).floor().sum(0).remainder(2).long()
        colours = self.colours[owner, second].T
        world_normals = normalize(torch.einsum("nij,in->jn", linear, normals))
        return world_normals, colours, self.highlight[owner].T


def _look_columns(solid: Solid) -> list[float]:
    """Return the columns of a solid that do not depend on where it is, as WIDTHS orders them."""
    material = solid.material
    first, second = material.colours
    form = [float(SHAPES.index(solid.shape)), solid.taper, *material.pattern]
    return [*form, material.specular, material.shininess, *first, *second]
