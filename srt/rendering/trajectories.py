"""The camera motions of the published renderer (render.py of stelzner/srt).

The world's z axis points up, and the time t is in [0, 1]. A path starts at the position of a
scene's first input camera, but without its roll. At the start the camera looks at the origin; only
in `eyeroll` it looks at a point on a circle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from srt.common.shapes import Float
from srt.geometry.cameras import look_at


class Trajectory(NamedTuple):
    """A camera's position, the point that it looks at and the factor of its focal length."""

    positions: Float[Tensor, "frames 3"]
    targets: Float[Tensor, "frames 3"]
    focal_scale: Float[Tensor, " frames"]


def fade(t: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """Return t with a soft start over the first fifth of the time and a soft end over the last."""
    # The speed grows evenly over the first ramp, is constant, and falls evenly over the last ramp.
    ramp = 0.2
    speed = 1 / (1 - ramp)  # of the middle, so that the whole way still has length 1

    # These are the integrals of the speed in its three sections.
    start = 0.5 * speed / ramp * t**2
    middle = speed * (t - 0.5 * ramp)
    end = 1 - 0.5 * speed / ramp * (1 - t) ** 2
    return torch.where(t <= ramp, start, torch.where(t <= 1 - ramp, middle, end))


def rotate(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Return a full circle around the z axis, on which the camera looks at the origin."""
    positions = _rotate_around_z(position.expand(len(t), 3), t)
    return Trajectory(positions, torch.zeros_like(positions), torch.ones_like(t))


def zoom(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Return a camera that stands still while its sensor narrows to a fifth, 0.032 to 0.0064."""
    # A narrower sensor with the same focal length is a longer focal length in pixels.
    positions = position.expand(len(t), 3)
    return Trajectory(positions, torch.zeros_like(positions), 1 / (1 - 0.8 * t))


def closeup(
    position: Float[Tensor, "3"], t: Float[Tensor, " frames"], lookup: float = 3
) -> Trajectory:
    """Return a path towards the origin, on which the camera sinks and looks up.

    Args:
        lookup: where the camera looks at the end: at a point on the ground behind the origin.
            Seen from below the camera's start, the point is `lookup` times as far as the origin.
    """
    # The camera covers 80 % of the way on the ground and sinks by 90 %, most of it early.
    easing_out = 1.5 * t - 0.5 * t**2
    approach = torch.stack((1 - 0.8 * t, 1 - 0.8 * t, 1 - 0.9 * easing_out), dim=-1)  # (frames, 3)

    # The target moves away on the ground, from the origin to the opposite side of the camera.
    ground = position * position.new_tensor([1, 1, 0])
    targets = t[:, None] * (1 - lookup) * ground
    return Trajectory(position * approach, targets, torch.ones_like(t))


def rotate_and_closeup(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Return a full circle that comes half as close as `closeup`, and goes back to its start."""
    there_and_back = 0.25 * (1 - torch.cos(2 * math.pi * t))  # from 0 to 0.5 and back
    positions, targets, focal_scale = closeup(position, there_and_back, lookup=1.5)
    return Trajectory(_rotate_around_z(positions, t), _rotate_around_z(targets, t), focal_scale)


def eyeroll(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Return a camera that stands still and looks along a circle of radius 1.5 on the ground."""
    start = position.new_tensor([1.5, 0, 0]).expand(len(t), 3)
    return Trajectory(position.expand(len(t), 3), _rotate_around_z(start, -t), torch.ones_like(t))


MOTIONS: dict[str, Callable[[Tensor, Tensor], Trajectory]] = {
    "rotate": rotate,
    "zoom": zoom,
    "closeup": closeup,
    "rotate_and_closeup": rotate_and_closeup,
    "eyeroll": eyeroll,
}


def camera_path(
    motion: str, position: Float[Tensor, "3"], frames: int, with_fade: bool
) -> tuple[Float[Tensor, "frames 4 4"], Float[Tensor, " frames"]]:
    """Return camera_to_world and the factor of the focal length for every frame of a motion.

    The published renderer does not fade `zoom`; here every motion can fade.

    Args:
        position: of the first input camera, in the world.

    Raises:
        ValueError: there is no such motion, or a camera is straight above the point it looks at.
    """
    if motion not in MOTIONS:
        raise ValueError(f"unknown camera motion {motion!r}; choose one of {', '.join(MOTIONS)}")

    # Frame i is at t = i / frames. The last frame is one step before t = 1, so that a full circle
    # can be played in a loop.
    t = torch.arange(frames).to(position) / frames
    positions, targets, focal_scale = MOTIONS[motion](position, fade(t) if with_fade else t)
    return look_at(positions, targets), focal_scale


def _rotate_around_z(
    points: Float[Tensor, "frames 3"], t: Float[Tensor, " frames"]
) -> Float[Tensor, "frames 3"]:
    """Return the points after t of a full turn around the z axis, anticlockwise from above."""
    cosine = torch.cos(2 * math.pi * t)
    sine = torch.sin(2 * math.pi * t)
    x, y, z = points.unbind(-1)
    return torch.stack((cosine * x - sine * y, sine * x + cosine * y, z), dim=-1)
