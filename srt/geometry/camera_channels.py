"""Which parts the representation of a camera has, and how many channels of a head are for each.

    GtaChannels     SE(3) of the camera | SO(3) of its rotation | SO(2) of the position in the image
                    (GTA, Miyato et al., ICLR 2024; autonomousvision/gta, source/utils/gta.py)
    PropeChannels   projection by the camera, with its intrinsics | RoPE of the column | of the row
                    (PRoPE, Li et al., NeurIPS 2025; liruilong940607/prope,
                    prope/per_img_camera.py)

With the identity as intrinsics, PRoPE's projection is GTA's SE(3).

b scenes, v views, n tokens of a scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from srt.common.shapes import Float
from srt.geometry.cameras import rigid_inverse
from srt.geometry.representations import MatrixBlock, PlaneBlock, Representation
from srt.geometry.token_cameras import TokenCameras, intrinsics_inverse
from srt.geometry.wigner import wigner_degree1, wigner_degree2


@dataclass(frozen=True)
class GtaChannels:
    """How many channels of a head the parts of GTA's representation have, in this order.

    Raises:
        ValueError: a number is not a multiple of the channels that a part needs.
    """

    rigid: int  # SE(3): rotation and translation of the camera
    rotation: int  # SO(3): degrees 1 and 2 of its rotation
    image: int  # SO(2): row and column in the image, a pair of channels for each frequency

    def __post_init__(self) -> None:
        if self.rigid == 0:
            raise ValueError("rigid is 0; give SE(3) at least 4 channels")
        for name, multiple in (("rigid", 4), ("rotation", 8), ("image", 4)):
            if getattr(self, name) < 0 or getattr(self, name) % multiple:
                raise ValueError(
                    f"{name} is {getattr(self, name)} channels; make it a multiple of {multiple}"
                )

    @property
    def head_dim(self) -> int:
        return self.rigid + self.rotation + self.image

    def represent(self, cameras: TokenCameras) -> Representation:
        """Return the representation of tokens; it is float64 where the cameras are."""
        cameras = in_float32(cameras)
        world_to_camera = cameras.world_to_camera
        rigid = camera_block(cameras, world_to_camera, invert(world_to_camera), self.rigid)

        # The inverse of a Wigner D matrix is its transpose.
        others: list[MatrixBlock | PlaneBlock] = []
        if self.rotation:
            rotation = world_to_camera[..., :3, :3]
            degrees = (wigner_degree1(rotation), wigner_degree2(rotation))
            matrices = tuple(cameras.matrices_of_tokens(matrix) for matrix in degrees)
            inverses = tuple(matrix.mT for matrix in matrices)
            others.append(MatrixBlock(matrices, inverses, self.rotation))

        # The highest frequency turns once over the image, the next one half as often, and so on.
        # Each frequency has a pair of channels for the row and one for the column. The output turns
        # by the opposite angle: the published code turns queries by the angle itself.
        if self.image:
            frequencies = powers(2.0, self.image // 4, cameras.coordinates)  # 2^(1 - n) ... 1
            angles = 2 * math.pi * frequencies[:, None] * cameras.coordinates[..., None, :]
            others.append(plane_block(-angles.flatten(2), neighbours=True))  # (b, n, pairs)
        return Representation(rigid, tuple(others))


@dataclass(frozen=True)
class PropeChannels:
    """The sizes of PRoPE's representation. A half of a head's channels is for the camera.

    Raises:
        ValueError: the number of channels cannot be divided like that.
    """

    head_dim: int
    rows: int  # of patches in an image: RoPE counts in patches
    columns: int

    def __post_init__(self) -> None:
        if self.head_dim <= 0 or self.head_dim % 8:
            raise ValueError(f"head_dim is {self.head_dim}; make it a multiple of 8")

    def represent(self, cameras: TokenCameras) -> Representation:
        """Return the representation of tokens; it is float64 where the cameras are.

        Without intrinsics, all cameras have the identity as intrinsics.
        """
        cameras = in_float32(cameras)
        matrix, inverse = cameras.world_to_camera, invert(cameras.world_to_camera)
        if cameras.normalised_intrinsics is not None:
            intrinsics = cameras.normalised_intrinsics
            matrix = multiply_matrices(homogeneous(intrinsics), matrix)  # (b, v, 4, 4)
            inverse = multiply_matrices(inverse, homogeneous(intrinsics_inverse(intrinsics)))
        projection = camera_block(cameras, matrix, inverse, self.head_dim // 2)

        # A quarter of the channels turns by the column, a quarter by the row. The frequencies fall
        # from one radian a patch towards a hundredth of it. Only differences of positions count, so
        # that it does not matter that these are centres, and the published ones whole numbers.
        pairs = self.head_dim // 8
        frequencies = powers(100 ** (1 / pairs), pairs, cameras.coordinates).flip(0)  # 1 ...
        row, column = cameras.coordinates.unbind(dim=-1)  # each (b, n), in images
        others = tuple(
            plane_block(position[..., None] * frequencies, neighbours=False)
            for position in (self.columns * column, self.rows * row)
        )
        return Representation(projection, others)


def in_float32(cameras: TokenCameras) -> TokenCameras:
    """Return the cameras in float32, or in float64 where they are."""

    def convert(values: Tensor) -> Tensor:
        return values if values.dtype == torch.float64 else values.float()

    intrinsics = cameras.normalised_intrinsics
    return TokenCameras(
        convert(cameras.world_to_camera),
        cameras.view_index,
        convert(cameras.coordinates),
        None if intrinsics is None else convert(intrinsics),
    )


def camera_block(
    cameras: TokenCameras,
    matrix: Float[Tensor, "b v 4 4"],
    inverse: Float[Tensor, "b v 4 4"],
    channels: int,
) -> MatrixBlock:
    """Return the block of each token's camera matrix."""
    of_tokens = cameras.matrices_of_tokens
    return MatrixBlock((of_tokens(matrix),), (of_tokens(inverse),), channels)


def plane_block(angles: Float[Tensor, "b n pairs"], neighbours: bool) -> PlaneBlock:
    """Return the block that turns pairs of channels by these angles."""
    return PlaneBlock(angles.cos(), angles.sin(), neighbours)


def multiply_matrices(
    left: Float[Tensor, "*views s s"], right: Float[Tensor, "*views s s"]
) -> Float[Tensor, "*views s s"]:
    """Return the products of small matrices."""
    return (left[..., None] * right[..., None, :, :]).sum(-2)


def invert(world_to_camera: Float[Tensor, "*views 4 4"]) -> Float[Tensor, "*views 4 4"]:
    """Return the camera_to_world in full precision, although autocast may be on."""
    with torch.autocast(world_to_camera.device.type, enabled=False):
        return rigid_inverse(world_to_camera)


def homogeneous(matrix: Float[Tensor, "*views 3 3"]) -> Float[Tensor, "*views 4 4"]:
    """Return the 4 x 4 matrices that do the same to points in homogeneous coordinates."""
    larger = matrix.new_zeros(*matrix.shape[:-2], 4, 4)
    larger[..., :3, :3] = matrix
    larger[..., 3, 3] = 1
    return larger


def powers(base: float, count: int, like: Tensor) -> Float[Tensor, "{count}"]:
    """Return base^(1 - count), ..., base^-1, 1, in the type of `like`."""
    exponents = torch.arange(1 - count, 1, device=like.device, dtype=like.dtype)
    return base**exponents
