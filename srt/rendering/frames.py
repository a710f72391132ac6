"""A camera's way around a scene, frame by frame: the scene is encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from srt.common.errors import UserError
from srt.common.shapes import Float
from srt.config.schema import RenderConfig
from srt.data.batch import ViewConfig, make_full_view_batch, read_full_images
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import camera_rays, resize_intrinsics, rigid_inverse
from srt.geometry.rays import Rays
from srt.model.decoder import LayerKeysValues, Prediction
from srt.model.inference import decode_in_groups, training_precision
from srt.model.positional_encoding import to_float32
from srt.model.srt import SRT
from srt.rendering.trajectories import camera_path

WORTH_COMPILING = 100  # frames: the compiler takes ten seconds and saves a third of a frame's time


@dataclass(frozen=True)
class EncodedScene:
    """What rendering needs of a scene: the input views, and what rays attend to."""

    images: Float[Tensor, "v height width 3"]
    keys_values: list[LayerKeysValues]
    position: Float[Tensor, "3"]  # of the first input camera, in the world
    intrinsics: Float[Tensor, "3 3"]
    to_frame: Float[Tensor, "4 4"]  # from the world to the frame that the model sees
    near: float  # nothing is seen nearer to a camera, nor farther away
    far: float


class Frame(NamedTuple):
    """What a camera sees."""

    colours: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"] | None  # along the rays, of a model that knows it


class FrameDecoder:
    """Decodes frames of one size of a scene; on a GPU the launches of one are recorded once."""

    def __init__(
        self, model: SRT, keys_values: list[LayerKeysValues], rays_per_group: int | None
    ) -> None:
        self.model, self.keys_values, self.rays_per_group = model, keys_values, rays_per_group
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, rays: Rays) -> Prediction:
        """Returns what the rays see, in float32 at least."""
        if not rays.origins.is_cuda:
            return self.decode(rays)
        if self.graph is None:
            self.rays = rays._replace(
                origins=rays.origins.clone(), directions=rays.directions.clone()
            )
            self.decode(self.rays)  # which chooses algorithms: no graph can hold that
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.seen = self.decode(self.rays)
        self.rays.origins.copy_(rays.origins)
        self.rays.directions.copy_(rays.directions)
        self.graph.replay()
        depth = None if self.seen.depth is None else self.seen.depth.clone()
        return Prediction(self.seen.colours.clone(), depth)

    def decode(self, rays: Rays) -> Prediction:
        with training_precision(rays.origins.device):
            seen = decode_in_groups(self.model, self.keys_values, rays, self.rays_per_group)
        return seen._replace(colours=to_float32(seen.colours))


def check_scenes(scenes: Scenes, video: RenderConfig) -> None:
    """Raises UserError for a scene that is not there, or around which the camera cannot move."""
    for index in video.scenes:
        if index >= len(scenes):
            raise UserError(
                f"render.scenes: {index} is none of the {len(scenes)} scenes of this split, which"
                f" are numbered from 0 to {len(scenes) - 1}"
            )
        _, poses = scenes.cameras(torch.tensor([index]))
        position = poses[0, first_view(scenes, index), :3, 3]
        try:
            camera_path(video.motion, position, video.frames, video.fade)
        except ValueError as error:
            raise UserError(
                f"scene {index} ({scenes.info(index).name}), motion {video.motion}: {error}, or"
                " choose another scene or motion"
            ) from error


def first_view(scenes: Scenes, index: int) -> int:
    """Returns a scene's source view, or 0 where none is written down."""
    return scenes.info(index).source_view or 0


def frame_size(scenes: Scenes, height: int | None, width: int | None) -> tuple[int, int]:
    """Returns height and width; what is None is as the proportions or the size of the data."""
    if height is None:
        width = width or scenes.width
        return max(1, round(width * scenes.height / scenes.width)), width
    return height, width or max(1, round(height * scenes.width / scenes.height))


@torch.no_grad()
def encode_scene(model: SRT, scenes: Scenes, index: int, view_config: ViewConfig) -> EncodedScene:
    """Returns a scene seen from its first view and those that follow it."""
    first = first_view(scenes, index)
    views = [first, *(v for v in range(scenes.views) if v != first)][: view_config.input_views]
    scene, inputs = (torch.tensor(i, device=scenes.device) for i in ([index], [views]))
    batch = make_full_view_batch(scenes, scene, inputs, inputs[:, :0], view_config)
    with training_precision(scenes.device):
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = model.decoder.scene_keys_values(tokens)
    intrinsics, poses = (cameras[0, first] for cameras in scenes.cameras(scene))
    return EncodedScene(
        images=read_full_images(scenes, scene, inputs),
        keys_values=keys_values,
        position=poses[:3, 3],
        intrinsics=intrinsics,
        to_frame=rigid_inverse(poses) if view_config.canonical else torch.eye(4).to(poses),
        near=view_config.near,
        far=view_config.far,
    )


@torch.no_grad()
def render_frames(
    model: SRT,
    scene: EncodedScene,
    motion: str,
    frames: int,
    fade: bool,
    size: tuple[int, int],
    rays_per_group: int | None,
) -> Iterator[Frame]:
    """Yields what a camera sees that starts at the first input view and moves.

    Args:
        size: height and width of a frame.
    """
    if scene.position.is_cuda and frames >= WORTH_COMPILING:
        model.decoder.compile(dynamic=False)
    decode = FrameDecoder(model, scene.keys_values, rays_per_group)
    poses, focal_scale = camera_path(motion, scene.position, frames, fade)
    shape = scene.images.shape[1], scene.images.shape[2]
    for pose, scale in zip(scene.to_frame @ poses, focal_scale):
        intrinsics = resize_intrinsics(scene.intrinsics, shape, size)
        intrinsics[(0, 1), (0, 1)] *= scale
        origin, directions = camera_rays(intrinsics, pose, *size)
        directions = directions.view(1, -1, 3)
        rays = Rays(origin.expand_as(directions), directions, scene.near, scene.far)
        seen = decode(rays)
        depth = None if seen.depth is None else seen.depth.view(size)
        yield Frame(seen.colours.view(*size, 3), depth)
