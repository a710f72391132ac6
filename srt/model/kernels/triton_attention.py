"""Triton kernels: attention to a few hundred tokens, forward and backward.

Imported on a GPU only; srt/model/attention.py says when they are used. A program of the first two
holds some queries of a head and goes through all of its tokens, one of the third holds tokens and
goes through the queries. They read and write channels where they stand, heads side by side, so that
no pass before or behind deals them out. `benchmarks/attention_speed.py` compares them with cuDNN's, whose
blocks are made for long rows of tokens.

b scenes, n queries, m tokens, h heads of d channels.
"""

# ruff: noqa: N803, N806  (what is known when a kernel is compiled is in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.common.shapes import Float


class Shape(NamedTuple):
    """Of a kernel's program: queries and tokens in hand, warps, stages."""

    rows: int
    chunk: int
    warps: int
    stages: int


FORWARD = Shape(64, 64, 4, 2)  # and the next two: the fastest of eight on an H100, 320 tokens
OF_QUERIES = Shape(64, 64, 4, 2)
OF_TOKENS = Shape(128, 64, 4, 2)


@triton.jit
def _forward_kernel(
    query, key, value, out, logsum, count, scale,
    query_scene, query_head, query_row, key_scene, key_head, key_row,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    EVEN: tl.constexpr = TOKENS % CHUNK == 0
    head, scene = tl.program_id(1), tl.program_id(2).to(tl.int64)
    twos = scale * 1.44269504  # powers of two are what a GPU has
    row, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)[None, :]
    here, token = (row < count)[:, None], tl.arange(0, CHUNK)
    query += scene * query_scene + head * query_head + channel
    key += scene * key_scene + head * key_head + channel
    value += scene * key_scene + head * key_head + channel
    out += (scene * count + row[:, None]) * (HEADS * DIM) + head * DIM + channel
    q = tl.load(query + row[:, None] * query_row, mask=here, other=0.0)
    highest = tl.full((ROWS,), -float("inf"), tl.float32)
    total, gathered = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS, DIM), tl.float32)
    for start in range(0, TOKENS, CHUNK):
        known = start + token < TOKENS
        at = (start + token)[:, None] * key_row
        k = tl.load(key + at, mask=known[:, None], other=0.0)
        v = tl.load(value + at, mask=known[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k))
        if not EVEN:
            scores = tl.where(known[None, :], scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1) * twos)
        shrink = tl.exp2(highest - higher)
        weights = tl.exp2(scores * twos - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        gathered = tl.dot(weights.to(v.dtype), v, gathered * shrink[:, None])
        highest = higher
    tl.store(out, (gathered / total[:, None]).to(out.dtype.element_ty), mask=here)
    tl.store(logsum + (scene * HEADS + head) * count + row, highest + tl.log2(total), row < count)


@triton.jit
def _query_gradient_kernel(
    query, key, value, out, logsum, dout, dquery, delta, count, scale,
    query_scene, query_head, query_row, key_scene, key_head, key_row,
    dquery_scene, dquery_head, dquery_row,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    EVEN: tl.constexpr = TOKENS % CHUNK == 0
    head, scene = tl.program_id(1), tl.program_id(2).to(tl.int64)
    twos = scale * 1.44269504  # powers of two are what a GPU has
    row, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)[None, :]
    here, token = (row < count)[:, None], tl.arange(0, CHUNK)
    query += scene * query_scene + head * query_head + channel
    key += scene * key_scene + head * key_head + channel
    value += scene * key_scene + head * key_head + channel
    dquery += scene * dquery_scene + head * dquery_head + channel
    place = (scene * count + row[:, None]) * (HEADS * DIM) + head * DIM + channel
    line = (scene * HEADS + head) * count + row
    q = tl.load(query + row[:, None] * query_row, mask=here, other=0.0)
    do = tl.load(dout + place, mask=here, other=0.0)
    o = tl.load(out + place, mask=here, other=0.0)
    part = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(delta + line, part, row < count)
    sums = tl.load(logsum + line, row < count, other=0.0)
    dq = tl.zeros((ROWS, DIM), tl.float32)
    for start in range(0, TOKENS, CHUNK):
        known = start + token < TOKENS
        at = (start + token)[:, None] * key_row
        k = tl.load(key + at, mask=known[:, None], other=0.0)
        v = tl.load(value + at, mask=known[:, None], other=0.0)
        weights = tl.exp2(tl.dot(q, tl.trans(k)) * twos - sums[:, None])
        if not EVEN:
            weights = tl.where(known[None, :], weights, 0.0)
        ds = weights * (tl.dot(do, tl.trans(v)) - part[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    dq *= scale
    tl.store(dquery + row[:, None] * dquery_row, dq.to(dquery.dtype.element_ty), mask=here)


@triton.jit
def _token_gradient_kernel(
    query, key, value, logsum, dout, delta, dkey, dvalue, count, scale,
    query_scene, query_head, query_row, key_scene, key_head, key_row,
    dkey_scene, dkey_head, dkey_row,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    head, scene = tl.program_id(1), tl.program_id(2).to(tl.int64)
    twos = scale * 1.44269504  # powers of two are what a GPU has
    token, channel = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK), tl.arange(0, DIM)[None, :]
    known = (token < TOKENS)[:, None]
    query += scene * query_scene + head * query_head + channel
    at = scene * key_scene + head * key_head + token[:, None] * key_row + channel
    k = tl.load(key + at, mask=known, other=0.0)
    v = tl.load(value + at, mask=known, other=0.0)
    dk, dv = tl.zeros((CHUNK, DIM), tl.float32), tl.zeros((CHUNK, DIM), tl.float32)
    dout += scene * count * (HEADS * DIM) + head * DIM + channel
    line = (scene * HEADS + head) * count
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        here = row < count
        q = tl.load(query + row[:, None] * query_row, mask=here[:, None], other=0.0)
        do = tl.load(dout + row[:, None] * (HEADS * DIM), mask=here[:, None], other=0.0)
        sums = tl.load(logsum + line + row, here, other=float("inf"))  # then a weight is 0
        part = tl.load(delta + line + row, here, other=0.0)
        weights = tl.exp2(tl.dot(k, tl.trans(q)) * twos - sums[None, :])
        dv = tl.dot(weights.to(do.dtype), do, dv)
        ds = weights * (tl.dot(v, tl.trans(do)) - part[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    dk *= scale
    at = scene * dkey_scene + head * dkey_head + token[:, None] * dkey_row + channel
    tl.store(dkey + at, dk.to(dkey.dtype.element_ty), mask=known)
    tl.store(dvalue + at, dv.to(dvalue.dtype.element_ty), mask=known)


def _launch(
    kernel: Any,
    shape: Shape,
    blocks: int,
    tensors: list[Tensor],
    scale: float,
    strided: list[Tensor],
) -> None:
    """Runs a kernel; of `strided`, which are b h n d, it is told where rows and heads stand."""
    query, key = tensors[:2]
    scenes, heads, tokens, dim = key.shape
    sizes = {"TOKENS": tokens, "HEADS": heads, "DIM": dim, "ROWS": shape.rows, "CHUNK": shape.chunk}
    places = [step for tensor in strided for step in tensor.stride()[:3]]
    launch = {"num_warps": shape.warps, "num_stages": shape.stages}
    kernel[(blocks, heads, scenes)](*tensors, query.shape[2], scale, *places, **sizes, **launch)


def _fitted(shape: Shape, queries: int, tokens: int) -> Shape:
    """Returns a shape that is no larger than what there is; a product's sides are 16 at least."""
    rows, chunk = (max(16, triton.next_power_of_2(count)) for count in (queries, tokens))
    return shape._replace(rows=min(shape.rows, rows), chunk=min(shape.chunk, chunk))


def forward(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    scale: float,
    shape: Shape = FORWARD,
) -> tuple[Float[Tensor, "b n h d"], Float[Tensor, "b h n"]]:
    """Returns what queries gather, and the log2 of the sums of their scores' powers.

    Channels stand side by side, and keys and values stand alike.
    """
    scenes, heads, count, dim = query.shape
    out = query.new_empty(scenes, count, heads, dim)
    logsum = query.new_empty(scenes, heads, count, dtype=torch.float32)
    shape = _fitted(shape, count, key.shape[2])
    blocks, tensors = triton.cdiv(count, shape.rows), [query, key, value, out, logsum]
    _launch(_forward_kernel, shape, blocks, tensors, scale, [query, key])
    return out, logsum


def backward(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    out: Float[Tensor, "b n h d"],
    logsum: Float[Tensor, "b h n"],
    dout: Float[Tensor, "b n h d"],
    scale: float,
    into: tuple[Tensor, Tensor, Tensor],
    shapes: tuple[Shape, Shape] = (OF_QUERIES, OF_TOKENS),
) -> None:
    """Writes the gradients of queries, keys and values.

    Args:
        out: as is `logsum`, of `forward`; `dout`, its gradient, is contiguous.
        into: three tensors shaped as query, key and value; the last two stand alike.
    """
    dquery, dkey, dvalue = into
    of_queries, of_tokens = (_fitted(shape, query.shape[2], key.shape[2]) for shape in shapes)
    delta, seen = torch.empty_like(logsum), [query, key, value]
    blocks = triton.cdiv(query.shape[2], of_queries.rows)
    tensors = [*seen, out, logsum, dout, dquery, delta]
    _launch(_query_gradient_kernel, of_queries, blocks, tensors, scale, [query, key, dquery])
    blocks = triton.cdiv(key.shape[2], of_tokens.chunk)
    tensors = [*seen, logsum, dout, delta, dkey, dvalue]
    _launch(_token_gradient_kernel, of_tokens, blocks, tensors, scale, [query, key, dkey])
