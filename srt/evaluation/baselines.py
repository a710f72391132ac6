"""Predictions without a model. They show what a figure is worth that a model has reached.

The first baseline is the mean colour of the training set, the second a copy of the nearest input
view, and the third this view warped to the target's camera. v input views, t target views, h x w
pixels of a view.
"""

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
    """Return the target views as each of `srt.results.records.Baselines` predicts them.

    Args:
        inputs: the images of the input views.
        cameras: of all views of the scene.
        mean_colour: of the training set.
    """
    # Find the input camera whose position is nearest to each target camera.
    intrinsics, poses = cameras
    positions = poses[:, :3, 3]  # (views, 3)
    nearest = torch.cdist(positions[target_views], positions[input_views]).argmin(dim=1)  # (t)
    copied, sources = inputs[nearest], input_views[nearest]  # (t, h, w, 3), (t)

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
    """Return the views of the target cameras onto images that are painted on planes.

    Each plane goes through the world's origin and faces the camera of its image. A pixel has the
    mean colour of the image's edge if its ray does not hit the plane, or hits it outside the image.

    Args:
        sources: the cameras of the images, one for each target.
    """
    # Two dimensions of size 1 let every camera broadcast over its pixels.
    height, width = images.shape[1:3]
    intrinsics, pose = sources[0][:, None, None], sources[1][:, None, None]  # (t, 1, 1, ...)
    right, down, forward = pose[..., :3, :3].unbind(dim=-1)  # each (t, 1, 1, 3)
    position = pose[..., :3, 3]

    # Intersect the target rays with the planes, whose normals are the cameras' forward axes.
    origins, directions = camera_rays(*targets, height, width)  # (t, 3), (t, h, w, 3)
    origins = origins[:, None, None]
    distance = -_dot(origins, forward) / _dot(directions, forward)  # (t, h, w), along the rays
    points = origins + distance[..., None] * directions - position  # (t, h, w, 3)

    # Project the points into the image. All points of a plane have the same depth.
    depth = -_dot(position, forward)  # (t, 1, 1), of the plane from the image's camera
    x = intrinsics[..., 0, 0] * _dot(points, right) / depth + intrinsics[..., 0, 2]
    y = intrinsics[..., 1, 1] * _dot(points, down) / depth + intrinsics[..., 1, 2]
    coordinates = torch.stack((2 * x / width - 1, 2 * y / height - 1), dim=-1)  # in [-1, 1]

    # Sample the image where the plane lies in front of both cameras and the point is in the image.
    visible = (distance > 0) & (depth > 0) & (coordinates.abs() <= 1).all(dim=-1)  # (t, h, w)
    sampled = F.grid_sample(
        images.permute(0, 3, 1, 2),
        torch.where(visible[..., None], coordinates, 0),
        padding_mode="border",
        align_corners=False,
    )  # (t, 3, h, w)
    return torch.where(visible[..., None], sampled.permute(0, 2, 3, 1), _edge_colour(images))


def _dot(a: Float[Tensor, "... 3"], b: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """Return the dot products of vectors.

    A matrix product would round them on a GPU, where it may be computed in TF32.
    """
    return (a * b).sum(dim=-1)


def _edge_colour(images: Float[Tensor, "t h w 3"]) -> Float[Tensor, "t 1 1 3"]:
    """Return the mean colour of the outermost pixels."""
    # The corners belong to the rows only, so that they count once.
    rows = images[:, [0, -1]].flatten(1, 2)  # (t, 2 w, 3)
    columns = images[:, 1:-1, [0, -1]].flatten(1, 2)  # (t, 2 (h - 2), 3)
    return torch.cat((rows, columns), dim=1).mean(dim=1)[:, None, None]
