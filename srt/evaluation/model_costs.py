"""What a model costs: parameters and operations, which are counted, and time, which is measured."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from srt.common.distributed import describe_cpu
from srt.data.batch import Batch, ViewConfig, make_full_view_batch
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import encode_batch
from srt.evaluation.protocols import Item
from srt.model.srt import SRT
from srt.results.records import ModelCosts, ModelTimes

REPEATS = 5  # timed runs, after one that is not timed
ALL_RAYS = 2**40  # more than any batch has: all are decoded at once


def single_view_batch(scenes: Scenes, item: Item, view_config: ViewConfig) -> Batch:
    """Return an item's input views, and the rays of one frame of the dataset's size."""
    scene = torch.tensor([item.scene], device=scenes.device)
    inputs = torch.tensor([item.inputs], device=scenes.device)
    return make_full_view_batch(scenes, scene, inputs, inputs[:, :1], view_config)


@torch.no_grad()
def count_costs(model: SRT, batch: Batch) -> ModelCosts:
    """Return the parameters, and the operations of encoding a scene and of rendering a frame.

    The operations are those of matrix products, convolutions and attention. A multiplication and an
    addition are two operations.
    """
    # PyTorch's device `meta` computes shapes only. The count is then the same on every machine;
    # on a CPU, the counter would miss the fused attention.
    tensors: dict[str, Any] = {name: value.to("meta") for name, value in batch.tensors().items()}
    shapes = dataclasses.replace(batch, **tensors)
    shape_model = copy.deepcopy(model).to("meta")

    with FlopCounterMode(display=False) as encoding:
        scene = encode_batch(shape_model, shapes, ALL_RAYS)
    with FlopCounterMode(display=False) as rendering:
        scene.decode(shapes.rays)
    return ModelCosts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        encode_flops=encoding.get_total_flops(),
        frame_flops=rendering.get_total_flops(),
    )


def time_stages(model: SRT, batch: Batch, rays_per_group: int | None) -> ModelTimes:
    """Return the seconds of encoding a scene and of rendering a frame, and the hardware."""
    # Evaluations run in float32, so the times are those of float32. Rendering a frame starts from
    # an encoded scene.
    device = batch.images.device
    scene = encode_batch(model, batch, rays_per_group)
    return ModelTimes(
        encode_seconds=median_seconds(lambda: encode_batch(model, batch, rays_per_group), device),
        frame_seconds=median_seconds(lambda: scene.decode(batch.rays), device),
        hardware=hardware_name(device),
    )


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of several calls of `work`."""
    # The first call may compile kernels and allocate memory, so it does not count.
    seconds = []
    for _ in range(1 + REPEATS):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds[1:]), 6)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has computed everything that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hardware_name(device: torch.device) -> str:
    """Return what a process runs on, for example `NVIDIA H200` or `x86_64 CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return describe_cpu(torch.get_num_threads())
