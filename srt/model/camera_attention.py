"""Attention that sees cameras relative to each other, as layers of an encoder and a decoder.

Queries, keys, values and outputs are transformed by the representations of their cameras
(srt/geometry/representations.py), outside the kernel of the attention, which stays as it is. The
published file is autonomousvision/gta, source/layers.py. The MLP of a layer knows no cameras.

b scenes, n tokens or queries, m scene tokens, h heads of d channels; `hd` is a dimension of h · d
channels, one head after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.geometry.representations import Representation
from srt.model.attention import KeysValues, Mlp, attend


class TranslationScale(nn.Module):
    """A learned scale of the world, one for each layer (GTA; `trans_coeff` in the published code).

    It multiplies translations, which would otherwise be far larger than the channels of a token
    where cameras are far away. It must have no weight decay.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(start))

    def forward(self, representation: Representation) -> Representation:
        return representation.scale_translations(self.scale)


class CameraSelfAttention(nn.Module):
    """Multi-head attention of tokens with cameras to themselves, added to the tokens.

    Args:
        translation_scale: where the learned scale starts; None: translations stay as they are.
    """

    def __init__(
        self, dim: int, heads: int, head_dim: int, translation_scale: float | None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)
        self.world = make_translation_scale(translation_scale)

    def forward(
        self, tokens: Float[Tensor, "b n dim"], representation: Representation
    ) -> Float[Tensor, "b n dim"]:
        # One product gives queries, keys and values.
        projected = self.query_key_value(self.norm(tokens))  # (b, n, 3hd)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).unbind(dim=2)

        # All three are brought to the world's coordinates, where they attend to each other.
        representation = self.world(representation)
        keys_values = world_keys_values(key, value, representation)
        return tokens + self.output(attend_from_cameras(query, keys_values, representation))


class CameraCrossAttention(nn.Module):
    """Multi-head attention of queries with cameras to the scene tokens, added to the queries.

    Args:
        translation_scale: where the learned scale starts; None: translations stay as they are.
    """

    def __init__(
        self, dim: int, token_dim: int, heads: int, head_dim: int, translation_scale: float | None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(token_dim, 2 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)
        self.world = make_translation_scale(translation_scale)

    def scene_keys_values(
        self, tokens: Float[Tensor, "b m token_dim"], representation: Representation
    ) -> KeysValues:
        """Return the keys and values of the scene tokens, in the world's coordinates.

        They are computed once for a scene, not once for each group of queries.
        """
        projected = self.key_value(tokens).unflatten(-1, (2, self.heads, -1))  # (b, m, 2, h, d)
        key, value = projected.unbind(dim=2)
        return world_keys_values(key, value, self.world(representation))

    def forward(
        self,
        queries: Float[Tensor, "#b #n dim"],
        keys_values: KeysValues,
        representation: Representation,
    ) -> Float[Tensor, "b n dim"]:
        """Return the queries with what they attended to.

        Args:
            queries: a single one stands for all those of the representation.
        """
        query = self.query(self.norm(queries)).unflatten(-1, (self.heads, -1))  # (1, 1, h, d)
        representation = self.world(representation)
        return queries + self.output(attend_from_cameras(query, keys_values, representation))


class CameraEncoderLayer(nn.Module):
    """Self-attention of tokens with cameras, then an MLP."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, mlp_dim: int, translation_scale: float | None
    ) -> None:
        super().__init__()
        self.attention = CameraSelfAttention(dim, heads, head_dim, translation_scale)
        self.mlp = Mlp(dim, mlp_dim)

    def forward(
        self, tokens: Float[Tensor, "b n dim"], representation: Representation
    ) -> Float[Tensor, "b n dim"]:
        return self.mlp(self.attention(tokens, representation))


class CameraDecoderLayer(nn.Module):
    """Cross-attention of queries with cameras to the scene, then an MLP."""

    def __init__(
        self,
        dim: int,
        token_dim: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        translation_scale: float | None,
    ) -> None:
        super().__init__()
        self.attention = CameraCrossAttention(dim, token_dim, heads, head_dim, translation_scale)
        self.mlp = Mlp(dim, mlp_dim)

    def forward(
        self,
        queries: Float[Tensor, "#b #n dim"],
        keys_values: KeysValues,
        representation: Representation,
    ) -> Float[Tensor, "b n dim"]:
        return self.mlp(self.attention(queries, keys_values, representation))


def make_translation_scale(start: float | None) -> nn.Module:
    """Return what scales the translations of a layer; None: nothing does."""
    return nn.Identity() if start is None else TranslationScale(start)


def world_keys_values(
    key: Float[Tensor, "b m h d"], value: Float[Tensor, "b m h d"], representation: Representation
) -> KeysValues:
    """Return the keys and values in the world's coordinates, with the heads first."""
    key = representation.transform_keys(key).transpose(1, 2)  # (b, h, m, d)
    value = representation.transform_keys(value).transpose(1, 2)
    return KeysValues(key, value)


def attend_from_cameras(
    query: Float[Tensor, "#b #n h d"], keys_values: KeysValues, representation: Representation
) -> Float[Tensor, "b n hd"]:
    """Return what queries attend to, in the coordinates of their own cameras.

    Args:
        query: in the coordinates of their cameras.
        keys_values: in the world's.
        representation: of the queries.
    """
    query = representation.transform_queries(query)  # (b, n, h, d)
    attended = attend(query.flatten(2), *keys_values)  # (b, n, hd)
    attended = attended.unflatten(-1, query.shape[2:])
    return representation.transform_output(attended).flatten(2)
