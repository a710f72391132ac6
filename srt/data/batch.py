"""A batch: the pixels that were sampled, and the rays that they lie on.

b scenes of this process, v input views, r rays of a scene.
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
    """Posed input images and the target rays with their colours, in one frame for each scene."""

    images: Float[Tensor, "b v h w 3"]
    image_origins: Float[Tensor, "b v 3"]
    image_directions: Float[Tensor, "b v h w 3"]
    origins: Float[Tensor, "b r 3"]
    directions: Float[Tensor, "b r 3"]
    colours: Float[Tensor, "b r 3"]
    near: float  # along the target rays
    far: float
    uniforms: (
        Float[Tensor, "b r uniforms"] | None
    )  # for a model that samples along rays, in training

    @property
    def rays(self) -> Rays:
        """The target rays, as a model is asked about them."""
        return Rays(self.origins, self.directions, self.near, self.far, self.uniforms)

    def tensors(self) -> dict[str, Tensor]:
        """Returns what is on the device, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def clone(self) -> Batch:
        """Returns a batch of the same values in memory of its own."""
        copies: Any = {name: value.clone() for name, value in self.tensors().items()}
        return dataclasses.replace(self, **copies)

    def split(self, size: int) -> Iterator[Batch]:
        """Yields `size` scenes at a time, and the rest."""
        for start in range(0, len(self.images), size):
            end = start + size
            parts: Any = {name: value[start:end] for name, value in self.tensors().items()}
            yield dataclasses.replace(self, **parts)


@dataclass(frozen=True)
class ViewConfig:
    """How a dataset's scenes are shown to a model."""

    canonical: bool  # in the frame of the first input camera, which is at 0 and looks along z
    input_views: int
    input_stride: int  # input images are every so many-th row and column
    all_targets: bool  # the input views are targets too
    near: float  # nothing is seen nearer to a camera, nor farther away
    far: float


def make_view_config(experiment: Experiment) -> ViewConfig:
    """Returns how an experiment shows its dataset to its model."""
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
    """What a batch is made of: scenes, their input views, and a view and place for each ray."""

    scene: Int[Tensor, "b"]
    inputs: Int[Tensor, "b v"]
    view: Int[Tensor, "b r"]
    pixel: Int[Tensor, "b r"]  # in rows x columns
    uniforms: Float[Tensor, "b r uniforms"] | None


def make_batch(
    scenes: Scenes, indices: BatchIndices, view_config: ViewConfig, fused: bool = False
) -> Batch:
    """Returns the batch of a plan; `fused` as `assemble_batch` has it."""
    place = indices.view * (scenes.height * scenes.width) + indices.pixel
    pixels = scenes.gather(indices.scene, indices.inputs, place, view_config.input_stride)
    return assemble_batch(
        scenes, indices, scenes.cameras(indices.scene), view_config, *pixels, fused=fused
    )


def assemble_batch(
    scenes: Scenes,
    indices: BatchIndices,
    cameras: tuple[Float[Tensor, "b views 3 3"], Float[Tensor, "b views 4 4"]],
    view_config: ViewConfig,
    images: UInt8[Tensor, "b v h w 3"],
    colours: UInt8[Tensor, "b r 3"],
    *,
    fused: bool,
) -> Batch:
    """Returns the batch of a plan whose pixels have been gathered; its rays are computed here.

    Args:
        fused: on a GPU by kernels compiled for these sizes: for batches that are all alike.
    """
    compute = (
        compile_cached(compute_batch_rays)
        if fused and scenes.device.type == "cuda"
        else compute_batch_rays
    )
    place = indices.inputs, indices.view, indices.pixel
    tensors: dict[str, Any] = compute(*cameras, *place, scenes.width, images, colours, view_config)
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
    """Returns a batch's tensors, but for the draws, by the names of its fields."""
    each = torch.arange(len(inputs), device=inputs.device)[:, None]
    if view_config.canonical:
        poses = rigid_inverse(poses[each, inputs[:, :1]]) @ poses
    image_origins, image_directions = camera_rays(
        stride_intrinsics(intrinsics[each, inputs], view_config.input_stride),
        poses[each, inputs],
        *images.shape[2:4],
    )
    cameras = intrinsics[each, view], poses[each, view]
    return {
        "images": images.float() / 255,
        "image_origins": image_origins,
        "image_directions": image_directions,
        "origins": cameras[1][..., :3, 3],
        "directions": pixel_directions(*cameras, pixel // width, pixel % width),
        "colours": colours.float() / 255,
    }


@functools.cache
def compile_cached(function: Any) -> Any:
    """Returns a function whose two hundred launches, each shorter than a launch, become a few."""
    return torch.compile(function, dynamic=False)


def make_full_view_batch(
    scenes: Scenes,
    scene: Int[Tensor, "b"],
    inputs: Int[Tensor, "b v"],
    targets: Int[Tensor, "b t"],
    view_config: ViewConfig,
) -> Batch:
    """Returns the batch whose rays are all pixels of the target views, view after view."""
    size = scenes.height * scenes.width
    pixel = torch.arange(size, device=scenes.device).repeat(targets.shape[1])
    view = targets.repeat_interleave(size, dim=1)
    return make_batch(
        scenes, BatchIndices(scene, inputs, view, pixel.expand_as(view), None), view_config
    )


def read_full_images(
    scenes: Scenes, scene: Int[Tensor, "1"], views: Int[Tensor, "1 v"]
) -> Float[Tensor, "v h w 3"]:
    """Returns views at full size, which a model may see strided; values in [0, 1]."""
    nothing = views.new_zeros(1, 0)
    return scenes.gather(scene, views, nothing, 1)[0][0].float() / 255
