"""A camera's way around a scene, frame by frame: the scene is encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from srt.data.sampling import Presentation, whole_views
from srt.data.scenes import Scenes
from srt.evaluation import whole_images
from srt.geometry import camera_rays, resize_intrinsics, rigid_inverse
from srt.models import SRT, decode_in_groups
from srt.models.attention import KeysValues
from srt.motions import camera_path
from srt.rays import Rays
from srt.shapes import Float


@dataclass(frozen=True)
class EncodedScene:
    """What rendering needs of a scene: the input views, and what rays attend to."""

    images: Float[Tensor, "v height width 3"]
    keys_values: list[KeysValues]
    position: Float[Tensor, "3"]  # of the first input camera, in the world
    intrinsics: Float[Tensor, "3 3"]
    to_frame: Float[Tensor, "4 4"]  # from the world to the frame that the model sees
    near: float  # nothing is seen nearer to a camera, nor farther away
    far: float


class Frame(NamedTuple):
    """What a camera sees."""

    colours: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"] | None  # along the rays, of a model that knows it


@torch.no_grad()
def encode_scene(model: SRT, scenes: Scenes, index: int, shown: Presentation) -> EncodedScene:
    """Returns a scene seen from its source view, or from its first where none is written down."""
    first = scenes.info(index).source_view or 0
    views = [first, *(v for v in range(scenes.views) if v != first)][: shown.input_views]
    scene, inputs = (torch.tensor(i, device=scenes.device) for i in ([index], [views]))
    batch = whole_views(scenes, scene, inputs, inputs[:, :0], shown)
    tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
    intrinsics, poses = (cameras[0, first] for cameras in scenes.cameras(scene))
    return EncodedScene(
        images=whole_images(scenes, scene, inputs),
        keys_values=model.decoder.keys_values(tokens),
        position=poses[:3, 3],
        intrinsics=intrinsics,
        to_frame=rigid_inverse(poses) if shown.canonical else torch.eye(4).to(poses),
        near=shown.near,
        far=shown.far,
    )


@torch.no_grad()
def render_frames(
    model: SRT,
    scene: EncodedScene,
    motion: str,
    frames: int,
    fade: bool,
    size: tuple[int, int],
    rays_per_group: int,
) -> Iterator[Frame]:
    """Yields what a camera sees that starts at the first input view and moves.

    Args:
        size: height and width of a frame.
    """
    poses, focal_scale = camera_path(motion, scene.position, frames, fade)
    shape = scene.images.shape[1], scene.images.shape[2]
    for pose, scale in zip(scene.to_frame @ poses, focal_scale):
        intrinsics = resize_intrinsics(scene.intrinsics, shape, size)
        intrinsics[(0, 1), (0, 1)] *= scale
        origin, directions = camera_rays(intrinsics, pose, *size)
        directions = directions.view(1, -1, 3)
        rays = Rays(origin.expand_as(directions), directions, scene.near, scene.far)
        seen = decode_in_groups(model, scene.keys_values, rays, rays_per_group)
        depth = None if seen.depth is None else seen.depth.view(size)
        yield Frame(seen.colours.view(*size, 3), depth)


def render_path(
    model: SRT,
    scene: EncodedScene,
    motion: str,
    frames: int,
    fade: bool,
    size: tuple[int, int],
    rays_per_group: int,
) -> Iterator[Float[Tensor, "h w 3"]]:
    """Yields the colours of `render_frames`."""
    seen = render_frames(model, scene, motion, frames, fade, size, rays_per_group)
    return (frame.colours for frame in seen)
