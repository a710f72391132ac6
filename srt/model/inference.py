"""How a model runs: in which precision, and how many rays it decodes at once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from srt.geometry.rays import Rays
from srt.model.decoder import LayerKeysValues, Prediction
from srt.model.srt import SRT

# The memory that a query needs in training, at most: the largest of all models, with its share of
# the input images.
BYTES_PER_QUERY = 100_000

# Larger groups of queries are hardly faster.
MAX_QUERIES = 131_072

# How many times as many queries are decoded at once without gradients. Nothing is saved for a
# backward pass then, and the launches of small groups take longer than their work in bfloat16.
INFERENCE_FACTOR = 4

# PyTorch's implementations of attention, the fastest first. The first one that can is used.
ATTENTION_BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@contextlib.contextmanager
def training_precision(device: torch.device) -> Iterator[None]:
    """Compute matrix products and convolutions in bfloat16 on a GPU, and in float32 elsewhere.

    The ray encoding, the norms and the loss stay in float32 everywhere.
    """
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(ATTENTION_BACKENDS, set_priority=True):
        yield


@contextlib.contextmanager
def float32_precision() -> Iterator[None]:
    """Compute convolutions in float32, as matrix products are by default.

    On a GPU, PyTorch's default for convolutions is TF32, which has a fraction of only ten bits.
    """
    previous = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = previous


def queries_for_memory(free_bytes: int) -> int:
    """Return how many queries to decode at once with this much free memory: a power of two."""
    # Half of the memory is left to everything else.
    fitting = max(1, free_bytes // 2 // BYTES_PER_QUERY)
    power_of_two = 1 << fitting.bit_length() - 1
    return min(MAX_QUERIES, power_of_two)


@functools.lru_cache
def queries_that_fit(device: torch.device) -> int:
    """Return how many queries fit into the GPU memory that was free at the first call.

    The answer is cached, so that a run never changes its groups. On a CPU it is always the maximum.
    """
    if device.type != "cuda":
        return MAX_QUERIES

    # PyTorch keeps memory that it has freed, so the GPU counts it as used.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return queries_for_memory(torch.cuda.mem_get_info(device)[0] + unused)


def decode_in_groups(
    model: SRT, keys_values: list[LayerKeysValues], rays: Rays, queries_per_group: int | None
) -> Prediction:
    """Return colours and depth of any number of rays, decoding one group after the other.

    Args:
        queries_per_group: how many queries are decoded at once, of all scenes together; None: as
            many as fit. A ray is `model.decoder.queries_per_ray` queries. A group has at least one
            ray of each scene.
    """
    # Choose how many rays of each scene are in a group.
    scenes = rays.origins.shape[0]
    queries = queries_per_group or queries_that_fit(rays.origins.device)
    if queries_per_group is None and rays.origins.is_cuda and not torch.is_grad_enabled():
        queries *= INFERENCE_FACTOR
    size = max(1, queries // (scenes * model.decoder.queries_per_ray))

    # Rays do not see each other, so the groups' results together are those of all rays at once.
    groups = [model.decode(keys_values, group) for group in rays.split(size)]
    depths = [group.depth for group in groups if group.depth is not None]
    return Prediction(
        colours=torch.cat([group.colours for group in groups], dim=1),
        depth=torch.cat(depths, dim=1) if depths else None,
    )
