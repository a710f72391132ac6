"""Attention of many queries to a few hundred tokens: kernels of our own against cuDNN's.

    python -m benchmarks.attention

In a group of rays, forward and backward, with what it takes to deal out and join the heads. A
decoder's queries are many and its keys few: a program here holds the queries' channels as they
stand side by side, goes through all keys, and its backward writes the queries' gradient without a
pass before or behind. cuDNN needs both, and its blocks are made for long rows of keys. Kernels
that win by this benchmark belong into srt/models/kernels.py; none of them is there yet.

b scenes, n queries, m tokens, h heads of d channels.
"""

# ruff: noqa: N803  (what is known when a kernel is compiled is in capitals)

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from srt.models import ATTENTION
from srt.models.attention import join_heads, split_heads
from srt.shapes import Float

SIZES = {"SRT, MSN": (16, 8192, 320), "ISRT, MSN": (12, 8192, 1280), "SRT, CLEVR3D": (16, 8192, 80)}
HEADS, DIM = 12, 64
MOST = 1e-2  # relative error: of products in bfloat16


class Shape(NamedTuple):
    """Of a kernel's program: queries and tokens in hand, warps, stages."""

    rows: int
    chunk: int
    warps: int
    stages: int


SHAPES = [Shape(*numbers, 2) for numbers in itertools.product((64, 128), (64, 128), (4, 8))]
FIXED = Shape(64, 64, 4, 2)


