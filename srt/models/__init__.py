"""The models by name. Each encodes posed images to scene tokens and decodes rays from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srt.config import ModelConfig
from srt.models.attention import KeysValues
from srt.models.decoder import LightFieldDecoder
from srt.models.encoder import Encoder
from srt.shapes import Float


class SRT(nn.Module):
    """Scene Representation Transformer: Sajjadi et al., CVPR 2022; sizes from the configuration."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = LightFieldDecoder(config)

    def encode(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "b m c"]:
        """Returns the scene tokens of posed images with colours in [0, 1]."""
        return self.encoder(images, origins, directions)

    def decode(
        self,
        keys_values: list[KeysValues],
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
    ) -> Float[Tensor, "b r 3"]:
        """Returns the colours of rays, given `decoder.keys_values(tokens)`."""
        return self.decoder(keys_values, origins, directions)


MODELS: dict[str, type[SRT]] = {"srt": SRT}


def build_model(config: ModelConfig, seed: int) -> SRT:
    """Returns the configured model in float32, the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[config.name](config)


def decode_in_groups(
    model: SRT,
    keys_values: list[KeysValues],
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    rays_per_group: int,
) -> Float[Tensor, "b r 3"]:
    """Returns the colours of any number of rays, decoding at most `rays_per_group` at once."""
    rays = max(1, rays_per_group // origins.shape[0])
    groups = zip(origins.split(rays, dim=1), directions.split(rays, dim=1))
    return torch.cat([model.decode(keys_values, *group) for group in groups], dim=1)
