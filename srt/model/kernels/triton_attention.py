"""Triton kernels of attention to at most a few hundred tokens, forward and backward.

srt/model/attention.py says when they are used. cuDNN's kernels are made for long sequences; with
few tokens these are faster, as `benchmarks/attention_speed.py` measures. They also read and write
each head where it lies between the others in memory, so that no pass over memory transposes heads.

The algorithm is that of FlashAttention-2 (Dao 2023). Scores are never written to memory: a program
holds a block of queries and goes through the tokens chunk by chunk, keeping a running maximum and
sum of the softmax. For the backward pass only the logarithm of that sum is saved. The weights are
then computed again. The kernel for the gradients of keys and values holds tokens and goes through
the queries.

Softmax is computed with powers of two, for which GPUs have an instruction: e^x = 2^(x log2 e).

b scenes, n queries, m tokens, h heads of d channels.
"""

# ruff: noqa: N803, N806  (constants of a compiled kernel are in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.common.shapes import Float


class BlockShape(NamedTuple):
    """The sizes of a kernel's program."""

    rows: int  # queries of a block
    chunk: int  # tokens of a chunk
    warps: int
    stages: int


# The fastest of eight that were measured on an H100 with 320 tokens: for the forward kernel, and
# for the gradients of the queries and of the tokens.
FORWARD = BlockShape(64, 64, 4, 2)
QUERY_GRADIENT = BlockShape(64, 64, 4, 2)
TOKEN_GRADIENT = BlockShape(128, 64, 4, 2)


def forward(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    scale: float,
    shape: BlockShape = FORWARD,
) -> tuple[Float[Tensor, "b n h d"], Float[Tensor, "b h n"]]:
    """Return what queries gather, and the base-2 logarithm of their softmax's sum.

    Neighbouring channels must be neighbours in memory, and keys and values have equal strides.
    """
    scenes, heads, count, dim = query.shape
    out = query.new_empty(scenes, count, heads, dim)
    logsum = query.new_empty(scenes, heads, count, dtype=torch.float32)
    shape = _limit_shape(shape, count, key.shape[2])
    blocks = triton.cdiv(count, shape.rows)
    tensors = [query, key, value, out, logsum]
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
    shapes: tuple[BlockShape, BlockShape] = (QUERY_GRADIENT, TOKEN_GRADIENT),
) -> None:
    """Write the gradients of queries, keys and values.

    Args:
        out: what `forward` returned, as is `logsum`.
        dout: the gradient of `out`, contiguous.
        into: the tensors to write to, shaped as query, key and value. The last two have equal
            strides.
    """
    dquery, dkey, dvalue = into
    queries, tokens = query.shape[2], key.shape[2]
    query_shape, token_shape = (_limit_shape(shape, queries, tokens) for shape in shapes)

    # The first kernel also computes `delta`, one number for each query, which the second one needs.
    delta = torch.empty_like(logsum)
    blocks = triton.cdiv(queries, query_shape.rows)
    tensors = [query, key, value, out, logsum, dout, dquery, delta]
    _launch(_query_gradient_kernel, query_shape, blocks, tensors, scale, [query, key, dquery])

    blocks = triton.cdiv(tokens, token_shape.chunk)
    tensors = [query, key, value, logsum, dout, delta, dkey, dvalue]
    _launch(_token_gradient_kernel, token_shape, blocks, tensors, scale, [query, key, dkey])


def _launch(
    kernel: Any,
    shape: BlockShape,
    blocks: int,
    tensors: list[Tensor],
    scale: float,
    strided: list[Tensor],
) -> None:
    """Run a kernel with one program for each block, head and scene.

    Args:
        strided: the tensors (b h n d) whose strides of scenes, heads and rows the kernel gets.
    """
    query, key = tensors[:2]
    scenes, heads, tokens, dim = key.shape
    sizes = {"TOKENS": tokens, "HEADS": heads, "DIM": dim, "ROWS": shape.rows, "CHUNK": shape.chunk}
    strides = [stride for tensor in strided for stride in tensor.stride()[:3]]
    launch = {"num_warps": shape.warps, "num_stages": shape.stages}
    kernel[(blocks, heads, scenes)](*tensors, query.shape[2], scale, *strides, **sizes, **launch)


