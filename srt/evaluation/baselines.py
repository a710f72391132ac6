"""Guesses that need no model: they learn nothing, or no more than a colour. t target views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float, Int
from srt.geometry.cameras import camera_rays

Cameras = tuple[Float[Tensor, "views 3 3"], Float[Tensor, "views 4 4"]]  # K, camera_to_world


def baseline_predictions(
    inputs: Float[Tensor, "v h w 3"],
    cameras: Cameras,
    input_views: Int[Tensor, "v"],
    target_views: Int[Tensor, "t"],
    mean_colour: Sequence[float],
) -> dict[str, Float[Tensor, "t h w 3"]]:
    """Returns what each baseline of `srt.evaluation.scores` shows for the target views.

    Args:
        inputs: the images of the input views.
        cameras: of all views of the scene.
        mean_colour: of the training set.
    """
    intrinsics, poses = cameras
    positions = poses[:, :3, 3]
    nearest = torch.cdist(positions[target_views], positions[input_views]).argmin(dim=1)
    copied, sources = inputs[nearest], input_views[nearest]
    return {
        "mean_colour": inputs.new_tensor(mean_colour).expand_as(copied),
        "input_view": copied,
        "warped_input": warp_nearest_view(
            copied,
            (intrinsics[sources], poses[sources]),
            (intrinsics[target_views], poses[target_views]),
        ),
    }


def warp_nearest_view(
    images: Float[Tensor, "t h w 3"], sources: Cameras, targets: Cameras
) -> Float[Tensor, "t h w 3"]:
    """Returns what the target cameras see of images that are painted on planes.

    Each plane goes through the world's origin and faces the camera of its image. Where a target
    sees no plane, or a part that the image does not show, is the mean colour of the image's edge.
    """
    height, width = images.shape[1:3]
    intrinsics, pose = (part[:, None, None] for part in sources)
    right, down, forward = pose[..., :3, :3].unbind(dim=-1)
    position = pose[..., :3, 3]
    origins, directions = camera_rays(*targets, height, width)  # (t, 3), (t, h, w, 3)
    origins = origins[:, None, None]
    along = -_dot(origins, forward) / _dot(directions, forward)
    depth = -_dot(position, forward)  # of the plane, from the image's camera
    seen = origins + along[..., None] * directions - position
    x = intrinsics[..., 0, 0] * _dot(seen, right) / depth + intrinsics[..., 0, 2]
    y = intrinsics[..., 1, 1] * _dot(seen, down) / depth + intrinsics[..., 1, 2]
    places = torch.stack((2 * x / width - 1, 2 * y / height - 1), dim=-1)  # in [-1, 1]
    shown = (along > 0) & (depth > 0) & (places.abs() <= 1).all(dim=-1)
    sampled = F.grid_sample(
        images.permute(0, 3, 1, 2),
        torch.where(shown[..., None], places, 0),
        padding_mode="border",
        align_corners=False,
    )
    return torch.where(shown[..., None], sampled.permute(0, 2, 3, 1), _edge_colour(images))


def _dot(a: Float[Tensor, "... 3"], b: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """Returns the products of vectors, not as those of matrices: on a GPU these are rounded."""
    return (a * b).sum(dim=-1)


def _edge_colour(images: Float[Tensor, "t h w 3"]) -> Float[Tensor, "t 1 1 3"]:
    """Returns the mean colour of the outermost pixels."""
    rows, columns = images[:, [0, -1]].flatten(1, 2), images[:, 1:-1, [0, -1]].flatten(1, 2)
    return torch.cat((rows, columns), dim=1).mean(dim=1)[:, None, None]