@triton.jit
def _forward_kernel(
    query, key, value, out, logsum, count,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    head, scene = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    here, token = (row < count)[:, None], tl.arange(0, CHUNK)
    place = (scene * count + row[:, None]) * (HEADS * DIM) + head * DIM + channel[None, :]
    own = (scene * HEADS + head) * TOKENS * DIM
    q = tl.load(query + place, mask=here, other=0.0)
    highest = tl.full((ROWS,), -float("inf"), tl.float32)
    total, gathered = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS, DIM), tl.float32)
    for start in range(0, TOKENS, CHUNK):
        known = start + token < TOKENS
        at = own + (start + token)[:, None] * DIM + channel[None, :]
        k = tl.load(key + at, mask=known[:, None], other=0.0)
        v = tl.load(value + at, mask=known[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k)) * 1.44269504
        scores = tl.where(known[None, :], scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp2(highest - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        gathered = tl.dot(weights.to(v.dtype), v, gathered * shrink[:, None])
        highest = higher
    tl.store(out + place, (gathered / total[:, None]).to(out.dtype.element_ty), mask=here)
    tl.store(logsum + (scene * HEADS + head) * count + row, highest + tl.log2(total), row < count)


@triton.jit
def _query_gradient_kernel(
    query, key, value, out, logsum, dout, dquery, delta, count,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    head, scene = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    here, token = (row < count)[:, None], tl.arange(0, CHUNK)
    place = (scene * count + row[:, None]) * (HEADS * DIM) + head * DIM + channel[None, :]
    own, line = (scene * HEADS + head) * TOKENS * DIM, (scene * HEADS + head) * count + row
    q = tl.load(query + place, mask=here, other=0.0)
    do = tl.load(dout + place, mask=here, other=0.0)
    o = tl.load(out + place, mask=here, other=0.0)
    part = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(delta + line, part, row < count)
    sums = tl.load(logsum + line, row < count, other=0.0)
    dq = tl.zeros((ROWS, DIM), tl.float32)
    for start in range(0, TOKENS, CHUNK):
        known = start + token < TOKENS
        at = own + (start + token)[:, None] * DIM + channel[None, :]
        k = tl.load(key + at, mask=known[:, None], other=0.0)
        v = tl.load(value + at, mask=known[:, None], other=0.0)
        weights = tl.exp2(tl.dot(q, tl.trans(k)) * 1.44269504 - sums[:, None])
        weights = tl.where(known[None, :], weights, 0.0)
        ds = weights * (tl.dot(do, tl.trans(v)) - part[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    tl.store(dquery + place, dq.to(dquery.dtype.element_ty), mask=here)


@triton.jit
def _token_gradient_kernel(
    query, key, value, logsum, dout, delta, dkey, dvalue, count,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    head, scene = tl.program_id(1), tl.program_id(2).to(tl.int64)
    token, channel = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK), tl.arange(0, DIM)
    known, own = (token < TOKENS)[:, None], (scene * HEADS + head) * TOKENS * DIM
    at = own + token[:, None] * DIM + channel[None, :]
    k = tl.load(key + at, mask=known, other=0.0)
    v = tl.load(value + at, mask=known, other=0.0)
    dk, dv = tl.zeros((CHUNK, DIM), tl.float32), tl.zeros((CHUNK, DIM), tl.float32)
    first = scene * count * (HEADS * DIM) + head * DIM
    line = (scene * HEADS + head) * count
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        here = row < count
        place = first + row[:, None] * (HEADS * DIM) + channel[None, :]
        q = tl.load(query + place, mask=here[:, None], other=0.0)
        do = tl.load(dout + place, mask=here[:, None], other=0.0)
        sums = tl.load(logsum + line + row, here, other=float("inf"))  # then a weight is 0
        part = tl.load(delta + line + row, here, other=0.0)
        weights = tl.exp2(tl.dot(k, tl.trans(q)) * 1.44269504 - sums[None, :])
        dv = tl.dot(weights.to(do.dtype), do, dv)
        ds = weights * (tl.dot(v, tl.trans(do)) - part[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    tl.store(dkey + at, dk.to(dkey.dtype.element_ty), mask=known)
    tl.store(dvalue + at, dv.to(dvalue.dtype.element_ty), mask=known)


def _launch(kernel: Any, shape: Shape, blocks: int, tensors: list[Tensor], key: Tensor) -> None:
    scenes, heads, tokens, dim = key.shape
    sizes = {"TOKENS": tokens, "HEADS": heads, "DIM": dim, "ROWS": shape.rows}
    launch = {"CHUNK": shape.chunk, "num_warps": shape.warps, "num_stages": shape.stages}
    kernel[(blocks, heads, scenes)](*tensors, tensors[0].shape[1], **sizes, **launch)


def forward(
    query: Float[Tensor, "b n hd"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    shape: Shape,
) -> tuple[Float[Tensor, "b n hd"], Float[Tensor, "b h n"]]:
    """Returns what queries gather, their heads side by side, and the log2 of the scores' sums."""
    out, (scenes, count, _) = torch.empty_like(query), query.shape
    logsum = query.new_empty(scenes, key.shape[1], count, dtype=torch.float32)
    blocks = triton.cdiv(count, shape.rows)
    _launch(_forward_kernel, shape, blocks, [query, key, value, out, logsum], key)
    return out, logsum


def backward(
    query: Float[Tensor, "b n hd"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    out: Float[Tensor, "b n hd"],
    logsum: Float[Tensor, "b h n"],
    dout: Float[Tensor, "b n hd"],
    shapes: tuple[Shape, Shape],
) -> tuple[Float[Tensor, "b n hd"], Float[Tensor, "b h m d"], Float[Tensor, "b h m d"]]:
    """Returns the gradients of queries, keys and values; `shapes` of their two kernels."""
    (of_queries, of_tokens), delta, dquery = shapes, torch.empty_like(logsum), torch.empty_like(out)
    tensors = [query, key, value, out, logsum, dout, dquery, delta]
    blocks = triton.cdiv(query.shape[1], of_queries.rows)
    _launch(_query_gradient_kernel, of_queries, blocks, tensors, key)
    dkey, dvalue = torch.empty_like(key), torch.empty_like(value)
    tensors = [query, key, value, logsum, dout, delta, dkey, dvalue]
    blocks = triton.cdiv(key.shape[2], of_tokens.chunk)
    _launch(_token_gradient_kernel, of_tokens, blocks, tensors, key)
    return dquery, dkey, dvalue


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns the same by PyTorch, as srt/models/fused.py calls it."""
    split = split_heads(query, key.shape[1])
    return join_heads(F.scaled_dot_product_attention(split, key, value, scale=1.0))


def random_tensors(
    scenes: int, count: int, tokens: int, device: str, kind: torch.dtype
) -> list[Tensor]:
    """Returns queries, keys, values and a gradient."""
    wide = [torch.randn(scenes, count, HEADS * DIM, device=device).to(kind) for _ in range(2)]
    pair = [torch.randn(scenes, HEADS, tokens, DIM, device=device).to(kind) for _ in range(2)]
    return [wide[0] * DIM**-0.5, *pair, wide[1]]


def errors(device: str, kind: torch.dtype, count: int, tokens: int) -> list[float]:
    """Returns the relative errors of output and gradients against float64."""
    query, key, value, dout = random_tensors(2, count, tokens, device, kind)
    shape = Shape(64, 64, 4, 2)
    out, logsum = forward(query, key, value, shape)
    found = [out, *backward(query, key, value, out, logsum, dout, (shape, shape))]
    exact = [part.double().requires_grad_() for part in (query, key, value)]
    wanted = plain(*exact)
    gradients = torch.autograd.grad(wanted, exact, dout.double())
    pairs = zip(found, (wanted, *gradients))
    return [((ours - theirs).norm() / theirs.norm()).item() for ours, theirs in pairs]


def best(work: Callable[[Shape], object]) -> Shape:
    """Returns the fastest shape; those that do not fit the GPU are left out."""
    times = []
    for shape in SHAPES:
        with contextlib.suppress(triton.runtime.OutOfResources):
            times.append((milliseconds(functools.partial(work, shape)), shape))
    return min(times)[1]


def milliseconds(work: Callable[[], object]) -> float:
    """Returns the median."""
    found: float = triton.testing.do_bench(work, return_mode="median")
    return found


def fastest_shapes(tensors: list[Tensor]) -> list[Shape]:
    """Returns those of the forward kernel, and of the two of backward."""
    query, key, value, dout = tensors
    first = best(lambda shape: forward(query, key, value, shape))
    known = (query, key, value, *forward(query, key, value, first), dout)
    of_queries = best(lambda shape: backward(*known, (shape, FIXED)))
    return [first, of_queries, best(lambda shape: backward(*known, (of_queries, shape)))]


def compare(tensors: list[Tensor], shapes: list[Shape]) -> dict[str, float]:
    """Returns the milliseconds of cuDNN and of ours, forward and backward."""
    query, key, value, dout = tensors
    inputs = [part.clone().requires_grad_() for part in (query, key, value)]
    with sdpa_kernel(ATTENTION, set_priority=True):
        seen = plain(*inputs)
        theirs = milliseconds(lambda: plain(*inputs))
        theirs_back = milliseconds(
            lambda: torch.autograd.grad(seen, inputs, dout, retain_graph=True)
        )
    known = (query, key, value, *forward(query, key, value, shapes[0]), dout)
    return {
        "cuDNN, forward": theirs,
        "cuDNN, backward": theirs_back,
        "ours, forward": milliseconds(lambda: forward(query, key, value, shapes[0])),
        "ours, backward": milliseconds(lambda: backward(*known, (shapes[1], shapes[2]))),
    }


def main() -> None:
    """Prints errors, and the milliseconds of both ways; ends where an error is too large."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = errors("cuda", torch.bfloat16, 1000, 320)
    print(torch.cuda.get_device_name(), "errors", found)
    if not max(found) < MOST:
        raise SystemExit(f"an error is above {MOST}: the kernels are wrong here")
    shapes: list[Shape] = []
    for name, size in SIZES.items():
        tensors = random_tensors(*size, "cuda", torch.bfloat16)
        shapes = shapes or fastest_shapes(tensors)
        times = compare(tensors, shapes).items()
        print(name, *(f"{way} {time:.3f} ms;" for way, time in times), flush=True)
    print("shapes", *(tuple(shape) for shape in shapes))


if __name__ == "__main__":
    main()
