"""How a training batch is drawn: which scenes, views and pixels it has, from (seed, step) alone.

- Scenes: all scenes in a random order, then all of them in another random order, and so on. Each
  batch takes the next `batch_size` scenes of this endless sequence.
- Views: the views of each scene in a random order. The first ones are the input views. The target
  rays go through the other views or, if the dataset says so, through all of them.
- Pixels: the pixels of a scene's target views, one view after the other, are divided into r runs of
  equal length. Each target ray gets a random pixel of its run.

The published code takes the first r pixels of a random permutation of all target pixels instead. By
runs, every pixel is as likely as there, and the loss varies less from batch to batch. No pixel
occurs twice, unless r does not divide the number of pixels, so that neighbouring runs share one.

The order of the scenes depends on (seed, epoch); all other random numbers are hashes of counters
(srt/data/counter_random.py). A batch therefore does not depend on earlier batches, and a resumed
training draws what an uninterrupted one does. Each process draws its own share of the global batch
and none of the others' shares.

Shapes: b scenes of this process, v input views of a scene, r target rays of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srt.common.shapes import Float, Int
from srt.config.strict import ConfigError
from srt.data.batch import Batch, BatchIndices, ViewConfig, compile_cached, make_batch
from srt.data.counter_random import random_bits, scene_permutation, slot_keys
from srt.data.packed.reader import Scenes

# Streams of random numbers: the views' order, the target pixels, the uniforms along rays.
_VIEWS = 1
_PIXELS = 2
_UNIFORMS = 3


@dataclass(frozen=True)
class Sampler:
    """All that batches depend on, beside the scenes and the step; sizes are of the global batch."""

    batch_size: int  # scenes of all processes
    rays_per_scene: int
    uniforms_per_ray: int  # random numbers that the model needs for each ray; 0: none
    view_config: ViewConfig
    seed: int
    rank: int  # of this process
    world_size: int  # number of processes

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"train.batch_size {self.batch_size} is not a multiple of the number of processes"
                f" {self.world_size}; change one of them"
            )

    def batch(self, scenes: Scenes, step: int) -> Batch:
        """Return this process' share of the batch of a step."""
        indices = self.batch_indices(scenes, step)
        return make_batch(scenes, indices, self.view_config, compiled=True)

    def batch_indices(self, scenes: Scenes, step: int) -> BatchIndices:
        """Return, on the device, the indices of this process' share of the batch of a step."""
        # The global batch has a slot for each scene. This process draws for its own slots only.
        share = self.batch_size // self.world_size
        slots = torch.arange(self.rank * share, (self.rank + 1) * share)  # (b,)

        # Each step takes the next `batch_size` scenes of the sequence of shuffled epochs.
        scene = self._scenes_at(slots + step * self.batch_size, len(scenes))  # (b,)

        # Each slot has one key for each purpose. All else is computed from the keys on the device.
        streams = (_VIEWS, _PIXELS, _UNIFORMS) if self.uniforms_per_ray else (_VIEWS, _PIXELS)
        keys = [slot_keys(self.seed, step, stream, slots) for stream in streams]  # each (b,)
        scene, *keys = _to_device(torch.stack((scene, *keys)), scenes.device)

        # In each scene, draw the input views, and a view and a pixel for each target ray.
        on_gpu = scenes.device.type == "cuda"
        draw = compile_cached(draw_indices) if on_gpu else draw_indices
        inputs, view, pixel, uniforms = draw(
            keys,
            scenes.views,
            scenes.pixels_per_view,
            self.view_config.input_views,
            0 if self.view_config.all_targets else self.view_config.input_views,
            self.rays_per_scene,
            self.uniforms_per_ray,
        )
        return BatchIndices(scene, inputs, view, pixel, uniforms)

    def _scenes_at(self, position: Int[Tensor, "b"], count: int) -> Int[Tensor, "b"]:
        """Return the scenes at these positions of the endless sequence of shuffled epochs.

        Args:
            count: the number of scenes, and so the length of an epoch.
        """
        # Positions of one batch can lie in several epochs; each epoch has its own order.
        epoch = position // count  # (b,)
        scene = torch.empty_like(position)
        for number in epoch.unique().tolist():
            in_epoch = epoch == number
            order = scene_permutation(self.seed, number, count)  # (count,)
            scene[in_epoch] = order[position[in_epoch] % count]
        return scene


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return the values on the device, without waiting for what a GPU is computing."""
    # A copy from memory that is not pinned would wait for the step before.
    if device.type == "cuda":
        values = values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def draw_indices(
    keys: list[Int[Tensor, "b"]],
    views: int,
    pixels_per_view: int,
    input_views: int,
    first_target: int,
    rays: int,
    uniforms: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the fields `inputs`, `view`, `pixel` and `uniforms` of `BatchIndices`.

    Args:
        keys: of the slots, for views, pixels and, if `uniforms` is not 0, uniforms.
        views: of a scene.
        first_target: the position of the first target view among a scene's views in random order.
        rays: target rays of a scene, r.
        uniforms: random numbers for each ray.
    """
    slot_columns = [key[:, None] for key in keys]  # each (b, 1)
    device = keys[0].device

    # Order each scene's views by random numbers. The input views come first.
    view_bits = random_bits(slot_columns[0], torch.arange(views, device=device))  # (b, views)
    order = view_bits.argsort(dim=1, stable=True)  # (b, views)
    targets = order[:, first_target:]  # (b, target views)

    # All target pixels, view after view, are one row of `total` pixels. Ray k gets a pixel of the
    # k-th run: floor((k + u) * total / rays), where u in [0, 1) is a random multiple of 2^-24. In
    # whole numbers this is exact.
    ray = torch.arange(rays, device=device)  # (r,)
    total = targets.shape[1] * pixels_per_view
    offset = random_bits(slot_columns[1], ray) >> 8  # (b, r), u * 2^24
    position = ((ray << 24) + offset) * total // (rays << 24)  # (b, r)
    view = targets.gather(1, position // pixels_per_view)  # (b, r)

    # Models that sample points along rays get random numbers for that.
    uniform_values = _draw_uniforms(slot_columns[2], rays, uniforms) if uniforms else None
    return order[:, :input_views], view, position % pixels_per_view, uniform_values


def _draw_uniforms(
    key: Int[Tensor, "b 1"], rays: int, uniforms: int
) -> Float[Tensor, "b {rays} {uniforms}"]:
    """Return random numbers in [0, 1) for each ray, with the 24 bits that a float32 holds."""
    counters = torch.arange(rays * uniforms, device=key.device)
    bits = random_bits(key, counters) >> 8  # (b, r uniforms)
    return (bits.float() / 2**24).unflatten(1, (rays, uniforms))
