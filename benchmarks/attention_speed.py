"""Attention to a few hundred tokens: srt/model/kernels/triton_attention.py against cuDNN's.

    python -m benchmarks.attention_speed

Forward and backward, with what it takes to deal out and join the heads: of a group of rays in the
decoder, and of a group of scenes' tokens to each other in the encoder. srt/model/attention.py
takes the kernels where they win here (`MAX_KERNEL_TOKENS`).

b scenes, n queries, m tokens, h heads of d channels.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from srt.model.attention import join_heads
from srt.model.inference import ATTENTION_BACKENDS
from srt.model.kernels.triton_attention import (
    FORWARD,
    OF_QUERIES,
    OF_TOKENS,
    Shape,
    backward,
    forward,
)

SIZES = {  # scenes, queries, tokens
    "SRT, MSN, decoder": (16, 8192, 320),
    "SRT, MSN, encoder": (32, 320, 320),
    "SRT, NMR, encoder": (256, 16, 16),
    "SRT, CLEVR3D, decoder": (16, 8192, 80),
    "SRT, CLEVR3D, encoder": (64, 80, 80),
    "ISRT, NMR, decoder": (16, 8192, 64),
    "ISRT, MSN, decoder": (12, 8192, 1280),
    "ISRT, MSN, encoder": (24, 1280, 1280),
}
HEADS, DIM = 12, 64
SCALE = DIM**-0.5
SHAPES = [
    Shape(*numbers) for numbers in itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3))
]


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns the same by PyTorch, as srt/model/attention.py calls it."""
    return join_heads(F.scaled_dot_product_attention(query, key, value, scale=SCALE))


def random_tensors(scenes: int, count: int, tokens: int) -> list[Tensor]:
    """Returns queries, keys, values (b h n d, as they come from one product) and a gradient."""
    torch.manual_seed(0)
    several = 3 if count == tokens else 2  # self-attention: queries come from the same product
    wide = torch.randn(scenes, tokens, several, HEADS, DIM, device="cuda").bfloat16()
    parts = list(wide.permute(2, 0, 3, 1, 4).unbind())
    query = torch.randn(scenes, count, HEADS, DIM, device="cuda").bfloat16().transpose(1, 2)
    dout = torch.randn(scenes, count, HEADS, DIM, device="cuda").bfloat16()
    return [*parts, dout] if several == 3 else [query, *parts, dout]


def milliseconds(work: Callable[[], object]) -> float:
    """Returns the median."""
    found: float = triton.testing.do_bench(work, return_mode="median")
    return found


def best(work: Callable[[Shape], object]) -> tuple[float, Shape]:
    """Returns the fastest shape and its time; those that do not fit the GPU are left out."""
    times = []
    for shape in SHAPES:
        with contextlib.suppress(triton.runtime.OutOfResources):
            times.append((milliseconds(functools.partial(work, shape)), shape))
    return min(times)


def compare(tensors: list[Tensor]) -> str:
    """Returns the milliseconds of cuDNN and of ours, forward and backward, and of other shapes."""
    query, key, value, dout = tensors
    inputs = [part.clone().requires_grad_() for part in (query, key, value)]
    with sdpa_kernel(ATTENTION_BACKENDS, set_priority=True):
        seen = plain(*inputs)
        theirs = milliseconds(lambda: plain(*inputs))
        flat = dout.flatten(2)
        theirs_back = milliseconds(
            lambda: torch.autograd.grad(seen, inputs, flat, retain_graph=True)
        )
    out, logsum = forward(query, key, value, SCALE)
    dquery, dkey, dvalue = (torch.empty_like(part) for part in (query, key, value))
    into = (dquery, dkey, dvalue)
    known = (query, key, value, out, logsum, dout, SCALE, into)
    ahead, (back, shape), tokens = (
        best(lambda shape: forward(query, key, value, SCALE, shape)),
        best(lambda shape: backward(*known, (shape, OF_TOKENS))),
        best(lambda shape: backward(*known, (OF_QUERIES, shape))),
    )
    ours = milliseconds(lambda: forward(query, key, value, SCALE))
    ours_back = milliseconds(lambda: backward(*known))
    return (
        f"forward {theirs:.3f} by cuDNN, {ours:.3f} by ours ({theirs / ours:.2f} times as fast),"
        f" backward {theirs_back:.3f} and {ours_back:.3f} ({theirs_back / ours_back:.2f})\n"
        f"    at best {ahead[0]:.3f} by {tuple(ahead[1])}; {back:.3f} by {tuple(shape)} of queries,"
        f" {tokens[0]:.3f} by {tuple(tokens[1])} of tokens"
    )


def main() -> None:
    """Prints the milliseconds of both ways."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(torch.cuda.get_device_name(), *(tuple(part) for part in (FORWARD, OF_QUERIES, OF_TOKENS)))
    for name, size in SIZES.items():
        print(f"{name}: {compare(random_tensors(*size))}", flush=True)


if __name__ == "__main__":
    main()
