"""The published algorithm, to measure against: float32, scores in memory, all rays at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.evaluation import evaluator
from srt.model import inference
from srt.model.encoder import Encoder
from srt.model.positional_encoding import encode_inputs, ray_inputs
from srt.rendering import frames
from srt.training import gradients


def materialised_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None
) -> Tensor:
    """Returns attention with its scores written to memory, as published."""
    scores = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    return scores.softmax(dim=-1) @ value


def whole_first_layer(
    encoder: Encoder, images: Tensor, origins: Tensor, directions: Tensor
) -> Tensor:
    """Returns the first convolution of all channels at each pixel, as published."""
    positions = origins[:, :, None, None].expand_as(directions)
    channels = torch.cat(
        (images, encode_inputs(ray_inputs(positions, directions, encoder.config))), dim=-1
    )
    return F.relu(encoder.convolutions[0](channels.flatten(0, 1).permute(0, 3, 1, 2)))


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Switches off what we do for speed, but for the code around it."""
    with contextlib.ExitStack() as stack:
        attention = "torch.nn.functional.scaled_dot_product_attention"
        stack.enter_context(mock.patch(attention, materialised_attention))
        stack.enter_context(mock.patch.object(Encoder, "first_layer", whole_first_layer))
        for module in (evaluator, gradients, inference, frames):
            as_it_is = mock.Mock(side_effect=lambda device: contextlib.nullcontext())
            stack.enter_context(mock.patch.object(module, "precision", as_it_is))
        yield
