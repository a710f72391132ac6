"""The loss and its gradients, in groups of rays: the same as of all at once, in less memory."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from srt.common.distributed import Reduction
from srt.data.batch import Batch
from srt.model.fused_decoder import PER_SCENE
from srt.model.inference import precision
from srt.model.srt import SRT

PIXELS_PER_RAY = 20  # of input images, in a group of scenes: then both take about as much memory


def add_gradients(
    model: SRT,
    decode: Any,
    batch: Batch,
    rays_per_group: int,
    reduction: Reduction | None = None,
) -> Tensor:
    """Adds the gradients of the loss; returns the mean squared error of the colours.

    The loss is that error, and where there are coarse colours theirs too. Neither scenes nor rays
    see each other: they are computed in groups, and the gradient is the same as of all at once. The
    memory is that of one group.
    """
    scenes, pixels = len(batch.images), batch.images[0, ..., 0].numel()
    size = group_size(1, scenes, max(1, PIXELS_PER_RAY * rays_per_group // pixels))
    mse = torch.zeros((), dtype=torch.float64, device=batch.images.device)
    parts, processes = list(batch.split(size)), reduction.world_size if reduction else 1
    for part in parts:
        share = part.colours.numel() / batch.colours.numel()
        last = reduction if part is parts[-1] else None
        mse += share * of_scenes(model, decode, part, rays_per_group, share / processes, last)
    return mse


def of_scenes(
    model: SRT,
    decode: Any,
    batch: Batch,
    rays_per_group: int,
    share: float,
    reduction: Reduction | None,
) -> Tensor:
    """Adds the gradients of these scenes' share of the loss; returns their mean squared error.

    Rays are decoded and back-propagated in groups, into the gradient of what they attend to, which
    is then that of the tokens, and the encoder runs backward once.
    """
    device = batch.images.device
    with precision(device):
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values: list[Any] = decode.keys_values(tokens)
    leaves = [each._make(part.detach().requires_grad_() for part in each) for each in keys_values]
    mse = torch.zeros((), dtype=torch.float64, device=device)
    queries = model.decoder.queries_per_ray
    scenes, rays, _ = batch.colours.shape
    at_once, of_each = group_shape(scenes, rays, max(1, rays_per_group // queries))
    for start, some in zip(range(0, scenes, at_once), batch.split(at_once)):
        here = slice(start, start + at_once)
        seen = [cut(each, here) for each in leaves]
        for group, colours in zip(some.rays.split(of_each), some.colours.split(of_each, dim=1)):
            with precision(device):
                predicted = decode(seen, group)
            parts = (predicted.colours, predicted.coarse_colours)
            errors = [(part.float() - colours).square().sum() for part in parts if part is not None]
            (sum(errors) * (share / batch.colours.numel())).backward()
            mse += errors[0].detach() / batch.colours.numel()
        for each, own in zip(leaves, seen):
            take_gradients(each, here, own)
    flat = [tensor for each in keys_values for tensor in each]
    with reduction.last_backward() if reduction else contextlib.nullcontext():
        torch.autograd.backward(flat, [leaf.grad for each in leaves for leaf in each])
    return mse


def cut(leaves: Any, here: slice) -> Any:
    """Returns leaves of which those that each scene has of its own are these scenes' alone."""
    names = [name for name in leaves._fields if name in PER_SCENE]
    own = {name: getattr(leaves, name)[here].detach().requires_grad_() for name in names}
    return leaves._replace(**own)


def take_gradients(leaves: Any, here: slice, own: Any) -> None:
    """Gives leaves the gradients of what was cut from them."""
    for name in set(leaves._fields).intersection(PER_SCENE):
        leaf = getattr(leaves, name)
        if leaf.grad is None:
            leaf.grad = torch.empty_like(leaf)
        leaf.grad[here] = getattr(own, name).grad


def group_shape(scenes: int, rays: int, most: int) -> tuple[int, int]:
    """Returns how many scenes, and how many rays of each, to decode at once.

    All groups are equal: of one shape. Whole scenes, where that makes no more groups: what they
    attend to is then read, and its gradient written, once. Else some rays of all scenes.
    """
    some, whole = group_size(scenes, rays, most), group_size(1, scenes, max(1, most // rays))
    of_one = group_size(1, rays, most)  # all of them where they fit
    if (scenes // whole) * (rays // of_one) <= rays // some:
        return whole, of_one
    return scenes, some


def group_size(scenes: int, rays: int, rays_per_group: int) -> int:
    """Returns how many rays of each scene to decode at once: equal groups, of one shape."""
    groups = math.ceil(scenes * rays / rays_per_group)
    while rays % groups:
        groups += 1
        if groups >= rays:
            return 1
    return rays // groups
