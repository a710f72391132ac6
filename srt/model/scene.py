"""Scenes that a model has encoded: what one looks at from any camera.

    scene = encode_scene(model, images, origins, directions, SceneFrame(near=2.0, far=4.0))
    view = scene.render(camera)

Encoding is the slow half, and is done once. Rays and cameras are then decoded at will: a `Scene`
knows the precision, decodes in groups that fit into memory, and records the kernels of a repeated
size as a CUDA graph. b scenes, v input views of h x w pixels, r rays of a scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from srt.common.shapes import Float
from srt.geometry.cameras import Camera
from srt.geometry.rays import Rays
from srt.model.decoder import LayerKeysValues, Prediction
from srt.model.inference import decode_in_groups, float32_precision, training_precision
from srt.model.positional_encoding import to_float32
from srt.model.recording import RecordedCall
from srt.model.srt import SRT


@dataclass(frozen=True)
class SceneFrame:
    """The coordinates in which a model sees a scene, and how far away things are."""

    near: float  # everything in the scene lies between these distances from a camera
    far: float

    # From the world to the model's coordinates; None: the model sees the world's.
    world_to_frame: Float[Tensor, "4 4"] | None = None


class View(NamedTuple):
    """What cameras see, each in an image."""

    colours: Float[Tensor, "*views height width 3"]
    depth: Float[Tensor, "*views height width"] | None  # along the rays; None: not predicted


class Scene:
    """One or several scenes that a model has encoded.

    Args:
        model: decodes the rays.
        keys_values: what rays attend to, which is all that the model knows of the scenes.
        frame: the model's coordinates.
        mixed_precision: multiply in the precision of training on this device; False: in float32.
        queries_per_group: the queries that are decoded at once; None: as many as fit.
    """

    def __init__(
        self,
        model: SRT,
        keys_values: list[LayerKeysValues],
        frame: SceneFrame,
        *,
        mixed_precision: bool,
        queries_per_group: int | None,
    ) -> None:
        self.model = model
        self.keys_values = keys_values
        self.frame = frame
        self.mixed_precision = mixed_precision
        self.queries_per_group = queries_per_group

        # The recorded decoding of each number of rays that `render` was asked for.
        self._recordings: dict[torch.Size, RecordedCall] = {}

    @torch.no_grad()
    def decode(self, rays: Rays) -> Prediction:
        """Return colours, in float32 or more precise, and depth along rays.

        Args:
            rays: in the model's coordinates.
        """
        with precision_of(rays.origins.device, self.mixed_precision):
            prediction = decode_in_groups(
                self.model, self.keys_values, rays, self.queries_per_group
            )
        return prediction._replace(colours=to_float32(prediction.colours))

    @torch.no_grad()
    def render(self, camera: Camera, size: tuple[int, int] | None = None) -> View:
        """Return what cameras see of a single scene.

        Args:
            camera: one or several cameras, in the world.
            size: height and width of the images; None: those of the cameras. Images of another size
                show the same width of the scene (`Camera.resize`).
        """
        # Bring the cameras to the model's device, to the size of the images and to the model's
        # coordinates.
        camera = camera.to(next(self.model.parameters()).device)
        if size is not None:
            camera = camera.resize(*size)
        if self.frame.world_to_frame is not None:
            camera = camera.to_frame(self.frame.world_to_frame)

        # One ray for each pixel. The rays of all cameras are those of one scene.
        origins, directions = camera.rays()  # (*views, 3), (*views, h, w, 3)
        origins = origins[..., None, None, :].expand_as(directions).reshape(1, -1, 3)
        rays = Rays(origins, directions.reshape(1, -1, 3), self.frame.near, self.frame.far)
        prediction = self.decode_recorded(rays)

        # Give the colours the shape of images again.
        colours = prediction.colours.view(directions.shape)
        depth = prediction.depth
        return View(colours, None if depth is None else depth.view(directions.shape[:-1]))

    def decode_recorded(self, rays: Rays) -> Prediction:
        """Return what `decode` returns.

        On a GPU, the second call with a number of rays is recorded, and later ones replay it. This
        pays where many pictures of one size are rendered.
        """
        if not rays.origins.is_cuda:
            return self.decode(rays)

        def decode(origins: Tensor, directions: Tensor) -> Sequence[Tensor]:
            prediction = self.decode(rays._replace(origins=origins, directions=directions))
            return [value for value in prediction if value is not None]

        shape = rays.origins.shape
        if shape not in self._recordings:
            self._recordings[shape] = RecordedCall(decode, warmups=1)
        colours, *depth = self._recordings[shape](rays.origins, rays.directions)
        return Prediction(colours.clone(), depth[0].clone() if depth else None)


@torch.no_grad()
def encode_scene(
    model: SRT,
    images: Float[Tensor, "b v h w 3"],
    origins: Float[Tensor, "b v 3"],
    directions: Float[Tensor, "b v h w 3"],
    frame: SceneFrame,
    *,
    mixed_precision: bool = False,
    queries_per_group: int | None = None,
) -> Scene:
    """Return the scenes that a model sees in input images.

    Args:
        images: colours in [0, 1].
        origins, directions: of the cameras and of the pixels' rays, in the model's coordinates.
        mixed_precision, queries_per_group: see `Scene`.
    """
    with precision_of(images.device, mixed_precision):
        tokens = model.encode(images, origins, directions)
        keys_values = model.decoder.scene_keys_values(tokens)
    return Scene(
        model,
        keys_values,
        frame,
        mixed_precision=mixed_precision,
        queries_per_group=queries_per_group,
    )


def precision_of(device: torch.device, mixed_precision: bool) -> AbstractContextManager[None]:
    """Return the context in which a model computes: as in training, or in float32."""
    return training_precision(device) if mixed_precision else float32_precision()