def _limit_shape(shape: BlockShape, queries: int, tokens: int) -> BlockShape:
    """Return `shape` with no more rows than queries and no longer chunks than there are tokens.

    Both stay powers of two, and at least 16, which is the smallest matrix that Triton multiplies.
    """
    rows = min(shape.rows, max(16, triton.next_power_of_2(queries)))
    chunk = min(shape.chunk, max(16, triton.next_power_of_2(tokens)))
    return shape._replace(rows=rows, chunk=chunk)


@triton.jit
def _load_tokens(key, value, start, key_row, TOKENS: tl.constexpr, CHUNK: tl.constexpr):
    """Return the keys and values of a chunk of tokens, and which of its tokens exist."""
    token = start + tl.arange(0, CHUNK)
    token_mask = token < TOKENS
    offset = token[:, None] * key_row
    k = tl.load(key + offset, mask=token_mask[:, None], other=0.0)
    v = tl.load(value + offset, mask=token_mask[:, None], other=0.0)
    return k, v, token_mask


@triton.jit
def _add_to_softmax(scores, v, log2_scale, highest, total, gathered):
    """Return the state of the softmax with one more chunk of tokens.

    The state of a query is its highest score so far, the sum of 2^(score - highest), and the sum of
    the values with these weights. A new highest score shrinks what has been summed before.
    """
    higher = tl.maximum(highest, tl.max(scores, 1) * log2_scale)
    shrink = tl.exp2(highest - higher)
    weights = tl.exp2(scores * log2_scale - higher[:, None])
    total = total * shrink + tl.sum(weights, 1)
    gathered = tl.dot(weights.to(v.dtype), v, gathered * shrink[:, None])
    return higher, total, gathered


