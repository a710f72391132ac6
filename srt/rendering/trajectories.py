"""The published renderer's camera motions, in the z-up world, with t in [0, 1].

A path starts where the camera of a scene's first input view is, but without its roll and looking at
the origin (`eyeroll`: at a point on its circle).
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
    """Where a camera is at each time, what it looks at, and how far its focal length has grown."""

    positions: Float[Tensor, "frames 3"]
    targets: Float[Tensor, "frames 3"]
    focal_scale: Float[Tensor, " frames"]


def fade(t: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """Returns t with a soft start over the first fifth of the time and a soft end over the last."""
    ramp = 0.2
    speed = 1 / (1 - ramp)
    start = 0.5 * speed / ramp * t**2
    middle = speed * (t - 0.5 * ramp)
    end = 1 - 0.5 * speed / ramp * (1 - t) ** 2
    return torch.where(t <= ramp, start, torch.where(t <= 1 - ramp, middle, end))


def rotate(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Returns a path once around the z axis, looking at the origin."""
    positions = _turn(position.expand(len(t), 3), t)
    return Trajectory(positions, torch.zeros_like(positions), torch.ones_like(t))


def zoom(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Returns a standing camera whose sensor narrows to a fifth, 0.032 to 0.0064."""
    positions = position.expand(len(t), 3)
    return Trajectory(positions, torch.zeros_like(positions), 1 / (1 - 0.8 * t))


def closeup(
    position: Float[Tensor, "3"], t: Float[Tensor, " frames"], lookup: float = 3
) -> Trajectory:
    """Returns a path towards the origin that sinks and looks up on the way.

    Args:
        lookup: where on the ground the camera looks at last: straight ahead, at so many times its
            first distance from the origin.
    """
    easing_out = 1.5 * t - 0.5 * t**2
    approach = torch.stack((1 - 0.8 * t, 1 - 0.8 * t, 1 - 0.9 * easing_out), dim=-1)
    ground = position * position.new_tensor([1, 1, 0])
    return Trajectory(position * approach, t[:, None] * (1 - lookup) * ground, torch.ones_like(t))


def rotate_and_closeup(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Returns a path once around the z axis that comes half as close as `closeup` and goes back."""
    there_and_back = 0.25 * (1 - torch.cos(2 * math.pi * t))
    positions, targets, focal_scale = closeup(position, there_and_back, lookup=1.5)
    return Trajectory(_turn(positions, t), _turn(targets, t), focal_scale)


def eyeroll(position: Float[Tensor, "3"], t: Float[Tensor, " frames"]) -> Trajectory:
    """Returns a standing camera that looks along a circle of radius 1.5 on the ground."""
    start = position.new_tensor([1.5, 0, 0]).expand(len(t), 3)
    return Trajectory(position.expand(len(t), 3), _turn(start, -t), torch.ones_like(t))


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
    """Returns camera_to_world and the factor of the focal length for every frame of a motion.

    Frame i is at t = i / frames, so a motion that goes around can be played in a loop. Published:
    render.py of stelzner/srt, which does not fade `zoom`; here every motion fades.

    Raises ValueError for an unknown motion, and for a camera straight above the point it looks at.
    """
    if motion not in MOTIONS:
        raise ValueError(f"unknown camera motion {motion!r}; known are {', '.join(MOTIONS)}")
    t = torch.arange(frames).to(position) / frames
    positions, targets, focal_scale = MOTIONS[motion](position, fade(t) if with_fade else t)
    return look_at(positions, targets), focal_scale


def _turn(
    points: Float[Tensor, "frames 3"], t: Float[Tensor, " frames"]
) -> Float[Tensor, "frames 3"]:
    """Returns the points turned around the z axis, anticlockwise, by t of a full turn."""
    cosine, sine = torch.cos(2 * math.pi * t), torch.sin(2 * math.pi * t)
    x, y, z = points.unbind(-1)
    return torch.stack((cosine * x - sine * y, sine * x + cosine * y, z), dim=-1)
