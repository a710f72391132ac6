"""Compares our attention kernels (srt/model/kernels/triton_attention.py) with cuDNN's.

    python -m benchmarks.attention_speed

Measured are forward and backward, with splitting into heads and joining them. The sizes are those
of a group of rays in the decoder, and of the tokens of a group of scenes in the encoder.
srt/model/attention.py uses our kernels where they are faster here (`MAX_KERNEL_TOKENS`).

Shapes: b scenes, n queries, m tokens, h heads of d channels.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from benchmarks.command_line import make_parser
from srt.model.attention import join_heads
from srt.model.inference import ATTENTION_BACKENDS

# Triton is on machines with a GPU only, so functions import it: the help needs no GPU.
if TYPE_CHECKING:
    from srt.model.kernels.triton_attention import BlockShape

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
SHAPES = list(itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3)))


def pytorch_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return PyTorch's attention, called as srt/model/attention.py calls it: (b, n, h d)."""
    return join_heads(F.scaled_dot_product_attention(query, key, value, scale=SCALE))


def random_tensors(scenes: int, count: int, tokens: int) -> list[Tensor]:
    """Return queries, keys and values, (b, h, n, d), and a gradient, (b, n, h, d).

    The strides are those of a training, in which one matrix product makes keys and values.
    """
    # In self-attention, the same product makes the queries as well.
    torch.manual_seed(0)
    outputs = 3 if count == tokens else 2
    product = torch.randn(scenes, tokens, outputs, HEADS, DIM, device="cuda").bfloat16()
    tensors = list(product.permute(2, 0, 3, 1, 4).unbind())
    query = torch.randn(scenes, count, HEADS, DIM, device="cuda").bfloat16().transpose(1, 2)
    dout = torch.randn(scenes, count, HEADS, DIM, device="cuda").bfloat16()
    return [*tensors, dout] if outputs == 3 else [query, *tensors, dout]


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median time of a function on the GPU, in milliseconds."""
    from triton.testing import do_bench

    median: float = do_bench(work, return_mode="median")
    return median


def best_shape(work: Callable[[BlockShape], object]) -> tuple[float, BlockShape]:
    """Return the time of the fastest shape, and the shape."""
    from triton.runtime import OutOfResources

    from srt.model.kernels.triton_attention import BlockShape

    # Some shapes need more shared memory than the GPU has.
    times = []
    for shape in itertools.starmap(BlockShape, SHAPES):
        with contextlib.suppress(OutOfResources):
            times.append((milliseconds(functools.partial(work, shape)), shape))
    return min(times)


def compare(tensors: list[Tensor]) -> str:
    """Return the times of cuDNN and of our kernels as text, with the fastest shapes of ours."""
    from srt.model.kernels.triton_attention import (
        QUERY_GRADIENT,
        TOKEN_GRADIENT,
        backward,
        forward,
    )

    # PyTorch, which calls cuDNN.
    query, key, value, dout = tensors
    inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    with sdpa_kernel(ATTENTION_BACKENDS, set_priority=True):
        output = pytorch_attention(*inputs)
        theirs = milliseconds(lambda: pytorch_attention(*inputs))
        flat = dout.flatten(2)
        theirs_back = milliseconds(
            lambda: torch.autograd.grad(output, inputs, flat, retain_graph=True)
        )

    # Our kernels in all shapes. Two kernels run backward, one for queries and one for tokens.
    out, logsum = forward(query, key, value, SCALE)
    gradients = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
    arguments = (query, key, value, out, logsum, dout, SCALE, gradients)
    ahead = best_shape(lambda shape: forward(query, key, value, SCALE, shape))
    back, shape = best_shape(lambda shape: backward(*arguments, (shape, TOKEN_GRADIENT)))
    tokens = best_shape(lambda shape: backward(*arguments, (QUERY_GRADIENT, shape)))

    # Our kernels in the shapes that the model uses.
    ours = milliseconds(lambda: forward(query, key, value, SCALE))
    ours_back = milliseconds(lambda: backward(*arguments))
    return (
        f"forward {theirs:.3f} by cuDNN, {ours:.3f} by ours ({theirs / ours:.2f} times as fast),"
        f" backward {theirs_back:.3f} and {ours_back:.3f} ({theirs_back / ours_back:.2f})\n"
        f"    at best {ahead[0]:.3f} by {tuple(ahead[1])}; {back:.3f} by {tuple(shape)} of queries,"
        f" {tokens[0]:.3f} by {tuple(tokens[1])} of tokens"
    )


def main() -> None:
    """Print the milliseconds of cuDNN and of our kernels for all sizes."""
    make_parser(__doc__).parse_args()
    from srt.model.kernels.triton_attention import FORWARD, QUERY_GRADIENT, TOKEN_GRADIENT

    shapes = [tuple(shape) for shape in (FORWARD, QUERY_GRADIENT, TOKEN_GRADIENT)]
    print(torch.cuda.get_device_name(), *shapes)
    for name, size in SIZES.items():
        print(f"{name}: {compare(random_tensors(*size))}", flush=True)


if __name__ == "__main__":
    main()
