"""Batches as a pure function of (seed, step), the same on every device and number of processes.

Random numbers are hashes of counters, so each process draws its own share of the global batch and
nothing of the others'. b scenes of this process, v input views, r rays of a scene.
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
from srt.config.strict import ConfigError
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import camera_rays, pixel_directions, rigid_inverse, stride_intrinsics
from srt.geometry.rays import Rays

_MASK = 0xFFFFFFFF
_VIEWS, _PIXELS, _DRAWS = 1, 2, 3  # streams of random numbers


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
    draws: Float[Tensor, "b r draws"] | None  # for a model that samples along rays, in training

    @property
    def rays(self) -> Rays:
        """The target rays, as a model is asked about them."""
        return Rays(self.origins, self.directions, self.near, self.far, self.draws)

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
class Presentation:
    """How a dataset's scenes are shown to a model."""

    canonical: bool  # in the frame of the first input camera, which is at 0 and looks along z
    input_views: int
    input_stride: int  # input images are every so many-th row and column
    all_targets: bool  # the input views are targets too
    near: float  # nothing is seen nearer to a camera, nor farther away
    far: float


def presentation(experiment: Experiment) -> Presentation:
    """Returns how an experiment shows its dataset to its model."""
    return Presentation(
        canonical=experiment.model.frame == "canonical",
        input_views=experiment.dataset.input_views,
        input_stride=experiment.dataset.input_stride,
        all_targets=experiment.dataset.targets == "all",
        near=experiment.dataset.near,
        far=experiment.dataset.far,
    )


@dataclass(frozen=True)
class Plan:
    """What a batch is made of: scenes, their input views, and a view and place for each ray."""

    scene: Int[Tensor, "b"]
    inputs: Int[Tensor, "b v"]
    view: Int[Tensor, "b r"]
    pixel: Int[Tensor, "b r"]  # in rows x columns
    draws: Float[Tensor, "b r draws"] | None


@dataclass(frozen=True)
class Sampler:
    """What a batch depends on beside (seed, step); sizes are those of the global batch."""

    batch_size: int
    rays_per_scene: int
    draws_per_ray: int  # random numbers that the model needs
    shown: Presentation
    seed: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"train.batch_size {self.batch_size} is not a multiple of the number of processes"
                f" {self.world_size}; change one of them"
            )

    def batch(self, scenes: Scenes, step: int) -> Batch:
        """Returns this process' share of the batch of a step."""
        return make_batch(scenes, self.plan(scenes, step), self.shown, fused=True)

    def plan(self, scenes: Scenes, step: int) -> Plan:
        """Returns what this process' share of the batch of a step is made of, on the device.

        Published: pixels by a permutation of all target pixels. Here: one pixel drawn from each of
        r equal runs of them; every pixel is as likely, none repeats (unless runs share one, where r
        does not divide their number), and the variance is lower.
        """
        share, device = self.batch_size // self.world_size, scenes.device
        slots = torch.arange(self.rank * share, (self.rank + 1) * share)
        scene = self._scene_order(slots + step * self.batch_size, len(scenes))
        streams = (_VIEWS, _PIXELS, _DRAWS) if self.draws_per_ray else (_VIEWS, _PIXELS)
        keys = [slot_keys(self.seed, step, stream, slots) for stream in streams]
        host = torch.stack((scene, *keys))
        if device.type == "cuda":  # from other memory, a copy would wait for the step before
            host = host.pin_memory().to(device, non_blocking=True)
        scene, *keys = host.to(device)
        drawn = _compiled(draw) if device.type == "cuda" else draw
        shown, sizes = self.shown, (scenes.views, scenes.height * scenes.width)
        first_target = 0 if shown.all_targets else shown.input_views
        rays = (self.rays_per_scene, self.draws_per_ray)
        return Plan(scene, *drawn(keys, *sizes, shown.input_views, first_target, *rays))

    def _scene_order(self, place: Int[Tensor, "b"], count: int) -> Int[Tensor, "b"]:
        """Returns the scenes at these places of the endless sequence of shuffled epochs."""
        epoch = place // count
        scene = torch.empty_like(place)
        for number in epoch.unique().tolist():
            here = epoch == number
            scene[here] = _shuffled(self.seed, number, count)[place[here] % count]
        return scene


