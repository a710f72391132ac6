"""A step of training on a GPU: compiled, and recorded as one CUDA graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srt.common.distributed import Reduction
from srt.data.batch import Batch
from srt.geometry.rays import Rays
from srt.model.decoder import Prediction
from srt.model.inference import group_on
from srt.model.srt import SRT
from srt.training.gradients import add_gradients


def accumulate_gradients(
    model: SRT,
    decode: Any,
    batch: Batch,
    rays_per_group: int | None,
    reduction: Reduction | None = None,
) -> Tensor:
    """Gives parameters the gradients of the loss, and returns the colours' mean squared error.

    Args:
        decode: what `compiled_decoder` returns, or the model's decoder.
        rays_per_group: None: as many as fit.
        reduction: makes the gradients those of all processes, each of which has an equal share of
            the loss; the error is this one's own.
    """
    rays_per_group = rays_per_group or group_on(batch.images.device)
    if isinstance(decode, Recording):
        return decode.accumulate_gradients(batch, rays_per_group, reduction)
    return add_gradients(model, decode, batch, rays_per_group, reduction)


class Recording:
    """A decoder for training on a GPU, and a step's launches, recorded as one CUDA graph.

    The decoder and what it can of the encoder are fused by the compiler: they are bound by memory
    traffic. Convolutions are not: they are left as they are. Small models wait for launches, some
    thousands a step: the third step is recorded and those after it are replayed.
    """

    def __init__(self, model: SRT) -> None:
        torch.backends.cudnn.benchmark = True
        self.model, encoder = model, model.encoder
        for part in (encoder.pixel_channels, encoder.camera_and_pixels, *encoder.layers):
            part.compile()
        self.decode = torch.compile(model.decoder, dynamic=False)
        self.keys_values = torch.compile(model.decoder.keys_values, dynamic=False)
        self.steps = 0  # the first ones compile and choose algorithms, which no graph can hold
        self.batch: Batch | None = None  # in the memory that the graph reads
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, keys_values: list[Any], rays: Rays) -> Prediction:
        """Decodes as the model's decoder does."""
        predicted: Prediction = self.decode(keys_values, rays)
        return predicted

    def accumulate_gradients(
        self, batch: Batch, rays_per_group: int, reduction: Reduction | None
    ) -> Tensor:
        """Returns the error; the gradients stand in the same memory at each step."""
        if self.batch is None:
            self.batch = batch.clone()
        for name, value in batch.tensors().items():
            getattr(self.batch, name).copy_(value)
        self.steps += 1
        if self.steps <= 2:
            return add_gradients(self.model, self, self.batch, rays_per_group, reduction)
        parameters = list(self.model.parameters())
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            # Threads that read data ahead go on meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.error = add_gradients(self.model, self, self.batch, rays_per_group, reduction)
            self.gradients = [parameter.grad for parameter in parameters]
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients):
            parameter.grad = gradient
        return self.error.clone()


def compiled_decoder(model: SRT, device: torch.device) -> Any:
    """Returns what decodes in training."""
    return Recording(model) if device.type == "cuda" else model.decoder
