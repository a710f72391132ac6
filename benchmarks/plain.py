"""The published algorithm, with which ours is compared.

It runs in float32, writes all attention scores to memory, and decodes all rays at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.model import inference, scene
from srt.model.encoder import PatchEncoder
from srt.model.positional_encoding import encode_inputs, ray_inputs
from srt.training import gradients


def materialised_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None
) -> Tensor:
    """Return attention as published: its scores are written to memory."""
    scores = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    return scores.softmax(dim=-1) @ value


def published_first_layer(
    encoder: PatchEncoder, images: Tensor, origins: Tensor, directions: Tensor
) -> Tensor:
    """Return the first layer as published: a convolution of all channels of all pixels."""
    # Each pixel has the position of its camera, (b, v, h, w, 3).
    positions = origins[:, :, None, None].expand_as(directions)
    channels = torch.cat(
        (images, encode_inputs(ray_inputs(positions, directions, encoder.config))), dim=-1
    )
    return F.relu(encoder.convolutions[0](channels.flatten(0, 1).permute(0, 3, 1, 2)))


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Switch off what we do for speed in the model. The code around the model stays as it is."""
    with contextlib.ExitStack() as stack:
        attention = "torch.nn.functional.scaled_dot_product_attention"
        stack.enter_context(mock.patch(attention, materialised_attention))
        stack.enter_context(
            mock.patch.object(PatchEncoder, "first_convolution", published_first_layer)
        )
        for module in (gradients, inference, scene):
            no_precision = mock.Mock(side_effect=lambda device: contextlib.nullcontext())
            stack.enter_context(mock.patch.object(module, "training_precision", no_precision))
        yield
