"""Cameras and the rays through their pixels. All conventions of the repository are here.

Camera axes are OpenCV's: x right, y down, z forward. The world's z axis points up. A pixel's
centre is its index + 0.5, so the direction of pixel (row i, column j) is R K⁻¹ (j + 0.5, i + 0.5,
1), scaled to unit length. `camera_to_world` is [R | position; 0 0 0 1], `intrinsics` K in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float, Int


@dataclass(frozen=True)
class Camera:
    """Where pinhole cameras stand, and what they show in images of one size.

    One object can hold any number of cameras, in the leading dimensions of its tensors.
    """

    intrinsics: Float[Tensor, "*views 3 3"]
    camera_to_world: Float[Tensor, "*views 4 4"]
    height: int  # of the image, in pixels
    width: int

    def to(self, device: torch.device) -> Camera:
        """Return the cameras on a device."""
        tensors = self.intrinsics.to(device), self.camera_to_world.to(device)
        return Camera(*tensors, self.height, self.width)

    def rays(self) -> tuple[Float[Tensor, "*views 3"], Float[Tensor, "*views height width 3"]]:
        """Return each camera's origin and the unit directions of its rays, in the world."""
        return camera_rays(self.intrinsics, self.camera_to_world, self.height, self.width)

    def to_frame(self, world_to_frame: Float[Tensor, "*#views 4 4"]) -> Camera:
        """Return the cameras in the coordinates of another frame."""
        poses = world_to_frame @ self.camera_to_world
        return Camera(self.intrinsics, poses, self.height, self.width)

    def resize(self, height: int, width: int) -> Camera:
        """Return the cameras with images of another size, which show the same width of the scene.

        See `resize_intrinsics`.
        """
        size = self.height, self.width
        intrinsics = resize_intrinsics(self.intrinsics, size, (height, width))
        return Camera(intrinsics, self.camera_to_world, height, width)

    def stride(self, stride: int) -> Camera:
        """Return the cameras of images that are reduced to every `stride`-th row and column."""
        first = stride // 2
        height, width = (len(range(first, size, stride)) for size in (self.height, self.width))
        intrinsics = stride_intrinsics(self.intrinsics, stride)
        return Camera(intrinsics, self.camera_to_world, height, width)


def pixel_directions(
    intrinsics: Float[Tensor, "*#pixels 3 3"],
    camera_to_world: Float[Tensor, "*#pixels 4 4"],
    rows: Float[Tensor, "*#pixels"] | Int[Tensor, "*#pixels"],
    columns: Float[Tensor, "*#pixels"] | Int[Tensor, "*#pixels"],
) -> Float[Tensor, "... 3"]:
    """Return the unit directions, in world coordinates, of the rays through single pixels.

    Only the focal lengths and the centre of `intrinsics` are read: packing refuses skew.
    """
    # A pixel's position on the plane at depth 1 in front of its camera.
    x = (columns + 0.5 - intrinsics[..., 0, 2]) / intrinsics[..., 0, 0]  # (*pixels)
    y = (rows + 0.5 - intrinsics[..., 1, 2]) / intrinsics[..., 1, 1]

    # The columns of the rotation are the camera's axes in the world. A sum of them replaces the
    # matrix product, which takes milliseconds for millions of 3 x 3 matrices on a GPU.
    right, down, forward = camera_to_world[..., :3, :3].unbind(dim=-1)  # each (*pixels, 3)
    return F.normalize(right * x[..., None] + down * y[..., None] + forward, dim=-1)


def camera_rays(
    intrinsics: Float[Tensor, "*views 3 3"],
    camera_to_world: Float[Tensor, "*views 4 4"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "*views 3"], Float[Tensor, "*views {height} {width} 3"]]:
    """Return each camera's origin and the unit directions of its rays, in world coordinates."""
    # Number the rows and columns of an image.
    row_numbers = torch.arange(height, device=intrinsics.device, dtype=intrinsics.dtype)
    column_numbers = torch.arange(width, device=intrinsics.device, dtype=intrinsics.dtype)
    rows, columns = torch.meshgrid(row_numbers, column_numbers, indexing="ij")  # (h, w)

    # Two dimensions of size 1 let every camera broadcast over its pixels.
    directions = pixel_directions(
        intrinsics[..., None, None, :, :], camera_to_world[..., None, None, :, :], rows, columns
    )  # (*views, h, w, 3)
    return camera_to_world[..., :3, 3], directions


def rigid_inverse(pose: Float[Tensor, "*views 4 4"]) -> Float[Tensor, "*views 4 4"]:
    """Return the inverses of rotations and translations, without a general matrix inversion."""
    # The inverse of x -> R x + t is x -> Rᵀ x - Rᵀ t.
    rotation = pose[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(pose)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def look_at(
    position: Float[Tensor, "*views 3"], target: Float[Tensor, "*views 3"]
) -> Float[Tensor, "*views 4 4"]:
    """Return the camera_to_world of a camera that looks at `target` without roll.

    Raises:
        ValueError: a camera is straight above or below its target, where its roll is not defined.
    """
    # Without roll, the camera's right axis is horizontal: orthogonal to the world's up.
    forward = F.normalize(target - position, dim=-1)  # (*views, 3)
    up = torch.zeros_like(forward)
    up[..., 2] = 1
    right = torch.linalg.cross(forward, up)

    # A vertical forward axis leaves the right axis undefined.
    vertical = right.norm(dim=-1) < 1e-6  # (*views)
    if vertical.any():
        raise ValueError(
            f"camera at {position.expand_as(forward)[vertical][0].tolist()} is straight above or"
            " below its target: its roll is not defined; move it off the vertical"
        )

    # The columns of the pose are the camera's axes and its position.
    right = F.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    pose = torch.zeros(*position.shape[:-1], 4, 4, dtype=position.dtype, device=position.device)
    pose[..., :3, :] = torch.stack((right, down, forward, position), dim=-1)
    pose[..., 3, 3] = 1
    return pose


def pinhole(
    focal_length: float, sensor_width: float, height: int, width: int
) -> Float[Tensor, "3 3"]:
    """Return the float64 intrinsics of a camera with square pixels, centred on the image.

    Args:
        focal_length, sensor_width: in one unit, which may be any.
    """
    focal = focal_length / sensor_width * width
    return torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def resize_intrinsics(
    intrinsics: Float[Tensor, "*views 3 3"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*views 3 3"]:
    """Return the intrinsics that show the same width of the scene in images of another size.

    Args:
        size, new_size: height and width. If the proportions change, as many rows are added or
            removed at the top as at the bottom.
    """
    # Scale by the width, then move the centre to the middle of the new height.
    scale = new_size[1] / size[1]
    resized = intrinsics.clone()
    resized[..., :2, :] *= scale
    resized[..., 1, 2] += (new_size[0] - size[0] * scale) / 2
    return resized


def stride_intrinsics(
    intrinsics: Float[Tensor, "*views 3 3"], stride: int
) -> Float[Tensor, "*views 3 3"]:
    """Return the intrinsics of images that are reduced to every `stride`-th row and column.

    The first row and column that remain are number stride // 2, as in the published loader of
    CLEVR3D.
    """
    if stride == 1:
        return intrinsics

    # Old pixel stride // 2, whose centre is at stride // 2 + 0.5, becomes pixel 0, centre at 0.5.
    strided = intrinsics.clone()
    strided[..., :2, :] /= stride
    strided[..., :2, 2] += 0.5 - (stride // 2 + 0.5) / stride
    return strided
