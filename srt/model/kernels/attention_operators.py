"""Attention to a few hundred tokens as an operator that PyTorch's compiler does not look into.

Its kernels are in srt/model/kernels/triton_attention.py; attention.py says when they are used, and has
the plain version. b scenes, n queries, m tokens, h heads of d channels.
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
    """Returns what queries gather from tokens, their heads side by side."""
    out: Tensor = _KernelAttention.apply(query, key, value, scale)
    return out.flatten(2)


class _KernelAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out, logsum = _attention(query, key, value, scale)
        ctx.save_for_backward(query, key, value, out, logsum)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        found = _attention_backward(*ctx.saved_tensors, dy.contiguous(), ctx.scale)
        return (*(gradient.transpose(1, 2) for gradient in found), None)


def kernel_self_attention(
    projected: Float[Tensor, "b n three_hd"], heads: int
) -> Float[Tensor, "b n hd"]:
    """Returns what tokens gather from each other.

    Args:
        projected: their queries, keys and values, side by side.
    """
    out: Tensor = _KernelSelfAttention.apply(projected, heads)
    return out.flatten(2)


class _KernelSelfAttention(torch.autograd.Function):
    """Its gradient is written where it belongs: three of their own would be put together again."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, heads: int) -> Tensor:
        query, key, value = _dealt_out(projected, heads)
        out, logsum = _attention(query, key, value, query.shape[-1] ** -0.5)
        ctx.save_for_backward(projected, out, logsum)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return _self_attention_backward(*ctx.saved_tensors, dy.contiguous()), None


def _dealt_out(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns views: queries, keys and values of each head (b h n d)."""
    query, key, value = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return query, key, value


@operator("attention", "(Tensor query, Tensor key, Tensor value, float scale) -> (Tensor, Tensor)")
def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    from srt.model.kernels import triton_attention

    return triton_attention.forward(*_in_place(query, key, value), scale)


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return _rows_of_heads(query), query.new_empty(query.shape[:3], dtype=torch.float32)


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
    from srt.model.kernels import triton_attention

    found = tuple(_rows_of_heads(part) for part in (query, key, value))
    into = tuple(part.transpose(1, 2) for part in found)
    seen = _in_place(query, key, value)
    triton_attention.backward(*seen, out, logsum, dy, scale, into)  # type: ignore[arg-type]
    return found  # type: ignore[return-value]


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
    return _rows_of_heads(query), _rows_of_heads(key), _rows_of_heads(value)


def _rows_of_heads(of_heads: Tensor) -> Tensor:
    """Returns room for b h n d as b n h d."""
    scenes, heads, count, dim = of_heads.shape
    return of_heads.new_empty(scenes, count, heads, dim)


def _in_place(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns them as the kernels read them: channels side by side, keys and values alike."""
    if query.stride(-1) != 1:
        query = query.contiguous()
    if key.stride(-1) != 1 or key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    return query, key, value


@operator(
    "self_attention_backward", "(Tensor projected, Tensor out, Tensor logsum, Tensor dy) -> Tensor"
)
def _self_attention_backward(projected: Tensor, out: Tensor, logsum: Tensor, dy: Tensor) -> Tensor:
    from srt.model.kernels import triton_attention

    found, (heads, dim) = torch.empty_like(projected), out.shape[2:]
    seen, into = _dealt_out(projected, heads), _dealt_out(found, heads)
    triton_attention.backward(*seen, out, logsum, dy, dim**-0.5, into)
    return found


@_self_attention_backward.register_fake
def _(projected: Tensor, out: Tensor, logsum: Tensor, dy: Tensor) -> Tensor:
    return torch.empty_like(projected)
