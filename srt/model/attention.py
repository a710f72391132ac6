"""Pre-norm transformer layers. b scenes, n queries, m scene tokens, h heads of d channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.model.kernels.attention_operators import kernel_attention, kernel_self_attention
from srt.model.kernels.operators import kernels_available

MAX_KERNEL_TOKENS = 512  # to 320 our kernels attend faster than cuDNN's, to 1280 slower
HEAD_DIMS = (32, 64)  # which our kernels take


class KeysValues(NamedTuple):
    """What queries attend to, of one layer."""

    key: Float[Tensor, "b h m d"]
    value: Float[Tensor, "b h m d"]


class SelfAttention(nn.Module):
    """Multi-head attention of a set of tokens to itself, plus the tokens."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)

    def forward(self, tokens: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        projected = self.query_key_value(self.norm(tokens))
        if can_use_attention_kernel(
            projected, tokens.shape[1], projected.shape[-1] // (3 * self.heads)
        ):
            return tokens + self.output(kernel_self_attention(projected, self.heads))
        query, key, value = (split_heads(part, self.heads) for part in projected.chunk(3, dim=-1))
        attend = F.scaled_dot_product_attention(query, key, value)
        return tokens + self.output(join_heads(attend))


class CrossAttention(nn.Module):
    """Multi-head attention of independent queries to the scene tokens, plus the queries."""

    def __init__(self, dim: int, token_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(token_dim, 2 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)

    def scene_keys_values(self, tokens: Float[Tensor, "b m token_dim"]) -> KeysValues:
        """Returns what the queries attend to: computed once for a scene, not once for a group."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return KeysValues(split_heads(key, self.heads), split_heads(value, self.heads))

    def forward(
        self, queries: Float[Tensor, "b n dim"], keys_values: KeysValues
    ) -> Float[Tensor, "b n dim"]:
        return queries + self.output(attend(self.query(self.norm(queries)), *keys_values))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, plus the input."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        return tokens + self.contract(F.gelu(self.expand(self.norm(tokens))))


def attend(
    query: Float[Tensor, "b n hd"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    scale: float | None = None,
) -> Float[Tensor, "b n hd"]:
    """Returns what queries gather from tokens, their heads side by side.

    Args:
        scale: of the scores; None: 1 / sqrt(d).
    """
    query, head_dim = split_heads(query, key.shape[1]), key.shape[3]
    if can_use_attention_kernel(query, key.shape[2], head_dim):
        return kernel_attention(query, key, value, scale or head_dim**-0.5)
    return join_heads(F.scaled_dot_product_attention(query, key, value, scale=scale))


def can_use_attention_kernel(values: Tensor, tokens: int, head_dim: int) -> bool:
    """Returns whether our own kernels attend to so many tokens: in bfloat16, on a GPU."""
    if not values.is_cuda or values.dtype != torch.bfloat16:
        return False
    return tokens <= MAX_KERNEL_TOKENS and head_dim in HEAD_DIMS and kernels_available()


def split_heads(tokens: Float[Tensor, "b n hd"], heads: int) -> Float[Tensor, "b h n d"]:
    """Returns the channels dealt out to the heads."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(tokens: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n hd"]:
    """Returns the heads side by side, as `split_heads` found them."""
    return tokens.transpose(1, 2).flatten(2)
