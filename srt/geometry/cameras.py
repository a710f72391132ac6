"""Cameras and rays. The conventions, once:

Camera axes are OpenCV's: x right, y down, z forward. The world's z axis points up. A pixel's
centre is its index + 0.5, so the direction of pixel (row i, column j) is R K⁻¹ (j + 0.5, i + 0.5,
1), scaled to unit length. `camera_to_world` is [R | position; 0 0 0 1], `intrinsics` K in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float, Int


def pixel_directions(
    intrinsics: Float[Tensor, "*#pixels 3 3"],
    camera_to_world: Float[Tensor, "*#pixels 4 4"],
    rows: Float[Tensor, "*#pixels"] | Int[Tensor, "*#pixels"],
    columns: Float[Tensor, "*#pixels"] | Int[Tensor, "*#pixels"],
) -> Float[Tensor, "... 3"]:
    """Returns the unit direction, in world coordinates, of one pixel of each camera.

    Only the focal lengths and the centre of `intrinsics` are read: packing refuses skew.
    """
    x = (columns + 0.5 - intrinsics[..., 0, 2]) / intrinsics[..., 0, 0]
    y = (rows + 0.5 - intrinsics[..., 1, 2]) / intrinsics[..., 1, 1]
    right, down, forward = camera_to_world[..., :3, :3].unbind(dim=-1)
    # Not as a product of matrices: for millions of 3 x 3 ones that takes milliseconds on a GPU.
    return F.normalize(right * x[..., None] + down * y[..., None] + forward, dim=-1)


def camera_rays(
    intrinsics: Float[Tensor, "*views 3 3"],
    camera_to_world: Float[Tensor, "*views 4 4"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "*views 3"], Float[Tensor, "*views {height} {width} 3"]]:
    """Returns each camera's origin and its rays' unit directions, in world coordinates."""
    down, along = (
        torch.arange(size, device=intrinsics.device, dtype=intrinsics.dtype)
        for size in (height, width)
    )
    rows, columns = torch.meshgrid(down, along, indexing="ij")
    directions = pixel_directions(
        intrinsics[..., None, None, :, :], camera_to_world[..., None, None, :, :], rows, columns
    )
    return camera_to_world[..., :3, 3], directions


def rigid_inverse(pose: Float[Tensor, "*views 4 4"]) -> Float[Tensor, "*views 4 4"]:
    """Returns the inverse of a rotation and translation, without a general matrix inversion."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(pose)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def look_at(
    position: Float[Tensor, "*views 3"], target: Float[Tensor, "*views 3"]
) -> Float[Tensor, "*views 4 4"]:
    """Returns the camera_to_world of a camera that looks at `target` without roll.

    Raises ValueError for a camera straight above or below its target: its roll is not defined.
    """
    forward = F.normalize(target - position, dim=-1)
    up = torch.zeros_like(forward)
    up[..., 2] = 1
    right = torch.linalg.cross(forward, up)
    vertical = right.norm(dim=-1) < 1e-6
    if vertical.any():
        raise ValueError(
            f"camera at {position.expand_as(forward)[vertical][0].tolist()} is straight above or"
            " below its target: its roll is not defined; move it off the vertical"
        )
    right = F.normalize(right, dim=-1)
    pose = torch.zeros(*position.shape[:-1], 4, 4, dtype=position.dtype, device=position.device)
    columns = (right, torch.linalg.cross(forward, right), forward, position)
    pose[..., :3, :] = torch.stack(columns, dim=-1)
    pose[..., 3, 3] = 1
    return pose


def pinhole(
    focal_length: float, sensor_width: float, height: int, width: int
) -> Float[Tensor, "3 3"]:
    """Returns the float64 intrinsics of a camera with square pixels, centred on the image."""
    focal = focal_length / sensor_width * width
    return torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def resize_intrinsics(
    intrinsics: Float[Tensor, "*views 3 3"], size: tuple[int, int], to: tuple[int, int]
) -> Float[Tensor, "*views 3 3"]:
    """Returns the intrinsics that show the same width of the scene in images of another size.

    Args:
        size, to: height and width. Where the shape changes, rows are added or cut evenly.
    """
    scale = to[1] / size[1]
    resized = intrinsics.clone()
    resized[..., :2, :] *= scale
    resized[..., 1, 2] += (to[0] - size[0] * scale) / 2
    return resized


def stride_intrinsics(
    intrinsics: Float[Tensor, "*views 3 3"], stride: int
) -> Float[Tensor, "*views 3 3"]:
    """Returns the intrinsics of images of which every `stride`-th row and column is kept.

    The first that is kept is number stride // 2, as in the published loader of CLEVR3D.
    """
    if stride == 1:
        return intrinsics
    strided = intrinsics.clone()
    strided[..., :2, :] /= stride
    strided[..., :2, 2] += 0.5 - (stride // 2 + 0.5) / stride
    return strided
