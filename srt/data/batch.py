"""A batch: the images that a model sees of some scenes, and the rays whose colours it predicts.

Every scene of a batch has a few input views. The model gets each of them as a whole image, with the
camera's position and a ray through each pixel. It then predicts the colours of the target rays.
Each target ray goes through one pixel of one view, and the colour of that pixel is the truth.

`BatchIndices` says by numbers what a batch consists of; srt/data/sampling.py draws these numbers.
`make_batch` reads the pixels and computes the rays. Colours are in [0, 1]; rays are in the frame of
srt/geometry/cameras.py, either the world's or that of the scene's first input camera.

Shapes: b scenes of this process, v input views of a scene, r target rays of a scene, h x w pixels
of an input image; `views` is the number of all views of a scene.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srt.common.shapes import Float, Int, UInt8
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import camera_rays, pixel_directions, rigid_inverse, stride_intrinsics
from srt.geometry.rays import Rays


@dataclass(frozen=True)
class Batch:
    """Input images with their cameras, and target rays with their colours.

    All positions and directions of a scene are in one frame.
    """

    # What the encoder sees: whole images, where each camera is, and a unit ray for each pixel.
    images: Float[Tensor, "b v h w 3"]
    image_origins: Float[Tensor, "b v 3"]
    image_directions: Float[Tensor, "b v h w 3"]

    # What the decoder predicts: the colours of rays from `origins` along the unit `directions`.
    origins: Float[Tensor, "b r 3"]
    directions: Float[Tensor, "b r 3"]
    colours: Float[Tensor, "b r 3"]

    # What a model needs that samples points along the target rays: the distances between which
    # something is seen, and in training random numbers in [0, 1) for each ray.
    near: float
    far: float
    uniforms: Float[Tensor, "b r uniforms"] | None

    @property
    def rays(self) -> Rays:
        """The target rays in the form that the decoder takes."""
        return Rays(self.origins, self.directions, self.near, self.far, self.uniforms)

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields that are tensors, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def clone(self) -> Batch:
        """Return a copy of the batch that shares no memory with it."""
        copies: Any = {name: value.clone() for name, value in self.tensors().items()}
        return dataclasses.replace(self, **copies)

    def split(self, size: int) -> Iterator[Batch]:
        """Yield batches of `size` scenes each; the last one has the remaining scenes."""
        for start in range(0, len(self.images), size):
            end = start + size
            slices: Any = {name: value[start:end] for name, value in self.tensors().items()}
            yield dataclasses.replace(self, **slices)


@dataclass(frozen=True)
class ViewConfig:
    """How a model sees the views of a dataset's scenes."""

    # Rays are in the frame of the first input camera, which is at 0 and looks along z; or else in
    # the world's.
    canonical: bool

    # How many views the model sees, and how many of their pixels; and which views it predicts.
    input_views: int
    input_stride: int  # an input image has every n-th row and column of its view
    all_targets: bool  # target rays go through the input views too

    # The distances from a camera between which everything is that can be seen.
    near: float
    far: float


def make_view_config(experiment: Experiment) -> ViewConfig:
    """Return how the model of an experiment sees the scenes of its dataset."""
    return ViewConfig(
        canonical=experiment.model.frame == "canonical",
        input_views=experiment.dataset.input_views,
        input_stride=experiment.dataset.input_stride,
        all_targets=experiment.dataset.targets == "all",
        near=experiment.dataset.near,
        far=experiment.dataset.far,
    )


@dataclass(frozen=True)
class BatchIndices:
    """Which scenes, views and pixels a batch consists of."""

    # The scenes' numbers in the dataset, and the numbers of their input views.
    scene: Int[Tensor, "b"]
    inputs: Int[Tensor, "b v"]

    # The view that each target ray goes through, and the pixel of that view. Pixels are counted
    # row by row: row * width + column.
    view: Int[Tensor, "b r"]
    pixel: Int[Tensor, "b r"]
    uniforms: Float[Tensor, "b r uniforms"] | None  # becomes Batch.uniforms

    def pixel_index(self, pixels_per_view: int) -> Int[Tensor, "b r"]:
        """Return the target pixels' positions among all pixels of their scene, view after view."""
        return self.view * pixels_per_view + self.pixel


def make_batch(
    scenes: Scenes, indices: BatchIndices, view_config: ViewConfig, compiled: bool = False
) -> Batch:
    """Read the pixels that `indices` names and return the batch that they make.

    Args:
        compiled: on a GPU, compute the rays by kernels that are compiled for these sizes. This pays
            where all batches have the same sizes.
    """
    # Read the input images and the colours of the target pixels, both as bytes.
    pixel_index = indices.pixel_index(scenes.pixels_per_view)  # (b, r)
    images, colours = scenes.gather(
        indices.scene, indices.inputs, pixel_index, view_config.input_stride
    )  # (b, v, h, w, 3), (b, r, 3)

    # The cameras of these scenes turn pixels into rays.
    cameras = scenes.cameras(indices.scene)
    return assemble_batch(scenes, indices, cameras, view_config, images, colours, compiled=compiled)


