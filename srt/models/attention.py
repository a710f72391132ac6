"""Pre-norm transformer layers. b scenes, n queries, m scene tokens, h heads of d channels."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from srt.shapes import Float


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
        query, key, value = self.query_key_value(self.norm(tokens)).chunk(3, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value)
        return tokens + self.output(join_heads(attended))


class CrossAttention(nn.Module):
    """Multi-head attention of independent queries to the scene tokens, plus the queries."""

    def __init__(self, dim: int, token_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(token_dim, 2 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)

    def keys_values(self, tokens: Float[Tensor, "b m token_dim"]) -> KeysValues:
        """Returns what the queries attend to: computed once for a scene, not once for a group."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return KeysValues(split_heads(key, self.heads), split_heads(value, self.heads))

    def forward(
        self, queries: Float[Tensor, "b n dim"], keys_values: KeysValues
    ) -> Float[Tensor, "b n dim"]:
        query = split_heads(self.query(self.norm(queries)), self.heads)
        attended = F.scaled_dot_product_attention(query, *keys_values)
        return queries + self.output(join_heads(attended))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, plus the input."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        return tokens + self.contract(F.gelu(self.expand(self.norm(tokens))))


def split_heads(tokens: Float[Tensor, "b n hd"], heads: int) -> Float[Tensor, "b h n d"]:
    """Returns the channels dealt out to the heads."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(tokens: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n hd"]:
    """Returns the heads side by side, as `split_heads` found them."""
    return tokens.transpose(1, 2).flatten(2)
