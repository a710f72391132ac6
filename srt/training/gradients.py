"""The loss and its gradients, computed in groups of rays.

Neither scenes nor rays see each other. The gradient is therefore the sum of those of any groups,
and only one group at a time is in memory.

b scenes, r rays of a scene.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from srt.common.distributed import Reduction
from srt.data.batch import Batch
from srt.model.decoder import Decoder, LayerKeysValues, Prediction
from srt.model.fused_decoder import PER_SCENE
from srt.model.inference import queries_that_fit, training_precision
from srt.model.srt import SRT

# Input pixels that take as much memory as a ray: a group of scenes holds so many for each ray.
PIXELS_PER_RAY = 20


def compute_gradients(
    model: SRT,
    batch: Batch,
    rays_per_group: int | None = None,
    reduction: Reduction | None = None,
    decoder: Decoder | None = None,
) -> Tensor:
    """Add the gradients of the loss to the parameters' and return the loss for the log.

    The loss is the mean squared error of the colours (SRT, section 3.3). VSRT adds that of its
    coarse colours to what is differentiated, but not to what is returned.

    Args:
        rays_per_group: the queries that are decoded at once; None: as many as fit.
        reduction: turns the gradients into those of all processes, each of which has an equal share
            of the batch. The returned loss stays this process' own.
        decoder: the model's decoder, compiled; None: as it is.
    """
    # The encoder's memory grows with the input pixels, so scenes are encoded in groups as well.
    rays_per_group = rays_per_group or queries_that_fit(batch.images.device)
    scenes, pixels = len(batch.images), batch.images[0, ..., 0].numel()
    scenes_per_group = largest_equal_group(
        1, scenes, max(1, PIXELS_PER_RAY * rays_per_group // pixels)
    )

    # Each group adds its share of the gradient. With the last group the gradients are complete, and
    # the processes begin to exchange them while it runs backward.
    groups = list(batch.split(scenes_per_group))
    processes = reduction.world_size if reduction else 1
    loss = torch.zeros((), dtype=torch.float64, device=batch.images.device)
    for group in groups:
        share = group.colours.numel() / batch.colours.numel()
        exchange = reduction if group is groups[-1] else None
        loss += share * backward_scene_group(
            model, decoder or model.decoder, group, rays_per_group, share / processes, exchange
        )
    return loss


def backward_scene_group(
    model: SRT,
    decoder: Decoder,
    batch: Batch,
    rays_per_group: int,
    share: float,
    reduction: Reduction | None,
) -> Tensor:
    """Add the gradients of a group of scenes and return its mean squared error.

    Args:
        share: the weight of this group's loss in the whole loss.
        reduction: exchanges the gradients, which are complete after this group.
    """
    # Encode all scenes once. What rays attend to becomes the leaves of the decoder's graph.
    device = batch.images.device
    with training_precision(device):
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = decoder.scene_keys_values(tokens)
    leaves = [detach_leaves(layer) for layer in keys_values]

    # Decode and differentiate one group of rays at a time. Its graph is freed before the next
    # group, and the leaves collect the gradients of all groups.
    error = torch.zeros((), dtype=torch.float64, device=device)
    scenes, rays, _ = batch.colours.shape  # (b, r, 3)
    most_rays = max(1, rays_per_group // model.decoder.queries_per_ray)
    scenes_at_once, rays_at_once = choose_group_shape(scenes, rays, most_rays)
    for start, some in zip(range(0, scenes, scenes_at_once), batch.split(scenes_at_once)):
        members = slice(start, start + scenes_at_once)
        own_leaves = [slice_leaves(layer, members) for layer in leaves]
        colour_groups = some.colours.split(rays_at_once, dim=1)
        for group, colours in zip(some.rays.split(rays_at_once), colour_groups):
            with training_precision(device):
                prediction = decoder(own_leaves, group)
            errors = squared_errors(prediction, colours)
            total = sum(errors[1:], start=errors[0])
            (total * (share / batch.colours.numel())).backward()
            error += errors[0].detach() / batch.colours.numel()
        for layer, own in zip(leaves, own_leaves):
            collect_gradients(layer, members, own)

    # The encoder runs backward once, from the gradients that the leaves have collected.
    outputs = [tensor for layer in keys_values for tensor in layer]
    gradients = [leaf.grad for layer in leaves for leaf in layer]
    with reduction.last_backward() if reduction else contextlib.nullcontext():
        torch.autograd.backward(outputs, gradients)
    return error


def squared_errors(prediction: Prediction, colours: Tensor) -> list[Tensor]:
    """Return the summed squared error of the colours, and of the coarse colours if there are any.

    Args:
        colours: what the rays hit, (b, r, 3).
    """
    predictions = (prediction.colours, prediction.coarse_colours)
    return [(p.float() - colours).square().sum() for p in predictions if p is not None]


def detach_leaves(layer: LayerKeysValues) -> LayerKeysValues:
    """Return a layer's tensors, cut off from the encoder's graph and ready to collect gradients."""
    tensors = {name: getattr(layer, name).detach() for name in layer._fields}
    return layer._replace(**{name: tensor.requires_grad_() for name, tensor in tensors.items()})


def slice_leaves(leaves: LayerKeysValues, members: slice) -> LayerKeysValues:
    """Return `leaves` with the per-scene tensors sliced to these scenes and detached."""
    names = [name for name in leaves._fields if name in PER_SCENE]
    own = {name: getattr(leaves, name)[members].detach().requires_grad_() for name in names}
    return leaves._replace(**own)


def collect_gradients(leaves: LayerKeysValues, members: slice, own: LayerKeysValues) -> None:
    """Copy the gradients of `own`, which `slice_leaves` returned, to these scenes of `leaves`."""
    for name in set(leaves._fields).intersection(PER_SCENE):
        leaf = getattr(leaves, name)
        if leaf.grad is None:
            leaf.grad = torch.empty_like(leaf)
        leaf.grad[members] = getattr(own, name).grad


def choose_group_shape(scenes: int, rays: int, most_rays: int) -> tuple[int, int]:
    """Return how many scenes, and how many rays of each, are decoded at once.

    All groups have this shape. Whole scenes come first, where that makes no more groups: what their
    rays attend to is then read once, and its gradient written once. Otherwise each group has some
    rays of all scenes.
    """
    rays_of_all = largest_equal_group(scenes, rays, most_rays)
    whole_scenes = largest_equal_group(1, scenes, max(1, most_rays // rays))
    rays_of_whole = largest_equal_group(1, rays, most_rays)  # all of them, if one scene fits
    if (scenes // whole_scenes) * (rays // rays_of_whole) <= rays // rays_of_all:
        return whole_scenes, rays_of_whole
    return scenes, rays_of_all


def largest_equal_group(scenes: int, rays: int, most_rays: int) -> int:
    """Return the largest divisor of `rays` with which `scenes` times it is at most `most_rays`.

    It is 1 where even one ray of each scene is too many.
    """
    groups = math.ceil(scenes * rays / most_rays)
    while rays % groups:
        groups += 1
        if groups >= rays:
            return 1
    return rays // groups
