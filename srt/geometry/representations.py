"""Representations of cameras: matrices by which attention sees relative cameras.

Every token i has a matrix ρ_i, which says where its camera is and where the token is in the image.
Attention between tokens with such matrices is (GTA, Miyato et al., ICLR 2024, section 3)

    output_i = Σ_j softmax_j(q_iᵀ ρ_i ρ_j⁻¹ k_j / √d) ρ_i ρ_j⁻¹ v_j

It depends on ρ_i ρ_j⁻¹ only, the relation of two cameras, and therefore not on the choice of the
world's coordinates. The same is computed with any kernel for plain attention, because

    ρᵀ q for the queries, ρ⁻¹ k for the keys, ρ⁻¹ v for the values, and ρ o for the output

can be applied outside. The matrices are block diagonal, and the same for all heads:

    gta     SE(3) of the camera | SO(3) of its rotation | SO(2) of the position in the image
            (published file: autonomousvision/gta, source/utils/gta.py)
    prope   projection by the camera, with its intrinsics | RoPE of the column | RoPE of the row
            (PRoPE, Li et al., NeurIPS 2025; liruilong940607/prope, prope/per_img_camera.py)

Products are sums of columns, not calls of a matrix product: autocast would round those to bfloat16.

b scenes, v views, n tokens of a scene, h heads, d channels of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from srt.common.shapes import Float
from srt.geometry.cameras import rigid_inverse
from srt.geometry.token_cameras import TokenCameras, intrinsics_inverse
from srt.geometry.wigner import wigner_degree1, wigner_degree2


class MatrixBlock(NamedTuple):
    """Channels that matrices act on.

    A copy is as many channels as the matrices have rows together. The first matrix acts on the
    first channels of each copy, and so on.
    """

    matrices: tuple[Float[Tensor, "b n _ _"], ...]
    inverses: tuple[Float[Tensor, "b n _ _"], ...]
    channels: int

    def transpose(self) -> MatrixBlock:
        """Return the block with its matrices transposed."""
        matrices = tuple(matrix.mT for matrix in self.matrices)
        return MatrixBlock(matrices, tuple(matrix.mT for matrix in self.inverses), self.channels)

    def inverse(self) -> MatrixBlock:
        """Return the block with its matrices inverted."""
        return MatrixBlock(self.inverses, self.matrices, self.channels)

    def apply(self, vectors: Float[Tensor, "#b #n h c"]) -> Float[Tensor, "b n h c"]:
        """Return the products of each token's matrices with its channels."""
        sizes = [matrix.shape[-1] for matrix in self.matrices]
        copies = vectors.unflatten(-1, (-1, sum(sizes)))  # (b, n, h, copies, channels)

        # All heads and copies of a token have the same matrices.
        products = [
            multiply(matrix[:, :, None, None], channels)
            for matrix, channels in zip(self.matrices, copies.split(sizes, dim=-1))
        ]
        return torch.cat(products, dim=-1).flatten(-2)


class PlaneBlock(NamedTuple):
    """Pairs of channels, each of which is turned like a vector in the plane."""

    cosines: Float[Tensor, "b n pairs"]
    sines: Float[Tensor, "b n pairs"]
    neighbours: bool  # channels 2i and 2i + 1 are a pair; False: channels i and i + pairs are

    @property
    def channels(self) -> int:
        return 2 * self.sines.shape[-1]

    def transpose(self) -> PlaneBlock:
        """Return the block with the opposite angles: the transpose of a rotation."""
        return self._replace(sines=-self.sines)

    def inverse(self) -> PlaneBlock:
        """Return the block with the opposite angles: the inverse of a rotation."""
        return self.transpose()

    def apply(self, vectors: Float[Tensor, "#b #n h c"]) -> Float[Tensor, "b n h c"]:
        """Return the pairs of channels, turned from the first one towards the second one."""
        pairs = (-1, 2) if self.neighbours else (2, -1)
        pair_dim = -1 if self.neighbours else -2
        x, y = vectors.unflatten(-1, pairs).unbind(dim=pair_dim)  # each (b, n, h, pairs)

        cosines, sines = self.cosines[:, :, None], self.sines[:, :, None]  # each (b, n, 1, pairs)
        turned = (cosines * x - sines * y, sines * x + cosines * y)
        return torch.stack(turned, dim=pair_dim).flatten(-2)


class Representation(NamedTuple):
    """The matrix ρ of each token, as blocks that follow each other on the channels of a head."""

    camera: MatrixBlock  # one 4 x 4 matrix: rotation, translation, perhaps intrinsics
    others: tuple[MatrixBlock | PlaneBlock, ...]  # orthogonal ones

    def transform_queries(self, queries: Float[Tensor, "#b #n h d"]) -> Float[Tensor, "b n h d"]:
        """Return ρᵀ q."""
        blocks = [block.transpose() for block in (self.camera, *self.others)]
        return apply_blocks(blocks, queries)

    def transform_keys(self, keys: Float[Tensor, "#b #n h d"]) -> Float[Tensor, "b n h d"]:
        """Return ρ⁻¹ k. Values are transformed in the same way."""
        blocks = [block.inverse() for block in (self.camera, *self.others)]
        return apply_blocks(blocks, keys)

    def transform_output(self, output: Float[Tensor, "#b #n h d"]) -> Float[Tensor, "b n h d"]:
        """Return ρ o."""
        return apply_blocks([self.camera, *self.others], output)

    def scale_translations(self, scale: Float[Tensor, ""]) -> Representation:
        """Return the representation in a world that is `scale` times as large."""
        matrices = tuple(scale_translation(matrix, scale) for matrix in self.camera.matrices)
        inverses = tuple(scale_translation(matrix, scale) for matrix in self.camera.inverses)
        return self._replace(camera=MatrixBlock(matrices, inverses, self.camera.channels))


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
            frequencies = powers(2, self.image // 4, cameras.coordinates)  # 2^(1 - n) ... 1
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


def apply_blocks(
    blocks: list[MatrixBlock | PlaneBlock], vectors: Float[Tensor, "#b #n h d"]
) -> Float[Tensor, "b n h d"]:
    """Return the vectors, with each block applied to its channels.

    The products are computed in the precision of the blocks, and rounded to that of the vectors.
    """
    channels = vectors.split([block.channels for block in blocks], dim=-1)
    turned = [block.apply(part) for block, part in zip(blocks, channels)]
    return torch.cat(turned, dim=-1).to(vectors.dtype)


def multiply(
    matrix: Float[Tensor, "*#tokens s s"], vectors: Float[Tensor, "*#tokens s"]
) -> Float[Tensor, "*tokens s"]:
    """Return matrix times vector, as the sum of the matrix' columns, each times a channel."""
    columns = zip(matrix.unbind(dim=-1), vectors.unbind(dim=-1))
    products = [column * channel[..., None] for column, channel in columns]
    return sum(products[1:], products[0])


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


def scale_translation(
    matrix: Float[Tensor, "*tokens 4 4"], scale: Float[Tensor, ""]
) -> Float[Tensor, "*tokens 4 4"]:
    """Return the matrix with its translation multiplied."""
    scaled = matrix.clone()
    scaled[..., :3, 3] = matrix[..., :3, 3] * scale
    return scaled


def powers(base: float, count: int, like: Tensor) -> Float[Tensor, "{count}"]:
    """Return base^(1 - count), ..., base^-1, 1, in the type of `like`."""
    exponents = torch.arange(1 - count, 1, device=like.device, dtype=like.dtype)
    return base**exponents