def draw(
    keys: list[Int[Tensor, "b"]],
    views: int,
    size: int,
    input_views: int,
    first_target: int,
    rays: int,
    draws: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Returns what a plan has beside its scenes; see `Sampler.plan`.

    Args:
        keys: of the slots' random numbers, for views, pixels and, if there are any, draws.
        size: pixels of a view.
        first_target: among a scene's views in random order.
        draws: of a ray.
    """
    each, device = [part[:, None] for part in keys], keys[0].device
    order = random_bits(each[0], torch.arange(views, device=device)).argsort(dim=1, stable=True)
    targets = order[:, first_target:]  # inputs come first
    ray, total = torch.arange(rays, device=device), targets.shape[1] * size
    offset = random_bits(each[1], ray) >> 8  # 24 bits
    place = ((ray << 24) + offset) * total // (rays << 24)  # (b, r)
    view, drawn = targets.gather(1, place // size), None
    if draws:
        bits = random_bits(each[2], torch.arange(rays * draws, device=device)) >> 8
        drawn = (bits.float() / 2**24).unflatten(1, (rays, draws))  # in [0, 1), as float32 holds
    return order[:, :input_views], view, place % size, drawn


def make_batch(scenes: Scenes, plan: Plan, shown: Presentation, fused: bool = False) -> Batch:
    """Returns the batch of a plan; `fused` as `assemble` has it."""
    place = plan.view * (scenes.height * scenes.width) + plan.pixel
    pixels = scenes.gather(plan.scene, plan.inputs, place, shown.input_stride)
    return assemble(scenes, plan, scenes.cameras(plan.scene), shown, *pixels, fused=fused)


def assemble(
    scenes: Scenes,
    plan: Plan,
    cameras: tuple[Float[Tensor, "b views 3 3"], Float[Tensor, "b views 4 4"]],
    shown: Presentation,
    images: UInt8[Tensor, "b v h w 3"],
    colours: UInt8[Tensor, "b r 3"],
    *,
    fused: bool,
) -> Batch:
    """Returns the batch of a plan whose pixels have been gathered; its rays are computed here.

    Args:
        fused: on a GPU by kernels compiled for these sizes: for batches that are all alike.
    """
    compute = _compiled(posed) if fused and scenes.device.type == "cuda" else posed
    place = plan.inputs, plan.view, plan.pixel
    tensors: dict[str, Any] = compute(*cameras, *place, scenes.width, images, colours, shown)
    return Batch(**tensors, near=shown.near, far=shown.far, draws=plan.draws)


def posed(
    intrinsics: Float[Tensor, "b views 3 3"],
    poses: Float[Tensor, "b views 4 4"],
    inputs: Int[Tensor, "b v"],
    view: Int[Tensor, "b r"],
    pixel: Int[Tensor, "b r"],
    width: int,
    images: UInt8[Tensor, "b v h w 3"],
    colours: UInt8[Tensor, "b r 3"],
    shown: Presentation,
) -> dict[str, Tensor]:
    """Returns a batch's tensors, but for the draws, by the names of its fields."""
    each = torch.arange(len(inputs), device=inputs.device)[:, None]
    if shown.canonical:
        poses = rigid_inverse(poses[each, inputs[:, :1]]) @ poses
    image_origins, image_directions = camera_rays(
        stride_intrinsics(intrinsics[each, inputs], shown.input_stride),
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
def _compiled(function: Any) -> Any:
    """Returns a function whose two hundred launches, each shorter than a launch, become a few."""
    return torch.compile(function, dynamic=False)


def whole_views(
    scenes: Scenes,
    scene: Int[Tensor, "b"],
    inputs: Int[Tensor, "b v"],
    targets: Int[Tensor, "b t"],
    shown: Presentation,
) -> Batch:
    """Returns the batch whose rays are all pixels of the target views, view after view."""
    size = scenes.height * scenes.width
    pixel = torch.arange(size, device=scenes.device).repeat(targets.shape[1])
    view = targets.repeat_interleave(size, dim=1)
    return make_batch(scenes, Plan(scene, inputs, view, pixel.expand_as(view), None), shown)


def slot_keys(seed: int, step: int, stream: int, slots: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """Returns what each slot of a step's batch draws a stream of random numbers with."""
    keys = slots
    for part in (seed, stream, step):
        keys = _mix(keys + part * 0x9E3779B9)
    return keys


def random_bits(keys: Int[Tensor, "b 1"], counter: Int[Tensor, "n"]) -> Int[Tensor, "b n"]:
    """Returns 32 random bits for each slot and counter (the hash lowbias32 of C. Wellons)."""
    return _mix(keys + _mix(counter + 0x632BE5AB))


def _mix(values: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    values = values & _MASK
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & _MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & _MASK
    return values ^ (values >> 16)


@functools.lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(count, generator=generator)
