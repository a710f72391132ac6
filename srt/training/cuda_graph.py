"""The gradients of a training step: on a GPU compiled, and recorded as one CUDA graph."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from srt.common.distributed import Reduction
from srt.data.batch import Batch
from srt.geometry.rays import Rays
from srt.model.decoder import Decoder, LayerKeysValues, Prediction
from srt.model.recording import RecordedCall
from srt.model.srt import SRT
from srt.training.gradients import compute_gradients

# The steps before the recorded one: they compile kernels and choose algorithms.
WARMUPS = 2

# Takes a batch, adds its gradients to the parameters' and returns the loss.
Step = Callable[[Batch], Tensor]


def make_step(
    model: SRT,
    device: torch.device,
    rays_per_group: int | None = None,
    reduction: Reduction | None = None,
) -> Step:
    """Return the step of a training: on a GPU a `StepGraph`, elsewhere `plain_step`.

    Args:
        rays_per_group, reduction: see `compute_gradients`.
    """
    if device.type == "cuda":
        return StepGraph(model, rays_per_group, reduction)
    return plain_step(model, rays_per_group, reduction)


def plain_step(
    model: SRT, rays_per_group: int | None = None, reduction: Reduction | None = None
) -> Step:
    """Return a step that is neither compiled nor recorded."""
    return functools.partial(
        compute_gradients, model, rays_per_group=rays_per_group, reduction=reduction
    )


class CompiledDecoder:
    """A decoder whose two functions are compiled for the sizes of a training's batches."""

    def __init__(self, decoder: Decoder) -> None:
        self._decode = torch.compile(decoder, dynamic=False)
        self.scene_keys_values = torch.compile(decoder.scene_keys_values, dynamic=False)

    def __call__(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Return what the model's decoder returns."""
        predicted: Prediction = self._decode(keys_values, rays)
        return predicted


class StepGraph:
    """The step of a training on a GPU: its kernels are launched as one CUDA graph.

    The compiler fuses the decoder and parts of the encoder, because memory traffic bounds them.
    Convolutions are not bound by it and stay as they are.

    Args:
        rays_per_group, reduction: see `compute_gradients`.
    """

    def __init__(
        self, model: SRT, rays_per_group: int | None, reduction: Reduction | None = None
    ) -> None:
        torch.backends.cudnn.benchmark = True
        for module in model.encoder.compiled_parts():
            module.compile()
        self.model = model
        self.rays_per_group = rays_per_group
        self.reduction = reduction
        self.decoder = CompiledDecoder(model.decoder)
        self.gradients: list[Tensor | None] = []
        self.batch: Batch | None = None  # in the memory that is recorded, once there is one
        self.compute = RecordedCall(self._compute, warmups=WARMUPS)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the loss. The gradients are in the same memory after every recorded step."""
        # Neither the gradients of an earlier step nor the first batch may stay in memory beside
        # those that are recorded.
        if self.compute.graph is None:
            self.gradients = []
            self.batch = batch
        (loss,) = self.compute(*batch.tensors().values())

        # The optimiser has dropped the gradients since: they get back the memory that was recorded.
        for parameter, gradient in zip(self.model.parameters(), self.gradients):
            parameter.grad = gradient
        return loss.clone()

    def _compute(self, *tensors: Tensor) -> list[Tensor]:
        """Compute the gradients of the batch that consists of these tensors; return the loss."""
        assert self.batch is not None
        values: Any = dict(zip(self.batch.tensors(), tensors))
        self.batch = dataclasses.replace(self.batch, **values)
        loss = compute_gradients(
            self.model, self.batch, self.rays_per_group, self.reduction, self.decoder
        )
        self.gradients = [parameter.grad for parameter in self.model.parameters()]
        return [loss]
