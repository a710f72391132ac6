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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srt.common.devices import best_device
from srt.common.errors import UserError
from srt.common.shapes import UInt8
from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import Camera, rigid_inverse
from srt.model.scene import Scene, SceneFrame, encode_scene
from srt.model.srt import SRT
from srt.model.weights import load_model
from srt.visualization.pictures import to_uint8

# What the public functions take for arrays.
ArrayLike = np.ndarray | Tensor | Sequence[Any]

# How far R Rᵀ may be from the identity: poses in files have few digits.
ROTATION_TOLERANCE = 1e-2


class TrainedModel:
    """A trained model, with how it sees scenes. `encode` is the way to everything.

    Args:
        network: the weights.
        view_config: the frame of its coordinates, the stride of its input images and the distances
            between which scenes lie.
        queries_per_group: the queries that are decoded at once; None: as many as fit.
    """

    def __init__(
        self, network: SRT, view_config: ViewConfig, queries_per_group: int | None = None
    ) -> None:
        self.network = network
        self.view_config = view_config
        self.queries_per_group = queries_per_group

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return next(self.network.parameters()).device

    def encode(self, images: ArrayLike, cameras: Camera) -> Scene:
        """Return the scene that the model sees in images with known cameras.

        Args:
            images: v images, (v, height, width, 3), as bytes or as colours in [0, 1]; numpy or
                PyTorch.
            cameras: of the images, in any world.

        Raises:
            UserError: the images or cameras have other shapes or ranges, and the message says how
                to mend it.
        """
        pixels = check_images(images).to(self.device)  # (v, h, w, 3)
        cameras = check_cameras(cameras, pixels).to(self.device)

        # In the canonical frame, the first input camera is the origin and its axes are the axes.
        world_to_frame = None
        if self.view_config.canonical:
            world_to_frame = rigid_inverse(cameras.camera_to_world[0])  # (4, 4)
            cameras = cameras.to_frame(world_to_frame)

        # The model sees every n-th pixel of the input images, as in training.
        stride = self.view_config.input_stride
        small = pixels[None, :, stride // 2 :: stride, stride // 2 :: stride]
        origins, directions = cameras.stride(stride).rays()  # (v, 3), (v, h/n, w/n, 3)
        return encode_scene(
            self.network,
            small.float() / 255 if small.dtype == torch.uint8 else small,
            origins[None],
            directions[None],
            SceneFrame(self.view_config.near, self.view_config.far, world_to_frame),
            queries_per_group=self.queries_per_group,
        )

    def predict(
        self, inputs: Mapping[str, np.ndarray], params: dict[str, Any] | None = None
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """Return the views of the target cameras, as bytes.

        MLflow calls this, and has checked before that the inputs are like the model's example.

        Args:
            params: MLflow's, not used.
        """
        images = inputs["images"]
        height, width = images.shape[1:3]
        cameras = make_cameras(inputs["intrinsics"], inputs["camera_to_world"], height, width)
        targets = make_cameras(
            inputs["target_intrinsics"], inputs["target_camera_to_world"], height, width
        )
        return to_uint8(self.encode(images, cameras).render(targets).colours)


def _load_pyfunc(path: str) -> TrainedModel:
    """Return the model of a file of weights. MLflow calls this function by its name."""
    return load_trained_model(Path(path))


def load_trained_model(path: Path, device: torch.device | None = None) -> TrainedModel:
    """Return the model of a file of weights, whose header has the configuration of the training.

    Args:
        device: None: a GPU if there is one.
    """
    network, settings = load_model(path, device or best_device())
    dataset = settings["dataset"]
    view_config = ViewConfig(
        canonical=settings["model"]["frame"] == "canonical",
        input_views=dataset["input_views"],
        input_stride=dataset["input_stride"],
        all_targets=dataset["targets"] == "all",
        near=dataset["near"],
        far=dataset["far"],
    )
    return TrainedModel(network, view_config, settings["train"]["rays_per_group"])


def make_cameras(
    intrinsics: ArrayLike, camera_to_world: ArrayLike, height: int, width: int
) -> Camera:
    """Return cameras from arrays.

    Args:
        intrinsics: (3, 3) or (v, 3, 3), in pixels.
        camera_to_world: (4, 4) or (v, 4, 4). The camera's axes are x right, y down, z forward.
        height, width: of the cameras' images, in pixels.

    Raises:
        UserError: the arrays have other shapes, are not finite, or are no rigid poses.
    """
    matrices = torch.as_tensor(np.asarray(intrinsics)).float()
    poses = torch.as_tensor(np.asarray(camera_to_world)).float()
    check_shape("intrinsics", matrices, (3, 3))
    check_shape("camera_to_world", poses, (4, 4))
    if matrices.shape[:-2] != poses.shape[:-2]:
        raise UserError(
            f"intrinsics are of {count_cameras(matrices)} cameras, and camera_to_world of"
            f" {count_cameras(poses)}; each camera needs both"
        )

    # The mistakes that others make most: a pose the other way round has the same shape, but a
    # matrix that scales or mirrors is no pose at all.
    rotation = poses[..., :3, :3]
    identity = torch.eye(3).expand_as(rotation)
    error = (rotation @ rotation.transpose(-1, -2) - identity).abs().max()
    if error > ROTATION_TOLERANCE or (torch.linalg.det(rotation) < 0).any():
        raise UserError(
            "camera_to_world has no rotation in its upper left 3 x 3: it scales, shears or mirrors;"
            " axes are x right, y down, z forward, and R Rᵀ must be the identity"
        )
    if (matrices[..., 0, 0] <= 0).any() or (matrices[..., 1, 1] <= 0).any():
        raise UserError("intrinsics have a focal length that is not positive, in [0, 0] or [1, 1]")
    return Camera(matrices, poses, height, width)


def check_shape(name: str, array: Tensor, shape: tuple[int, int]) -> None:
    """Raise UserError if an array is not of this shape after at most one leading dimension."""
    if array.shape[-2:] != shape or array.ndim > 3:
        wanted = " x ".join(map(str, shape))
        raise UserError(f"{name} has the shape {tuple(array.shape)}; it must be {wanted} a camera")
    if not array.isfinite().all():
        raise UserError(f"{name} has a value that is not finite")


def count_cameras(matrices: Tensor) -> int:
    """Return of how many cameras these matrices are."""
    return len(matrices) if matrices.ndim == 3 else 1


def check_images(images: ArrayLike) -> Tensor:
    """Return images as a tensor of bytes or of floats in [0, 1].

    Raises:
        UserError: they have another shape or other values.
    """
    pixels = images if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images))
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise UserError(
            f"images have the shape {tuple(pixels.shape)}; they must be (views, height, width, 3):"
            " images[None] makes one image a list, and images[..., :3] drops transparency"
        )
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise UserError(f"images are {pixels.dtype}; they must be uint8, or floats in [0, 1]")
    low, high = pixels.min().item(), pixels.max().item()
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"images have values from {low:g} to {high:g}; floats must be in [0, 1]: divide by 255,"
            " or pass bytes"
        )
    return pixels.float()


def check_cameras(cameras: Camera, images: Tensor) -> Camera:
    """Return the cameras if they are those of the images.

    Raises:
        UserError: their number or the size of their images differs.
    """
    views, height, width = images.shape[:3]
    if cameras.camera_to_world.ndim != 3 or len(cameras.camera_to_world) != views:
        raise UserError(
            f"there are {views} images and {count_cameras(cameras.camera_to_world)} cameras; each"
            " image needs its camera, and one camera too needs a leading dimension of 1"
        )
    if (cameras.height, cameras.width) != (height, width):
        raise UserError(
            f"the cameras are of images of {cameras.height} x {cameras.width} pixels, but the"
            f" images have {height} x {width}: camera.resize({height}, {width}) adapts them"
        )
    return cameras


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
