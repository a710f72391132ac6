"""How a model runs: its precision, and how many rays it decodes at once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from srt.geometry.rays import Rays
from srt.model.decoder import LayerKeysValues, Prediction
from srt.model.srt import SRT

BYTES_PER_QUERY = 100_000  # at most, in training, of all models: of it, the input pixels' share
MAX_QUERIES = 131_072  # more are hardly faster
# Times as many without gradients: nothing is kept, and in bfloat16 launches are what takes long.
INFERENCE_FACTOR = 4
ATTENTION_BACKENDS = [  # the fastest first; the first that can is taken
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@contextlib.contextmanager
def training_precision(device: torch.device) -> Iterator[None]:
    """Products in bfloat16 on a GPU; the ray encoding, norms and loss stay in float32."""
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(ATTENTION_BACKENDS, set_priority=True):
        yield


@contextlib.contextmanager
def float32_precision() -> Iterator[None]:
    """Convolutions in float32 too: on a GPU PyTorch takes TF32 for them, of ten bits' fraction."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def queries_for_memory(free_bytes: int) -> int:
    """Returns how many queries to decode at once in so much memory: a power of two."""
    return min(MAX_QUERIES, 1 << (max(1, free_bytes // 2 // BYTES_PER_QUERY)).bit_length() - 1)


@functools.lru_cache
def rays_that_fit(device: torch.device) -> int:
    """Returns the same for what is free on a GPU when it is first asked; on a CPU, always as many.

    So the groups of a training do not change while it runs, and on a CPU never.
    """
    if device.type != "cuda":
        return MAX_QUERIES
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return queries_for_memory(torch.cuda.mem_get_info(device)[0] + unused)


def decode_in_groups(
    model: SRT, keys_values: list[LayerKeysValues], rays: Rays, queries_per_group: int | None
) -> Prediction:
    """Returns colours and depth of any number of rays, decoding `queries_per_group` at once.

    A ray is `model.decoder.queries_per_ray` queries; at least one ray of each scene is decoded.
    None: as many as fit.
    """
    scenes = rays.origins.shape[0]
    queries = queries_per_group or rays_that_fit(rays.origins.device)
    if queries_per_group is None and rays.origins.is_cuda and not torch.is_grad_enabled():
        queries *= INFERENCE_FACTOR
    size = max(1, queries // (scenes * model.decoder.queries_per_ray))
    groups = [model.decode(keys_values, group) for group in rays.split(size)]
    depths = [group.depth for group in groups if group.depth is not None]
    return Prediction(
        colours=torch.cat([group.colours for group in groups], dim=1),
        depth=torch.cat(depths, dim=1) if depths else None,
    )
