"""Scene tokens and rays -> colours: the light-field decoder (SRT, section 3.2).

Rays do not see each other, so any grouping of them gives the same colours and gradients.
b scenes, r rays, m scene tokens, c channels of a token.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.config import ModelConfig
from srt.models.attention import CrossAttention, KeysValues, Mlp
from srt.models.encoding import encode_rays, ray_channels
from srt.shapes import Float


class DecoderLayer(nn.Module):
    """Cross-attention to the scene, then an MLP."""

    def __init__(self, dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, config.latent_dim, config.heads, config.head_dim)
        self.mlp = Mlp(dim, config.mlp_dim)

    def forward(
        self, queries: Float[Tensor, "b r dim"], keys_values: KeysValues
    ) -> Float[Tensor, "b r dim"]:
        return self.mlp(self.attention(queries, keys_values))


class LightFieldDecoder(nn.Module):
    """A ray's encoding is its query; what it attends to is its colour."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = ray_channels(config)
        self.layers = nn.ModuleList(DecoderLayer(dim, config) for _ in range(config.decoder_layers))
        self.hidden = nn.Linear(dim, config.decoder_hidden)
        self.colour = nn.Linear(config.decoder_hidden, 3)

    def keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[KeysValues]:
        """Returns what the rays of a scene attend to, one pair a layer."""
        layers = (cast(DecoderLayer, layer) for layer in self.layers)
        return [layer.attention.keys_values(tokens) for layer in layers]

    def forward(
        self,
        keys_values: list[KeysValues],
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
    ) -> Float[Tensor, "b r 3"]:
        """Returns the colour of each ray, in [0, 1]."""
        queries = encode_rays(origins, directions, self.config)
        for layer, pair in zip(self.layers, keys_values):
            queries = layer(queries, pair)
        return torch.sigmoid(self.colour(F.relu(self.hidden(queries))))
