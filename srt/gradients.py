"""The loss and its gradients, in groups of rays: the same as of all at once, in less memory."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from srt.data.sampling import Batch
from srt.models import SRT


def accumulate_gradients(model: SRT, decode: Any, batch: Batch, rays_per_group: int) -> Tensor:
    """Adds the gradients of the loss; returns the mean squared error of the colours.

    The loss is that error, and where there are coarse colours theirs too. Rays do not see each
    other: they are decoded and back-propagated in groups, into the gradient of the scenes' keys and
    values, and the encoder runs backward once. The gradient is the same as of all rays at once; the
    memory is that of one group.
    """
    with precision(batch.images.device):
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = model.decoder.keys_values(tokens)
    leaves = [each._make(part.detach().requires_grad_() for part in each) for each in keys_values]
    mse = torch.zeros((), dtype=torch.float64, device=tokens.device)
    scenes, rays, _ = batch.colours.shape
    most = max(1, rays_per_group // model.decoder.queries_per_ray)
    size = group_size(scenes, rays, most)
    for group, colours in zip(batch.rays.split(size), batch.colours.split(size, dim=1)):
        with precision(colours.device):
            predicted = decode(leaves, group)
        parts = (predicted.colours, predicted.coarse_colours)
        errors = [(part.float() - colours).square().sum() for part in parts if part is not None]
        (sum(errors) / batch.colours.numel()).backward()
        mse += errors[0].detach() / batch.colours.numel()
    flat = [tensor for each in keys_values for tensor in each]
    torch.autograd.backward(flat, [leaf.grad for each in leaves for leaf in each])
    return mse


def group_size(scenes: int, rays: int, rays_per_group: int) -> int:
    """Returns how many rays of each scene to decode at once: equal groups, of one shape."""
    groups = math.ceil(scenes * rays / rays_per_group)
    while rays % groups:
        groups += 1
        if groups >= rays:
            return 1
    return rays // groups


def precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Products in bfloat16 on a GPU; the ray encoding, norms and loss stay in float32."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.autocast("cuda", torch.bfloat16)


def compiled_decoder(model: SRT, device: torch.device) -> Any:
    """Returns the decoder; on a GPU it and what it can of the encoder are fused by the compiler.

    They are bound by memory traffic there. Convolutions are not: they are left as they are.
    """
    if device.type != "cuda":
        return model.decoder
    for part in (model.encoder.pixel_channels, *model.encoder.layers):
        part.compile()
    return torch.compile(model.decoder, dynamic=False)
