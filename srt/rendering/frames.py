"""The frames of a camera that moves around a scene. The scene is encoded only once.

`encode_scene` returns what rays attend to, and `render_frames` yields one frame after the other.
Both run in the precision of training. v input views, h x w pixels of a frame.
"""

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

# From so many frames on, the decoder is compiled: that takes ten seconds and saves a third of each
# frame's time.
WORTH_COMPILING = 100


@dataclass(frozen=True)
class EncodedScene:
    """What rendering needs of a scene: the input views, and what rays attend to."""

    images: Float[Tensor, "v height width 3"]
    keys_values: list[LayerKeysValues]
    position: Float[Tensor, "3"]  # of the first input camera, in the world
    intrinsics: Float[Tensor, "3 3"]  # of the first input camera
    to_frame: Float[Tensor, "4 4"]  # from the world to the coordinates that the model uses
    near: float  # the scene lies between these distances from a camera
    far: float


class Frame(NamedTuple):
    """A rendered frame."""

    colours: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"] | None  # along the rays; None: the model predicts no depth


class FrameDecoder:
    """Decodes frames of one size. On a GPU the first frame is recorded, and later ones replay it.

    A frame of a small model spends its time on the launches of kernels. As a CUDA graph, they are
    one launch.
    """

    def __init__(
        self, model: SRT, keys_values: list[LayerKeysValues], rays_per_group: int | None
    ) -> None:
        self.model = model
        self.keys_values = keys_values
        self.rays_per_group = rays_per_group
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, rays: Rays) -> Prediction:
        """Return colours and depth along the rays, in float32 or more precise."""
        if not rays.origins.is_cuda:
            return self._decode(rays)
        if self.graph is None:
            self._record(rays)
        assert self.graph is not None

        # The graph reads and writes fixed addresses: copy the rays there and the results away.
        self.rays.origins.copy_(rays.origins)
        self.rays.directions.copy_(rays.directions)
        self.graph.replay()
        depth = None if self.prediction.depth is None else self.prediction.depth.clone()
        return Prediction(self.prediction.colours.clone(), depth)

    def _record(self, rays: Rays) -> None:
        """Record the decoding of as many rays in a CUDA graph."""
        self.rays = rays._replace(origins=rays.origins.clone(), directions=rays.directions.clone())

        # The first call compiles kernels and chooses algorithms, which no graph can hold.
        self._decode(self.rays)

        # In this mode, other threads may call CUDA during the recording.
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.prediction = self._decode(self.rays)

    def _decode(self, rays: Rays) -> Prediction:
        with training_precision(rays.origins.device):
            prediction = decode_in_groups(self.model, self.keys_values, rays, self.rays_per_group)
        return prediction._replace(colours=to_float32(prediction.colours))


def check_scenes(scenes: Scenes, config: RenderConfig) -> None:
    """Check that all scenes of the configuration exist and that a camera can move around them.

    Raises:
        UserError: the split has no such scene, or the motion fails at the scene's first camera.
    """
    for index in config.scenes:
        if index >= len(scenes):
            raise UserError(
                f"render.scenes: {index} is none of the {len(scenes)} scenes of this split, which"
                f" are numbered from 0 to {len(scenes) - 1}"
            )

        # Computing the whole path shows whether a camera of it has no defined roll.
        _, poses = scenes.cameras(torch.tensor([index]))  # (1, views, 4, 4)
        position = poses[0, first_input_view(scenes, index), :3, 3]
        try:
            camera_path(config.motion, position, config.frames, config.fade)
        except ValueError as error:
            raise UserError(
                f"scene {index} ({scenes.info(index).name}), motion {config.motion}: {error}, or"
                " choose another scene or motion"
            ) from error


def first_input_view(scenes: Scenes, index: int) -> int:
    """Return a scene's source view, or 0 if the dataset names none."""
    return scenes.info(index).source_view or 0


def frame_size(scenes: Scenes, height: int | None, width: int | None) -> tuple[int, int]:
    """Return the height and width of a frame.

    If one of them is None, it follows from the other and the proportions of the dataset's views. If
    both are None, a frame has the size of a view.
    """
    if height is None:
        width = width or scenes.width
        return max(1, round(width * scenes.height / scenes.width)), width
    return height, width or max(1, round(height * scenes.width / scenes.height))


@torch.no_grad()
def encode_scene(model: SRT, scenes: Scenes, index: int, view_config: ViewConfig) -> EncodedScene:
    """Return a scene that is encoded from its first input view and the views after it."""
    # The first input view leads, and the other views follow in their order.
    first = first_input_view(scenes, index)
    ordered = [first] + [view for view in range(scenes.views) if view != first]
    scene = torch.tensor([index], device=scenes.device)  # (1)
    inputs = torch.tensor([ordered[: view_config.input_views]], device=scenes.device)  # (1, v)

    # Encode the inputs. The batch has no target views.
    batch = make_full_view_batch(scenes, scene, inputs, inputs[:, :0], view_config)
    with training_precision(scenes.device):
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = model.decoder.scene_keys_values(tokens)

    # In the canonical frame, the first input camera is the origin and its axes are the axes.
    all_intrinsics, all_poses = scenes.cameras(scene)
    pose = all_poses[0, first]  # (4, 4)
    return EncodedScene(
        images=read_full_images(scenes, scene, inputs),
        keys_values=keys_values,
        position=pose[:3, 3],
        intrinsics=all_intrinsics[0, first],
        to_frame=rigid_inverse(pose) if view_config.canonical else torch.eye(4).to(pose),
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
    """Yield the frames of a camera that starts at the first input view and moves.

    Args:
        motion: one of `srt.rendering.trajectories.MOTIONS`.
        frames: their number.
        fade: start and stop softly.
        size: height and width of a frame.
        rays_per_group: the queries that are decoded at once; None: as many as fit.
    """
    # Many frames repay the compiler's time.
    if scene.position.is_cuda and frames >= WORTH_COMPILING:
        model.decoder.compile(dynamic=False)
    decode = FrameDecoder(model, scene.keys_values, rays_per_group)

    # Each frame has its own camera: the motion gives its pose in the world and its focal length.
    poses, focal_scale = camera_path(motion, scene.position, frames, fade)  # (frames, 4, 4)
    view_size = scene.images.shape[1], scene.images.shape[2]
    for pose, scale in zip(scene.to_frame @ poses, focal_scale):
        intrinsics = resize_intrinsics(scene.intrinsics, view_size, size)
        intrinsics[(0, 1), (0, 1)] *= scale

        # One ray for each pixel, in the coordinates that the model uses.
        origin, directions = camera_rays(intrinsics, pose, *size)  # (3), (h, w, 3)
        directions = directions.view(1, -1, 3)  # (1, h w, 3)
        rays = Rays(origin.expand_as(directions), directions, scene.near, scene.far)
        prediction = decode(rays)

        depth = None if prediction.depth is None else prediction.depth.view(size)
        yield Frame(prediction.colours.view(*size, 3), depth)
