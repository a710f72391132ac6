"""Representations of cameras: matrices by which attention sees relative cameras.

Every token i has a matrix ρ_i, which says where its camera is and where the token is in the image.
Attention between tokens with such matrices is (GTA, Miyato et al., ICLR 2024, section 3)

    output_i = Σ_j softmax_j(q_iᵀ ρ_i ρ_j⁻¹ k_j / √d) ρ_i ρ_j⁻¹ v_j

It depends on ρ_i ρ_j⁻¹ only, the relation of two cameras, and therefore not on the choice of the
world's coordinates. The same is computed with any kernel for plain attention, because

    ρᵀ q for the queries, ρ⁻¹ k for the keys, ρ⁻¹ v for the values, and ρ o for the output

can be applied outside. The matrices are block diagonal, and the same for all heads.
srt/geometry/camera_channels.py makes them from cameras.

Products are sums of columns, not calls of a matrix product: autocast would round those to bfloat16.

b scenes, n tokens of a scene, h heads, d channels of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from srt.common.shapes import Float


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


def scale_translation(
    matrix: Float[Tensor, "*tokens 4 4"], scale: Float[Tensor, ""]
) -> Float[Tensor, "*tokens 4 4"]:
    """Return the matrix with its translation multiplied."""
    scaled = matrix.clone()
    scaled[..., :3, 3] = matrix[..., :3, 3] * scale
    return scaled
