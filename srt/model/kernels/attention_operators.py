"""Operators for PyTorch: attention to at most a few hundred tokens.

The kernels are in srt/model/kernels/triton_attention.py. The plain version, and the decision when
to use which, are in srt/model/attention.py. How operators are built is told in operators.py.

Transposing heads would take a pass over memory, so there is none. Inputs are views of the products
that they come from. Results are written as (b, n, h, d): the next product reads them as (b, n, hd).

b scenes, n queries, m tokens, h heads of d channels.
"""
# mypy: disable-error-code="untyped-decorator, no-untyped-call"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srt.common.shapes import Float
from srt.model.kernels.operators import operator


def kernel_attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    scale: float,
) -> Float[Tensor, "b n hd"]:
    """Return the values that the queries attend to, averaged by their weights.

    Args:
        scale: what scores are multiplied by before the softmax.
    """
    out: Tensor = _KernelAttention.apply(query, key, value, scale)
    return out.flatten(2)


class _KernelAttention(torch.autograd.Function):
    """Saves the logarithms of the softmax's sums instead of the weights, which would be larger."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out, logsum = _attention(query, key, value, scale)
        ctx.save_for_backward(query, key, value, out, logsum)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _attention_backward(*ctx.saved_tensors, dy.contiguous(), ctx.scale)
        dquery, dkey, dvalue = (gradient.transpose(1, 2) for gradient in gradients)
        return dquery, dkey, dvalue, None


def kernel_self_attention(
    projected: Float[Tensor, "b n three_hd"], heads: int
) -> Float[Tensor, "b n hd"]:
    """Return what tokens gather from each other by attention.

    Args:
        projected: their queries, keys and values, side by side.
    """
    out: Tensor = _KernelSelfAttention.apply(projected, heads)
    return out.flatten(2)


class _KernelSelfAttention(torch.autograd.Function):
    """Writes the gradient of `projected` as one tensor, where three would have to be joined."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, heads: int) -> Tensor:
        query, key, value = _split_projected(projected, heads)
        out, logsum = _attention(query, key, value, query.shape[-1] ** -0.5)
        ctx.save_for_backward(projected, out, logsum)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return _self_attention_backward(*ctx.saved_tensors, dy.contiguous()), None


def _split_projected(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of the queries, keys and values (b h n d)."""
    query, key, value = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return query, key, value


@operator("attention", "(Tensor query, Tensor key, Tensor value, float scale) -> (Tensor, Tensor)")
def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what queries gather (b n h d), and what the backward pass needs (b h n)."""
    from srt.model.kernels import triton_attention

    return triton_attention.forward(*_with_kernel_strides(query, key, value), scale)


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return _empty_rows_first(query), query.new_empty(query.shape[:3], dtype=torch.float32)


@operator(
    "attention_backward",
    "(Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsum, Tensor dy, float scale)"
    " -> (Tensor, Tensor, Tensor)",
)
def _attention_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsum: Tensor,
    dy: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values, as (b n h d) and (b m h d)."""
    from srt.model.kernels import triton_attention

    # The kernels write to views that have the heads before the rows.
    gradients = (_empty_rows_first(query), _empty_rows_first(key), _empty_rows_first(value))
    dquery, dkey, dvalue = (gradient.transpose(1, 2) for gradient in gradients)
    inputs = _with_kernel_strides(query, key, value)
    triton_attention.backward(*inputs, out, logsum, dy, scale, (dquery, dkey, dvalue))
    return gradients


@_attention_backward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsum: Tensor,
    dy: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_rows_first(query), _empty_rows_first(key), _empty_rows_first(value)


def _empty_rows_first(tensor: Tensor) -> Tensor:
    """Return uninitialised memory of shape (b n h d), for a tensor of shape (b h n d)."""
    scenes, heads, count, dim = tensor.shape
    return tensor.new_empty(scenes, count, heads, dim)


def _with_kernel_strides(
    query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors, copied if their memory is not arranged as the kernels expect.

    Neighbouring channels must be neighbours in memory, and keys and values must have equal strides.
    """
    if query.stride(-1) != 1:
        query = query.contiguous()
    if key.stride(-1) != 1 or key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    return query, key, value


@operator(
    "self_attention_backward", "(Tensor projected, Tensor out, Tensor logsum, Tensor dy) -> Tensor"
)
def _self_attention_backward(projected: Tensor, out: Tensor, logsum: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient of `projected`."""
    from srt.model.kernels import triton_attention

    # The kernels write into the three parts of one tensor.
    heads, dim = out.shape[2:]
    gradient = torch.empty_like(projected)
    inputs = _split_projected(projected, heads)
    outputs = _split_projected(gradient, heads)
    triton_attention.backward(*inputs, out, logsum, dy, dim**-0.5, outputs)
    return gradient


@_self_attention_backward.register_fake
def _(projected: Tensor, out: Tensor, logsum: Tensor, dy: Tensor) -> Tensor:
    return torch.empty_like(projected)
