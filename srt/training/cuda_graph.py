"""The gradients of a training step: on a GPU compiled, and recorded as one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from srt.common.distributed import Reduction
from srt.data.batch import Batch
from srt.geometry.rays import Rays
from srt.model.decoder import Decoder, LayerKeysValues, Prediction
from srt.model.srt import SRT
from srt.training.gradients import compute_gradients

# Takes a batch, the rays of a group (None: as many as fit) and the reduction over the processes.
Step = Callable[[Batch, int | None, Reduction | None], Tensor]


def make_step(model: SRT, device: torch.device) -> Step:
    """Return what gives a model the gradients of a batch and returns the loss.

    On a GPU this is a `StepGraph`, elsewhere `plain_step`.
    """
    return StepGraph(model) if device.type == "cuda" else plain_step(model)


def plain_step(model: SRT) -> Step:
    """Return a step that is neither compiled nor recorded."""
    return functools.partial(compute_gradients, model, model.decoder)


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
    Convolutions are not bound by it and stay as they are. A step of a small model spends its time
    on thousands of launches, so the third step is recorded and all later ones replay it.
    """

    def __init__(self, model: SRT) -> None:
        torch.backends.cudnn.benchmark = True
        self.model = model
        for module in model.encoder.compiled_parts():
            module.compile()
        self.decoder = CompiledDecoder(model.decoder)
        self.steps = 0
        self.batch: Batch | None = None  # in the memory that the graph reads
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self, batch: Batch, rays_per_group: int | None, reduction: Reduction | None
    ) -> Tensor:
        """Return the loss. The gradients are in the same memory after every step."""
        # The graph reads fixed addresses, so every batch is copied to those of the first one.
        if self.batch is None:
            self.batch = batch.clone()
        for name, value in batch.tensors().items():
            getattr(self.batch, name).copy_(value)

        # The first two steps compile kernels and choose algorithms, which no graph can hold.
        self.steps += 1
        if self.steps <= 2:
            return self._compute(rays_per_group, reduction)

        # The third step is recorded. Threads that read data ahead go on meanwhile.
        parameters = list(self.model.parameters())
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.loss = self._compute(rays_per_group, reduction)
            self.gradients = [parameter.grad for parameter in parameters]

        # The optimiser has dropped the gradients since: they get back the memory that was recorded.
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients):
            parameter.grad = gradient
        return self.loss.clone()

    def _compute(self, rays_per_group: int | None, reduction: Reduction | None) -> Tensor:
        assert self.batch is not None
        return compute_gradients(self.model, self.decoder, self.batch, rays_per_group, reduction)
