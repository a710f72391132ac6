"""The frames of a camera that moves around a scene. The scene is encoded only once.

`start_from` encodes a scene, and `render_frames` yields one frame after the other. Both run in the
precision of training. v input views, h x w pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from srt.common.errors import UserError
from srt.common.shapes import Float
from srt.config.schema import RenderConfig
from srt.data.batch import ViewConfig, make_full_view_batch, read_full_images
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import Camera, rigid_inverse
from srt.model.scene import Scene, SceneFrame, View, encode_scene
from srt.model.srt import SRT
from srt.rendering.trajectories import camera_path

# From so many frames on, the decoder is compiled: that takes ten seconds and saves a third of each
# frame's time.
WORTH_COMPILING = 100


@dataclass(frozen=True)
class StartingPoint:
    """Where a camera's motion around a scene starts: the input views, and the first of them."""

    images: Float[Tensor, "v height width 3"]
    camera: Camera  # of the first input view
    scene: Scene


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


def start_from(
    model: SRT,
    scenes: Scenes,
    index: int,
    view_config: ViewConfig,
    rays_per_group: int | None = None,
) -> StartingPoint:
    """Return a scene that is encoded from its first input view and the views after it.

    Args:
        rays_per_group: the queries that are decoded at once; None: as many as fit.
    """
    # The first input view leads, and the other views follow in their order.
    first = first_input_view(scenes, index)
    ordered = [first] + [view for view in range(scenes.views) if view != first]
    number = torch.tensor([index], device=scenes.device)  # (1)
    inputs = torch.tensor([ordered[: view_config.input_views]], device=scenes.device)  # (1, v)

    # In the canonical frame, the first input camera is the origin and its axes are the axes.
    intrinsics, poses = scenes.cameras(number)
    pose = poses[0, first]  # (4, 4)
    frame = SceneFrame(
        near=view_config.near,
        far=view_config.far,
        world_to_frame=rigid_inverse(pose) if view_config.canonical else None,
    )

    # Encode the inputs. The batch has no target views.
    batch = make_full_view_batch(scenes, number, inputs, inputs[:, :0], view_config)
    scene = encode_scene(
        model,
        batch.images,
        batch.image_origins,
        batch.image_directions,
        frame,
        mixed_precision=True,
        queries_per_group=rays_per_group,
    )
    camera = Camera(intrinsics[0, first], pose, scenes.height, scenes.width)
    return StartingPoint(read_full_images(scenes, number, inputs), camera, scene)


def render_frames(
    start: StartingPoint, motion: str, frames: int, fade: bool, size: tuple[int, int]
) -> Iterator[View]:
    """Yield the frames of a camera that starts at the first input view and moves.

    Args:
        motion: one of `srt.rendering.trajectories.MOTIONS`.
        frames: their number.
        fade: start and stop softly.
        size: height and width of a frame.
    """
    # Many frames repay the compiler's time.
    camera = start.camera
    if camera.camera_to_world.is_cuda and frames >= WORTH_COMPILING:
        start.scene.model.decoder.compile(dynamic=False)

    # Each frame has its own camera: the motion gives its pose in the world and its focal length.
    position = camera.camera_to_world[:3, 3]
    poses, focal_scale = camera_path(motion, position, frames, fade)  # (frames, 4, 4)
    resized = camera.resize(*size)
    for pose, scale in zip(poses, focal_scale):
        intrinsics = resized.intrinsics.clone()
        intrinsics[(0, 1), (0, 1)] *= scale
        yield start.scene.render(Camera(intrinsics, pose, *size))
