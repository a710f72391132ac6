"""The layers of the encoder's and the decoder's transformers: attention, and an MLP.

All are pre-norm: a layer normalises its input, computes from it, and adds the result to the input.
Self-attention lets scene tokens exchange what they hold. Cross-attention lets queries, which are
rays or points, read the scene tokens; queries do not see each other.

Attention is PyTorch's, or on a GPU our own kernels where they are faster
(srt/model/kernels/attention_operators.py).

b scenes, n queries, m scene tokens, h heads of d channels; `hd` is a dimension of h · d channels,
one head after the other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.model.kernels.attention_operators import kernel_attention, kernel_self_attention
from srt.model.kernels.operators import kernels_available

# Our kernels were measured to be faster than cuDNN's with 320 tokens, and slower with 1280.
MAX_KERNEL_TOKENS = 512

# The numbers of channels of a head for which our kernels are written.
KERNEL_HEAD_DIMS = (32, 64)


class KeysValues(NamedTuple):
    """The keys and values of one layer, to which queries attend."""

    key: Float[Tensor, "b h m d"]
    value: Float[Tensor, "b h m d"]


class SelfAttention(nn.Module):
    """Multi-head attention of a set of tokens to itself, added to the tokens."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)

    def forward(self, tokens: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        # One product gives queries, keys and values. Our kernel reads them where they are.
        projected = self.query_key_value(self.norm(tokens))  # (b, n, 3hd)
        head_dim = projected.shape[-1] // (3 * self.heads)
        if can_use_attention_kernel(projected, tokens.shape[1], head_dim):
            return tokens + self.output(kernel_self_attention(projected, self.heads))

        # PyTorch's attention takes the heads as a dimension of their own.
        query, key, value = (split_heads(x, self.heads) for x in projected.chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(query, key, value)  # (b, h, n, d)
        return tokens + self.output(join_heads(attended))


class CrossAttention(nn.Module):
    """Multi-head attention of independent queries to the scene tokens, added to the queries."""

    def __init__(self, dim: int, token_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(token_dim, 2 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)

    def scene_keys_values(self, tokens: Float[Tensor, "b m token_dim"]) -> KeysValues:
        """Return the keys and values of the scene tokens.

        They are computed once for a scene, not once for each group of queries.
        """
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return KeysValues(split_heads(key, self.heads), split_heads(value, self.heads))

    def forward(
        self, queries: Float[Tensor, "b n dim"], keys_values: KeysValues
    ) -> Float[Tensor, "b n dim"]:
        return queries + self.output(attend(self.query(self.norm(queries)), *keys_values))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, added to the input."""

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
    """Return the values that the queries attend to, averaged by their weights.

    Args:
        scale: what scores are multiplied by before the softmax; None: 1 / sqrt(d).
    """
    query, head_dim = split_heads(query, key.shape[1]), key.shape[3]
    if can_use_attention_kernel(query, key.shape[2], head_dim):
        return kernel_attention(query, key, value, scale or head_dim**-0.5)
    return join_heads(F.scaled_dot_product_attention(query, key, value, scale=scale))


def can_use_attention_kernel(values: Tensor, tokens: int, head_dim: int) -> bool:
    """Return True if our own kernels can attend, and are the fastest.

    They need bfloat16 on a GPU, few tokens, and heads of a size that they are written for.
    """
    if not values.is_cuda or values.dtype != torch.bfloat16:
        return False
    return tokens <= MAX_KERNEL_TOKENS and head_dim in KERNEL_HEAD_DIMS and kernels_available()


def split_heads(tokens: Float[Tensor, "b n hd"], heads: int) -> Float[Tensor, "b h n d"]:
    """Return `tokens` with their channels split among the heads."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(tokens: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n hd"]:
    """Return `tokens` with the heads' channels side by side. It undoes `split_heads`."""
    return tokens.transpose(1, 2).flatten(2)