def assemble_batch(
    scenes: Scenes,
    indices: BatchIndices,
    cameras: tuple[Float[Tensor, "b views 3 3"], Float[Tensor, "b views 4 4"]],
    view_config: ViewConfig,
    images: UInt8[Tensor, "b v h w 3"],
    colours: UInt8[Tensor, "b r 3"],
    *,
    compiled: bool,
) -> Batch:
    """Return the batch of `indices` from pixels that have been read; compute its rays here.

    Args:
        cameras: intrinsics and camera_to_world of all views of the batch's scenes.
        compiled: on a GPU, compute the rays by kernels that are compiled for these sizes.
    """
    # Evaluations have batches of many sizes, for which compiling takes longer than it saves.
    compute = compute_batch_rays
    if compiled and scenes.device.type == "cuda":
        compute = compile_cached(compute_batch_rays)
    tensors: dict[str, Any] = compute(
        *cameras,
        indices.inputs,
        indices.view,
        indices.pixel,
        scenes.width,
        images,
        colours,
        view_config,
    )
    return Batch(**tensors, near=view_config.near, far=view_config.far, uniforms=indices.uniforms)


def compute_batch_rays(
    intrinsics: Float[Tensor, "b views 3 3"],
    poses: Float[Tensor, "b views 4 4"],
    inputs: Int[Tensor, "b v"],
    view: Int[Tensor, "b r"],
    pixel: Int[Tensor, "b r"],
    width: int,
    images: UInt8[Tensor, "b v h w 3"],
    colours: UInt8[Tensor, "b r 3"],
    view_config: ViewConfig,
) -> dict[str, Tensor]:
    """Return a batch's images, colours and rays, by the names of the fields of `Batch`.

    Args:
        intrinsics, poses: of all views of each scene; a pose is camera_to_world.
        width: of a full-size view, in pixels.
    """
    slots = torch.arange(len(inputs), device=inputs.device)
    slot = slots[:, None]  # (b, 1), beside (b, v) or (b, r)

    # In the canonical frame, the first input camera is the origin and its axes are the axes.
    if view_config.canonical:
        poses = rigid_inverse(poses[slot, inputs[:, :1]]) @ poses  # (b, views, 4, 4)

    # One ray for each pixel of the input images, which a stride makes smaller than the views.
    image_origins, image_directions = camera_rays(
        stride_intrinsics(intrinsics[slot, inputs], view_config.input_stride),
        poses[slot, inputs],
        *images.shape[2:4],
    )  # (b, v, 3), (b, v, h, w, 3)

    # One ray for each target pixel, from the camera of its view.
    ray_intrinsics = intrinsics[slot, view]  # (b, r, 3, 3)
    ray_poses = poses[slot, view]  # (b, r, 4, 4)
    return {
        "images": images.float() / 255,
        "image_origins": image_origins,
        "image_directions": image_directions,
        "origins": ray_poses[..., :3, 3],
        "directions": pixel_directions(ray_intrinsics, ray_poses, pixel // width, pixel % width),
        "colours": colours.float() / 255,
    }


@functools.cache
def compile_cached(function: Any) -> Any:
    """Return the compiled function; the same object at every call.

    On a GPU, making a batch launches about two hundred kernels, and each of them runs for a shorter
    time than its launch takes. Compiled, they become a few kernels.
    """
    return torch.compile(function, dynamic=False)


def make_full_view_batch(
    scenes: Scenes,
    scene: Int[Tensor, "b"],
    inputs: Int[Tensor, "b v"],
    targets: Int[Tensor, "b t"],
    view_config: ViewConfig,
) -> Batch:
    """Return the batch whose target rays go through all pixels of the t target views of each scene.

    The rays are in the order of the views and, within a view, row by row.
    """
    # Number the pixels of each target view, and repeat the view for each of them.
    size = scenes.pixels_per_view
    pixel = torch.arange(size, device=scenes.device).repeat(targets.shape[1])  # (r,)
    view = targets.repeat_interleave(size, dim=1)  # (b, r)

    # Nothing is random in an evaluation, so there are no uniforms.
    indices = BatchIndices(scene, inputs, view, pixel.expand_as(view), uniforms=None)
    return make_batch(scenes, indices, view_config)


def read_full_images(
    scenes: Scenes, scene: Int[Tensor, "1"], views: Int[Tensor, "1 v"]
) -> Float[Tensor, "v h w 3"]:
    """Return views of one scene at full size, with values in [0, 1].

    A model may see the same views smaller, by `ViewConfig.input_stride`.
    """
    images, _ = scenes.gather(scene, views, views[:, :0], stride=1)  # (1, v, h, w, 3)
    return images[0].float() / 255
