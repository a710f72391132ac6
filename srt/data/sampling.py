"""Which scenes, views and pixels a batch holds: a pure function of (seed, step).

Random numbers are hashes of counters, so each process draws its own share of the global batch and
nothing of the others'. b scenes of this process, v input views, r rays of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srt.common.shapes import Int
from srt.config.strict import ConfigError
from srt.data.batch import Batch, BatchIndices, ViewConfig, compile_cached, make_batch
from srt.data.counter_random import random_bits, scene_permutation, slot_keys
from srt.data.packed.reader import Scenes

_VIEWS, _PIXELS, _UNIFORMS = 1, 2, 3  # streams of random numbers


@dataclass(frozen=True)
class Sampler:
    """What a batch depends on beside (seed, step); sizes are those of the global batch."""

    batch_size: int
    rays_per_scene: int
    uniforms_per_ray: int  # random numbers that the model needs
    view_config: ViewConfig
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
        return make_batch(scenes, self.batch_indices(scenes, step), self.view_config, fused=True)

    def batch_indices(self, scenes: Scenes, step: int) -> BatchIndices:
        """Returns what this process' share of the batch of a step is made of, on the device.

        Published: pixels by a permutation of all target pixels. Here: one pixel drawn from each of
        r equal runs of them; every pixel is as likely, none repeats (unless runs share one, where r
        does not divide their number), and the variance is lower.
        """
        share, device = self.batch_size // self.world_size, scenes.device
        slots = torch.arange(self.rank * share, (self.rank + 1) * share)
        scene = self._scene_order(slots + step * self.batch_size, len(scenes))
        streams = (_VIEWS, _PIXELS, _UNIFORMS) if self.uniforms_per_ray else (_VIEWS, _PIXELS)
        keys = [slot_keys(self.seed, step, stream, slots) for stream in streams]
        host = torch.stack((scene, *keys))
        if device.type == "cuda":  # from other memory, a copy would wait for the step before
            host = host.pin_memory().to(device, non_blocking=True)
        scene, *keys = host.to(device)
        drawn = compile_cached(draw_indices) if device.type == "cuda" else draw_indices
        view_config, sizes = self.view_config, (scenes.views, scenes.height * scenes.width)
        first_target = 0 if view_config.all_targets else view_config.input_views
        rays = (self.rays_per_scene, self.uniforms_per_ray)
        return BatchIndices(
            scene, *drawn(keys, *sizes, view_config.input_views, first_target, *rays)
        )

    def _scene_order(self, place: Int[Tensor, "b"], count: int) -> Int[Tensor, "b"]:
        """Returns the scenes at these places of the endless sequence of shuffled epochs."""
        epoch = place // count
        scene = torch.empty_like(place)
        for number in epoch.unique().tolist():
            here = epoch == number
            scene[here] = scene_permutation(self.seed, number, count)[place[here] % count]
        return scene


def draw_indices(
    keys: list[Int[Tensor, "b"]],
    views: int,
    size: int,
    input_views: int,
    first_target: int,
    rays: int,
    uniforms: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Returns what a plan has beside its scenes; see `Sampler.indices`.

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
    if uniforms:
        bits = random_bits(each[2], torch.arange(rays * uniforms, device=device)) >> 8
        drawn = (bits.float() / 2**24).unflatten(1, (rays, uniforms))  # in [0, 1), as float32 holds
    return order[:, :input_views], view, place % size, drawn