@triton.jit
def _forward_kernel(
    query, key, value, out, logsum, count, scale,
    query_scene, query_head, query_row, key_scene, key_head, key_row,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    # A program has a block of queries of one head of one scene. `count` is the number of queries;
    # those beyond it are masked.
    EVEN: tl.constexpr = TOKENS % CHUNK == 0
    head = tl.program_id(1)
    scene = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_mask = (row < count)[:, None]
    channel = tl.arange(0, DIM)[None, :]

    # Where the scene's head begins in each tensor. The strides are those of `query` and `key`.
    query += scene * query_scene + head * query_head + channel
    key += scene * key_scene + head * key_head + channel
    value += scene * key_scene + head * key_head + channel
    out += (scene * count + row[:, None]) * (HEADS * DIM) + head * DIM + channel

    # Go through the tokens. A token beyond the end has a score that gives it a weight of 0.
    log2_scale = scale * 1.44269504
    q = tl.load(query + row[:, None] * query_row, mask=row_mask, other=0.0)
    highest = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    gathered = tl.zeros((ROWS, DIM), tl.float32)
    for start in range(0, TOKENS, CHUNK):
        k, v, token_mask = _load_tokens(key, value, start, key_row, TOKENS, CHUNK)
        scores = tl.dot(q, tl.trans(k))
        if not EVEN:
            scores = tl.where(token_mask[None, :], scores, -float("inf"))
        highest, total, gathered = _add_to_softmax(scores, v, log2_scale, highest, total, gathered)

    # Dividing by the sum completes the softmax.
    tl.store(out, (gathered / total[:, None]).to(out.dtype.element_ty), mask=row_mask)
    tl.store(logsum + (scene * HEADS + head) * count + row, highest + tl.log2(total), row < count)


@triton.jit
def _query_gradient_kernel(
    query, key, value, out, logsum, dout, dquery, delta, count, scale,
    query_scene, query_head, query_row, key_scene, key_head, key_row,
    dquery_scene, dquery_head, dquery_row,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    # The block of queries, and where it is in memory, as in `_forward_kernel`.
    EVEN: tl.constexpr = TOKENS % CHUNK == 0
    head = tl.program_id(1)
    scene = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_mask = (row < count)[:, None]
    channel = tl.arange(0, DIM)[None, :]
    query += scene * query_scene + head * query_head + channel
    key += scene * key_scene + head * key_head + channel
    value += scene * key_scene + head * key_head + channel
    dquery += scene * dquery_scene + head * dquery_head + channel
    out_offset = (scene * count + row[:, None]) * (HEADS * DIM) + head * DIM + channel
    sum_offset = (scene * HEADS + head) * count + row

    # delta = Σ out · dout is what the softmax's normalisation takes away from each gradient.
    q = tl.load(query + row[:, None] * query_row, mask=row_mask, other=0.0)
    do = tl.load(dout + out_offset, mask=row_mask, other=0.0)
    o = tl.load(out + out_offset, mask=row_mask, other=0.0)
    row_delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(delta + sum_offset, row_delta, row < count)

    # Compute the weights again, then the gradients of the scores and of the queries.
    log2_scale = scale * 1.44269504
    sums = tl.load(logsum + sum_offset, row < count, other=0.0)
    dq = tl.zeros((ROWS, DIM), tl.float32)
    for start in range(0, TOKENS, CHUNK):
        k, v, token_mask = _load_tokens(key, value, start, key_row, TOKENS, CHUNK)
        weights = tl.exp2(tl.dot(q, tl.trans(k)) * log2_scale - sums[:, None])
        if not EVEN:
            weights = tl.where(token_mask[None, :], weights, 0.0)
        ds = weights * (tl.dot(do, tl.trans(v)) - row_delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    dq *= scale
    tl.store(dquery + row[:, None] * dquery_row, dq.to(dquery.dtype.element_ty), mask=row_mask)


@triton.jit
def _token_gradient_kernel(
    query, key, value, logsum, dout, delta, dkey, dvalue, count, scale,
    query_scene, query_head, query_row, key_scene, key_head, key_row,
    dkey_scene, dkey_head, dkey_row,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    # A program has a chunk of tokens of one head of one scene, which stays in registers.
    head = tl.program_id(1)
    scene = tl.program_id(2).to(tl.int64)
    token = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    token_mask = (token < TOKENS)[:, None]
    channel = tl.arange(0, DIM)[None, :]
    key_offset = scene * key_scene + head * key_head + token[:, None] * key_row + channel
    k = tl.load(key + key_offset, mask=token_mask, other=0.0)
    v = tl.load(value + key_offset, mask=token_mask, other=0.0)

    # Where the scene's head begins in the tensors of queries.
    query += scene * query_scene + head * query_head + channel
    dout += scene * count * (HEADS * DIM) + head * DIM + channel
    sum_start = (scene * HEADS + head) * count

    # Go through the queries, and sum the gradients. A query beyond the end has an infinite sum, so
    # that its weights are 0.
    log2_scale = scale * 1.44269504
    dk = tl.zeros((CHUNK, DIM), tl.float32)
    dv = tl.zeros((CHUNK, DIM), tl.float32)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        row_mask = row < count
        q = tl.load(query + row[:, None] * query_row, mask=row_mask[:, None], other=0.0)
        do = tl.load(dout + row[:, None] * (HEADS * DIM), mask=row_mask[:, None], other=0.0)
        sums = tl.load(logsum + sum_start + row, row_mask, other=float("inf"))
        row_delta = tl.load(delta + sum_start + row, row_mask, other=0.0)
        weights = tl.exp2(tl.dot(k, tl.trans(q)) * log2_scale - sums[None, :])
        dv = tl.dot(weights.to(do.dtype), do, dv)
        ds = weights * (tl.dot(v, tl.trans(do)) - row_delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)

    # The gradients of keys and values have equal strides.
    dk *= scale
    offset = scene * dkey_scene + head * dkey_head + token[:, None] * dkey_row + channel
    tl.store(dkey + offset, dk.to(dkey.dtype.element_ty), mask=token_mask)
    tl.store(dvalue + offset, dv.to(dvalue.dtype.element_ty), mask=token_mask)
