"""A trained model as MLflow loads it: posed images and cameras in, views out.

    model = mlflow.pyfunc.load_model("models:/paper-nmr_srt@best")
    views = model.predict(inputs)

`inputs` is a dictionary of arrays; v input views of a scene, t views to render:

    images                   uint8 [v, height, width, 3]
    intrinsics               [v, 3, 3] in pixels    camera_to_world         [v, 4, 4]
    target_intrinsics        [t, 3, 3]              target_camera_to_world  [t, 4, 4]

The first input view gives the frame of models that see one; rendered views are as large as the
images. Conventions: `srt.geometry.cameras`.
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
    """Renders what cameras see of the scene that posed images show."""

    def __init__(self, model: SRT, view_config: ViewConfig, rays_per_group: int) -> None:
        self.model, self.view_config, self.rays_per_group = model, view_config, rays_per_group

    def predict(
        self, inputs: Mapping[str, np.ndarray], params: dict[str, Any] | None = None
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """Returns the target cameras' views; MLflow has checked the inputs against the example."""
        device = next(self.model.parameters()).device
        tensors = {name: torch.as_tensor(value).to(device) for name, value in inputs.items()}
        images = tensors.pop("images")
        return to_uint8(self.render(images, **{k: v.float() for k, v in tensors.items()}))

    @torch.no_grad()
    def render(
        self,
        images: UInt8[Tensor, "v h w 3"],
        intrinsics: Float[Tensor, "v 3 3"],
        camera_to_world: Float[Tensor, "v 4 4"],
        target_intrinsics: Float[Tensor, "t 3 3"],
        target_camera_to_world: Float[Tensor, "t 4 4"],
    ) -> Float[Tensor, "t h w 3"]:
        """Returns the target cameras' views as colours of 0 to 1."""
        stride, (height, width) = self.view_config.input_stride, images.shape[1:3]
        if self.view_config.canonical:
            to_frame = rigid_inverse(camera_to_world[:1])
            camera_to_world = to_frame @ camera_to_world
            target_camera_to_world = to_frame @ target_camera_to_world
        small = images[None, :, stride // 2 :: stride, stride // 2 :: stride].float() / 255
        strided = stride_intrinsics(intrinsics, stride)
        positions, looks = camera_rays(strided, camera_to_world, *small.shape[2:4])
        tokens = self.model.encode(small, positions[None], looks[None])

        origins, directions = camera_rays(target_intrinsics, target_camera_to_world, height, width)
        origins = origins[:, None, None].expand_as(directions).reshape(1, -1, 3)
        rays = Rays(origins, directions.view(1, -1, 3), self.view_config.near, self.view_config.far)
        keys_values = self.model.decoder.scene_keys_values(tokens)
        seen = decode_in_groups(self.model, keys_values, rays, self.rays_per_group)
        return seen.colours.view(directions.shape)


def _load_pyfunc(path: str) -> ViewRenderer:
    """Returns the model of a weights file; MLflow calls it by this name."""
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


def example(
    scenes: Scenes, input_views: int
) -> tuple[dict[str, np.ndarray], UInt8[np.ndarray, "t h w 3"]]:
    """Returns what to give a model, from the first scene, and the view that it would best give."""
    scene = torch.zeros(1, dtype=torch.int64)
    target = input_views if scenes.views > input_views else 0
    views = torch.tensor([[*range(input_views), target]])
    images, _ = scenes.gather(scene, views, torch.zeros((1, 0), dtype=torch.int64), stride=1)
    intrinsics, poses = (np.asarray(c[0, views[0]].double().cpu()) for c in scenes.cameras(scene))
    pixels = np.asarray(images[0].cpu())
    inputs = {
        "images": pixels[:-1],
        "intrinsics": intrinsics[:-1],
        "camera_to_world": poses[:-1],
        "target_intrinsics": intrinsics[-1:],
        "target_camera_to_world": poses[-1:],
    }
    return inputs, pixels[-1:]
