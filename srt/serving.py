"""A trained model as MLflow loads it: images and their cameras in, views of other cameras out.

    model = mlflow.pyfunc.load_model("models:/paper-nmr_srt@best")
    views = model.predict(inputs)

`inputs` is a dictionary of arrays. A scene has v input views; t views are rendered:

    images                   uint8 [v, height, width, 3]
    intrinsics               [v, 3, 3] in pixels    camera_to_world         [v, 4, 4]
    target_intrinsics        [t, 3, 3]              target_camera_to_world  [t, 4, 4]

The views are as large as the input images. A model in the canonical frame takes the first input
camera as its origin, so the world's frame does not matter to it. srt/geometry/cameras.py has the
conventions of cameras.

Registered models name this module as their loader, so it must stay where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srt.common.devices import best_device
from srt.common.shapes import Float, UInt8
from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import camera_rays, rigid_inverse, stride_intrinsics
from srt.geometry.rays import Rays
from srt.model.inference import decode_in_groups
from srt.model.srt import SRT
from srt.model.weights import load_model
from srt.visualization.pictures import to_uint8


class ViewRenderer:
    """Renders a scene, which the model sees in images with known cameras, from other cameras."""

    def __init__(self, model: SRT, view_config: ViewConfig, rays_per_group: int) -> None:
        self.model = model
        self.view_config = view_config
        self.rays_per_group = rays_per_group

    def predict(
        self, inputs: Mapping[str, np.ndarray], params: dict[str, Any] | None = None
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """Return the views of the target cameras, as bytes.

        MLflow calls this, and has checked before that the inputs are like the model's example.

        Args:
            params: MLflow's, not used.
        """
        # Images stay bytes; cameras may come as float64, but models compute in float32.
        device = next(self.model.parameters()).device
        tensors = {name: torch.as_tensor(value).to(device) for name, value in inputs.items()}
        images = tensors.pop("images")
        cameras = {name: value.float() for name, value in tensors.items()}
        return to_uint8(self.render(images, **cameras))

    @torch.no_grad()
    def render(
        self,
        images: UInt8[Tensor, "v h w 3"],
        intrinsics: Float[Tensor, "v 3 3"],
        camera_to_world: Float[Tensor, "v 4 4"],
        target_intrinsics: Float[Tensor, "t 3 3"],
        target_camera_to_world: Float[Tensor, "t 4 4"],
    ) -> Float[Tensor, "t h w 3"]:
        """Return the views of the target cameras, as colours of 0 to 1."""
        # In the canonical frame, the first input camera is the origin and its axes are the axes.
        if self.view_config.canonical:
            world_to_first = rigid_inverse(camera_to_world[:1])  # (1, 4, 4)
            camera_to_world = world_to_first @ camera_to_world
            target_camera_to_world = world_to_first @ target_camera_to_world

        # The model sees every n-th pixel of the input images, as in training.
        stride = self.view_config.input_stride
        small = images[None, :, stride // 2 :: stride, stride // 2 :: stride].float() / 255
        image_origins, image_directions = camera_rays(
            stride_intrinsics(intrinsics, stride), camera_to_world, *small.shape[2:4]
        )  # (v, 3), (v, h/n, w/n, 3)
        tokens = self.model.encode(small, image_origins[None], image_directions[None])

        # One ray for each pixel of the target views. They are one row of rays of one scene.
        height, width = images.shape[1:3]
        origins, directions = camera_rays(target_intrinsics, target_camera_to_world, height, width)
        origins = origins[:, None, None].expand_as(directions).reshape(1, -1, 3)  # (1, t h w, 3)
        rays = Rays(origins, directions.view(1, -1, 3), self.view_config.near, self.view_config.far)

        # Decode as many rays at once as in training, and give the colours the shape of views.
        keys_values = self.model.decoder.scene_keys_values(tokens)
        prediction = decode_in_groups(self.model, keys_values, rays, self.rays_per_group)
        return prediction.colours.view(directions.shape)  # (t, h, w, 3)


def _load_pyfunc(path: str) -> ViewRenderer:
    """Return the renderer of a file of weights. MLflow calls this function by its name."""
    # The file's header has the configuration of the training, so it alone is enough.
    model, settings = load_model(Path(path), best_device())
    dataset = settings["dataset"]
    view_config = ViewConfig(
        canonical=settings["model"]["frame"] == "canonical",
        input_views=dataset["input_views"],
        input_stride=dataset["input_stride"],
        all_targets=dataset["targets"] == "all",
        near=dataset["near"],
        far=dataset["far"],
    )
    return ViewRenderer(model, view_config, settings["train"]["rays_per_group"])


def make_example(
    scenes: Scenes, input_views: int
) -> tuple[dict[str, np.ndarray], UInt8[np.ndarray, "t h w 3"]]:
    """Return an example of inputs, from the first scene, and the true view that belongs to it.

    MLflow keeps the example with the model, and learns from it what a model's inputs are.
    """
    # The first views are the input, and the next one is the target. If there is no other view, the
    # target is the first input view.
    scene = torch.zeros(1, dtype=torch.int64)
    target = input_views if scenes.views > input_views else 0
    views = torch.tensor([[*range(input_views), target]])  # (1, v + 1)

    # Read the images and the cameras of these views as arrays.
    no_pixels = torch.zeros((1, 0), dtype=torch.int64)
    images, _ = scenes.gather(scene, views, no_pixels, stride=1)  # (1, v + 1, h, w, 3)
    pixels = np.asarray(images[0].cpu())
    intrinsics, poses = (
        np.asarray(cameras[0, views[0]].double().cpu()) for cameras in scenes.cameras(scene)
    )

    # The target's image is what the model should return.
    inputs = {
        "images": pixels[:-1],
        "intrinsics": intrinsics[:-1],
        "camera_to_world": poses[:-1],
        "target_intrinsics": intrinsics[-1:],
        "target_camera_to_world": poses[-1:],
    }
    return inputs, pixels[-1:]
