"""Triton kernels of the decoder's MLP: its hidden activations are never kept, nor its norm written.

Imported on a GPU only; `srt/models/fused.py` has the same in plain PyTorch, and says when to use
which. Rows are queries. Triton's blocks are powers of two, so that a width of 192 is 128 + 64, and
one of 96 is 64 + 32: names end in `_a` for the first part and in `_b` for the second.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.shapes import Float

ROWS, CHUNK = 128, 64  # of queries, of hidden channels, that a program has in hand
LEAST_VARIANCE = tl.constexpr(1e-5)  # of nn.LayerNorm


@triton.jit
def _gelu(x):
    """Returns the normal distribution's integral up to x, and its density.

    Abramowitz and Stegun, 7.1.25: off by 1.3e-5 at most, a hundredth of bfloat16's rounding.
    """
    bell = tl.exp2(x * x * -0.72134752)
    t = 1.0 / (1.0 + 0.33267253 * tl.abs(x))
    tail = bell * t * (0.1740121 + t * (-0.0479399 + t * 0.3739278))
    return tl.where(x > 0, 1.0 - tail, tail), bell * 0.39894228


@triton.jit
def _load_rows(pointer, row, count, WIDTH: tl.constexpr, A: tl.constexpr):
    """Returns both parts of the rows; 0 beyond the last one."""
    here = (row < count)[:, None]
    start = pointer + row[:, None] * WIDTH
    a = tl.load(start + tl.arange(0, A)[None, :], mask=here, other=0.0)
    b = tl.load(start + A + tl.arange(0, A // 2)[None, :], mask=here, other=0.0)
    return a, b


@triton.jit
def _store_rows(pointer, a, b, row, count, WIDTH: tl.constexpr, A: tl.constexpr):
    here = (row < count)[:, None]
    start = pointer + row[:, None] * WIDTH
    kind = pointer.dtype.element_ty
    tl.store(start + tl.arange(0, A)[None, :], a.to(kind), mask=here)
    tl.store(start + A + tl.arange(0, A // 2)[None, :], b.to(kind), mask=here)


@triton.jit
def _normalise(a, b, REAL: tl.constexpr, A: tl.constexpr):
    """Returns the rows with mean 0 and variance 1, a one behind them, and what they were scaled by.

    The real channels are fewer than the width, and the others are 0.
    """
    real_a = (tl.arange(0, A) < REAL)[None, :]
    place_b = A + tl.arange(0, A // 2)[None, :]
    a, b = a.to(tl.float32), b.to(tl.float32)
    mean = (tl.sum(a, axis=1) + tl.sum(b, axis=1)) / REAL
    a = tl.where(real_a, a - mean[:, None], 0.0)
    b = tl.where(place_b < REAL, b - mean[:, None], 0.0)
    variance = (tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / REAL
    scale = 1.0 / tl.sqrt(variance + LEAST_VARIANCE)
    return a * scale[:, None], tl.where(place_b == REAL, 1.0, b * scale[:, None]), scale


@triton.jit
def _forward_kernel(
    x, expand, contract, bias, y, count,
    REAL: tl.constexpr, A: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = A + A // 2
    kind = x.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    place_a, place_b = tl.arange(0, A), A + tl.arange(0, A // 2)
    x_a, x_b = _load_rows(x, row, count, WIDTH, A)
    n_a, n_b, scale = _normalise(x_a, x_b, REAL, A)
    n_a, n_b = n_a.to(kind), n_b.to(kind)
    y_a = tl.zeros((ROWS, A), tl.float32)
    y_b = tl.zeros((ROWS, A // 2), tl.float32)
    for start in range(0, HIDDEN, CHUNK):
        hidden = start + tl.arange(0, CHUNK)
        expand_a = tl.load(expand + place_a[:, None] * HIDDEN + hidden[None, :])
        expand_b = tl.load(expand + place_b[:, None] * HIDDEN + hidden[None, :])
        h = tl.dot(n_a, expand_a)
        h = tl.dot(n_b, expand_b, h)
        part, density = _gelu(h)
        h = (h * part).to(kind)
        y_a = tl.dot(h, tl.load(contract + hidden[:, None] * WIDTH + place_a[None, :]), y_a)
        y_b = tl.dot(h, tl.load(contract + hidden[:, None] * WIDTH + place_b[None, :]), y_b)
    x_a, x_b = _load_rows(x, row, count, WIDTH, A)
    y_a += x_a + tl.load(bias + place_a)[None, :]
    y_b += x_b + tl.load(bias + place_b)[None, :]
    _store_rows(y, y_a, y_b, row, count, WIDTH, A)


@triton.jit
def _backward_kernel(
    x, expand, contract, dy, dx, normal, h_out, dh_out, count,
    REAL: tl.constexpr, A: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = A + A // 2
    kind = x.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = (row < count)[:, None]
    place_a, place_b = tl.arange(0, A), A + tl.arange(0, A // 2)
    x_a, x_b = _load_rows(x, row, count, WIDTH, A)
    n_a, n_b, scale = _normalise(x_a, x_b, REAL, A)
    n_a, n_b = n_a.to(kind), n_b.to(kind)
    _store_rows(normal, n_a, n_b, row, count, WIDTH, A)
    dy_a, dy_b = _load_rows(dy, row, count, WIDTH, A)
    dn_a = tl.zeros((ROWS, A), tl.float32)
    dn_b = tl.zeros((ROWS, A // 2), tl.float32)
    for start in range(0, HIDDEN, CHUNK):
        hidden = start + tl.arange(0, CHUNK)
        expand_a = tl.load(expand + place_a[:, None] * HIDDEN + hidden[None, :])
        expand_b = tl.load(expand + place_b[:, None] * HIDDEN + hidden[None, :])
        contract_a = tl.load(contract + hidden[:, None] * WIDTH + place_a[None, :])
        contract_b = tl.load(contract + hidden[:, None] * WIDTH + place_b[None, :])
        h = tl.dot(n_a, expand_a)
        h = tl.dot(n_b, expand_b, h)
        dh = tl.dot(dy_a, tl.trans(contract_a))
        dh = tl.dot(dy_b, tl.trans(contract_b), dh)
        part, density = _gelu(h)
        dh = (dh * (part + h * density)).to(kind)
        offset = row[:, None] * HIDDEN + hidden[None, :]
        tl.store(h_out + offset, (h * part).to(kind), mask=here)
        tl.store(dh_out + offset, dh, mask=here)
        dn_a = tl.dot(dh, tl.trans(expand_a), dn_a)
        dn_b = tl.dot(dh, tl.trans(expand_b), dn_b)
    x_a, x_b = _load_rows(x, row, count, WIDTH, A)
    n_a, n_b, scale = _normalise(x_a, x_b, REAL, A)
    # Of a norm: what is common to all channels, and what is along the row, changes nothing.
    dn_a = tl.where(place_a[None, :] < REAL, dn_a, 0.0)
    dn_b = tl.where(place_b[None, :] < REAL, dn_b, 0.0)
    mean = (tl.sum(dn_a, axis=1) + tl.sum(dn_b, axis=1)) / REAL
    along = (tl.sum(dn_a * n_a, axis=1) + tl.sum(dn_b * n_b, axis=1)) / REAL
    dn_a = (dn_a - mean[:, None] - n_a * along[:, None]) * scale[:, None]
    dn_b = (dn_b - mean[:, None] - n_b * along[:, None]) * scale[:, None]
    dy_a, dy_b = _load_rows(dy, row, count, WIDTH, A)
    dx_a = tl.where(place_a[None, :] < REAL, dn_a + dy_a, 0.0)
    dx_b = tl.where(place_b[None, :] < REAL, dn_b + dy_b, 0.0)
    _store_rows(dx, dx_a, dx_b, row, count, WIDTH, A)


def mlp_forward(
    x: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
    bias: Float[Tensor, "width"],
    real: int,
) -> Float[Tensor, "n width"]:
    """Returns x + GELU(norm(x) expand) contract + bias."""
    y = torch.empty_like(x)
    count, width = x.shape
    _forward_kernel[(triton.cdiv(count, ROWS),)](
        x, expand, contract, bias, y, count,
        REAL=real, A=width // 3 * 2, HIDDEN=expand.shape[1], ROWS=ROWS, CHUNK=CHUNK,
        num_warps=8, num_stages=3,
    )  # fmt: skip
    return y


def mlp_backward(
    x: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
    dy: Float[Tensor, "n width"],
    real: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradient of x, norm(x), the hidden activations and their inputs' gradient."""
    dx, normal = torch.empty_like(x), torch.empty_like(x)
    count, width = x.shape
    h, dh = (x.new_empty(count, expand.shape[1]) for _ in range(2))
    _backward_kernel[(triton.cdiv(count, ROWS),)](
        x, expand, contract, dy, dx, normal, h, dh, count,
        REAL=real, A=width // 3 * 2, HIDDEN=expand.shape[1], ROWS=ROWS, CHUNK=CHUNK,
        num_warps=8, num_stages=2,
    )  # fmt: skip
    return dx, normal, h, dh
