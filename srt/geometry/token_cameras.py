"""The cameras of tokens: what relative attention knows of a patch of an image, or of a ray.

Relative attention (srt/model/camera_attention.py) does not encode rays. It needs the camera from
which a token was seen, and the token's position in the image of this camera. Both are the same for
a patch of an input image and for a ray of a target image.

b scenes, v views, n tokens or rays of a scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from srt.common.shapes import Float, Int


class TokenCameras(NamedTuple):
    """The camera of each token, and the token's position in its image."""

    world_to_camera: Float[Tensor, "b v 4 4"]  # x_camera = world_to_camera x_world, OpenCV axes
    view_index: Int[Tensor, "b n"]  # which of the v cameras is the token's

    # Row and column of the token's centre, as parts of the image's height and width.
    coordinates: Float[Tensor, "b n 2"]

    # What `normalise_intrinsics` returns; None: the model ignores the intrinsics.
    normalised_intrinsics: Float[Tensor, "b v 3 3"] | None = None

    def split(self, size: int) -> Iterator[TokenCameras]:
        """Yield groups of `size` tokens of each scene; the last group may be smaller."""
        indices = self.view_index.split(size, dim=1)  # each (b, size)
        coordinates = self.coordinates.split(size, dim=1)  # each (b, size, 2)
        for group_indices, group_coordinates in zip(indices, coordinates):
            yield self._replace(view_index=group_indices, coordinates=group_coordinates)

    def matrices_of_tokens(self, matrices: Float[Tensor, "b v s s"]) -> Float[Tensor, "b n s s"]:
        """Return the matrix of each token's camera."""
        indices = self.view_index[..., None]  # (b, n, 1)
        chosen = torch.take_along_dim(matrices.flatten(2), indices, dim=1)  # (b, n, s · s)
        return chosen.unflatten(2, matrices.shape[2:])


def patch_cameras(
    world_to_camera: Float[Tensor, "b v 4 4"],
    rows: int,
    columns: int,
    normalised_intrinsics: Float[Tensor, "b v 3 3"] | None = None,
) -> TokenCameras:
    """Return the cameras of the patches of images: view after view, each row by row.

    Args:
        rows, columns: of patches in an image.
    """
    # The position of a patch is that of its centre.
    device, dtype = world_to_camera.device, world_to_camera.dtype
    row_centres = (torch.arange(rows, device=device, dtype=dtype) + 0.5) / rows
    column_centres = (torch.arange(columns, device=device, dtype=dtype) + 0.5) / columns
    grid = torch.stack(torch.meshgrid(row_centres, column_centres, indexing="ij"), dim=-1)

    # All images have the same patches.
    scenes, views = world_to_camera.shape[:2]
    coordinates = grid.flatten(0, 1).repeat(views, 1).expand(scenes, -1, -1)  # (b, n, 2)
    numbers = torch.arange(views, device=device)
    indices = numbers.repeat_interleave(rows * columns, output_size=coordinates.shape[1])  # (n)
    return TokenCameras(
        world_to_camera, indices.expand(scenes, -1), coordinates, normalised_intrinsics
    )


def normalise_intrinsics(
    intrinsics: Float[Tensor, "*views 3 3"], height: int, width: int
) -> Float[Tensor, "*views 3 3"]:
    """Return intrinsics in image sizes, with the middle of the image as origin (PRoPE).

    Only the focal lengths and the centre are read: packing refuses skew.

    Args:
        intrinsics: in pixels.
    """
    normalised = torch.zeros_like(intrinsics)
    normalised[..., 0, 0] = intrinsics[..., 0, 0] / width
    normalised[..., 1, 1] = intrinsics[..., 1, 1] / height
    normalised[..., 0, 2] = intrinsics[..., 0, 2] / width - 0.5
    normalised[..., 1, 2] = intrinsics[..., 1, 2] / height - 0.5
    normalised[..., 2, 2] = 1
    return normalised


def intrinsics_inverse(intrinsics: Float[Tensor, "*views 3 3"]) -> Float[Tensor, "*views 3 3"]:
    """Return the inverses of intrinsics without skew, without a general matrix inversion."""
    # The inverse of x -> f x + c is x -> x / f - c / f, for rows and for columns.
    inverse = torch.zeros_like(intrinsics)
    for axis in (0, 1):
        focal = intrinsics[..., axis, axis]
        inverse[..., axis, axis] = 1 / focal
        inverse[..., axis, 2] = -intrinsics[..., axis, 2] / focal
    inverse[..., 2, 2] = 1
    return inverse
