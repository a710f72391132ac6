"""Triton kernels of the decoder's MLP: a matrix product, with the GELU and its derivative.

They save reading and writing the hidden channels once more for each elementwise operation. The
plain version is `plain_mlp` in srt/model/fused_decoder.py.

A program holds a block of rows (queries) and goes through the hidden channels, chunk by chunk.
Triton's blocks are powers of two, but rows are 96 or 192 channels wide. A row is therefore in two
blocks of 64 + 32 or 128 + 64 channels, whose names end in `_a` and `_b`.

n rows of `width` channels.
"""

# ruff: noqa: N803, N806  (constants of a compiled kernel are in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.common.shapes import Float

# By width: rows of a block, hidden channels of a chunk, warps, stages. Each is the fastest of seven
# that were measured on an H200.
EXPAND = {96: (64, 64, 4, 3), 192: (128, 32, 8, 3)}
CONTRACT_BACKWARD = {96: (64, 64, 4, 3), 192: (128, 64, 8, 2)}


def expand_gelu(
    rows: Float[Tensor, "n width"], expand: Float[Tensor, "width hidden"], with_slope: bool
) -> tuple[Float[Tensor, "n hidden"], Float[Tensor, "_ hidden"]]:
    """Return GELU(rows · expand), and the GELU's derivative there.

    Args:
        with_slope: False: the derivative is not computed, and has no rows.
    """
    count, hidden = rows.shape[0], expand.shape[1]
    activations = rows.new_empty(count, hidden)
    slope = rows.new_empty(count if with_slope else 0, hidden)
    grid, sizes = _launch_sizes(rows.shape[1], hidden, count, EXPAND)
    _expand_kernel[grid](rows, expand, activations, slope, count, WITH_SLOPE=with_slope, **sizes)
    return activations, slope


def contract_backward(
    dy: Float[Tensor, "n width"],
    contract: Float[Tensor, "hidden width"],
    slope: Float[Tensor, "n hidden"],
) -> Float[Tensor, "n hidden"]:
    """Return (dy · contractᵀ) · slope, which is the gradient of the GELU's input.

    Args:
        slope: the derivative that `expand_gelu` returned.
    """
    dx = torch.empty_like(slope)
    grid, sizes = _launch_sizes(dy.shape[1], slope.shape[1], dy.shape[0], CONTRACT_BACKWARD)
    _contract_backward_kernel[grid](dy, contract, slope, dx, dy.shape[0], **sizes)
    return dx


def _launch_sizes(
    width: int, hidden: int, count: int, by_width: dict[int, tuple[int, int, int, int]]
) -> tuple[tuple[int], dict[str, Any]]:
    """Return a kernel's grid, and the constants for which it is compiled."""
    rows, chunk, warps, stages = by_width[width]
    sizes = {"A": width // 3 * 2, "HIDDEN": hidden, "ROWS": rows, "CHUNK": chunk}
    return (triton.cdiv(count, rows),), {**sizes, "num_warps": warps, "num_stages": stages}


@triton.jit
def _gelu(x):
    """Return the integral of the normal distribution up to x, and its density.

    The integral follows Abramowitz and Stegun, 7.1.25. It is off by 1.3e-5 at most, which is a
    hundredth of bfloat16's rounding.
    """
    # exp(-x²/2) as a power of two, for which GPUs have an instruction.
    bell = tl.exp2(x * x * -0.72134752)

    # The source's t is 1 / (1 + 0.47047 |x| / sqrt(2)). The reciprocal is computed as the inverse
    # root of the square, for which GPUs have an instruction, too.
    distance = 1.0 + 0.33267253 * tl.abs(x)
    t = tl.rsqrt(distance * distance)

    # The polynomial gives the integral from |x| to infinity.
    tail = bell * t * (0.1740121 + t * (-0.0479399 + t * 0.3739278))
    return tl.where(x > 0, 1.0 - tail, tail), bell * 0.39894228


@triton.jit
def _expand_kernel(
    rows, expand, hidden, slope, count,
    WITH_SLOPE: tl.constexpr, A: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    # The channels of a row are in two blocks. The last program may have rows beyond the end.
    WIDTH: tl.constexpr = A + A // 2
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    column = tl.arange(0, CHUNK)
    channel_a = tl.arange(0, A)
    channel_b = A + tl.arange(0, A // 2)
    mask = (row < count - first)[:, None]

    # This program's rows stay in registers while it goes through the hidden channels.
    row_start = rows + first * WIDTH + row[:, None] * WIDTH
    rows_a = tl.load(row_start + channel_a[None, :], mask=mask, other=0.0)
    rows_b = tl.load(row_start + channel_b[None, :], mask=mask, other=0.0)
    hidden += first * HIDDEN
    slope += first * HIDDEN

    for start in range(0, HIDDEN, CHUNK):
        # The product of the two blocks is summed in float32.
        columns = start + column[None, :]
        x = tl.dot(rows_a, tl.load(expand + channel_a[:, None] * HIDDEN + columns))
        x = tl.dot(rows_b, tl.load(expand + channel_b[:, None] * HIDDEN + columns), x)

        # GELU(x) = x Φ(x), and its derivative is Φ(x) + x φ(x).
        integral, density = _gelu(x)
        offset = row[:, None] * HIDDEN + columns
        tl.store(hidden + offset, (x * integral).to(hidden.dtype.element_ty), mask=mask)
        if WITH_SLOPE:
            derivative = integral + x * density
            tl.store(slope + offset, derivative.to(slope.dtype.element_ty), mask=mask)


@triton.jit
def _contract_backward_kernel(
    dy, contract, slope, dx, count,
    A: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    # The blocks are those of `_expand_kernel`.
    WIDTH: tl.constexpr = A + A // 2
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    column = tl.arange(0, CHUNK)
    channel_a = tl.arange(0, A)
    channel_b = A + tl.arange(0, A // 2)
    mask = (row < count - first)[:, None]

    # This program's rows stay in registers while it goes through the hidden channels.
    row_start = dy + first * WIDTH + row[:, None] * WIDTH
    dy_a = tl.load(row_start + channel_a[None, :], mask=mask, other=0.0)
    dy_b = tl.load(row_start + channel_b[None, :], mask=mask, other=0.0)
    slope += first * HIDDEN
    dx += first * HIDDEN

    for start in range(0, HIDDEN, CHUNK):
        # The GELU's derivatives for this chunk of hidden channels.
        weights = contract + (start + column)[:, None] * WIDTH
        offset = row[:, None] * HIDDEN + (start + column)[None, :]
        derivative = tl.load(slope + offset, mask=mask, other=0.0)

        # The gradient of the activations, then that of the GELU's input.
        dh = tl.dot(dy_a, tl.trans(tl.load(weights + channel_a[None, :])))
        dh = tl.dot(dy_b, tl.trans(tl.load(weights + channel_b[None, :])), dh)
        tl.store(dx + offset, (dh * derivative).to(dx.dtype.element_ty), mask=mask)
