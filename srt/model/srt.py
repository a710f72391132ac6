"""The models: each encodes posed images to scene tokens and decodes rays from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.config.schema import ModelConfig
from srt.geometry.rays import Rays
from srt.model.decoder import DECODERS, LayerKeysValues, Prediction
from srt.model.encoder import Encoder


class SRT(nn.Module):
    """Scene Representation Transformer, or one of its variants; sizes from the configuration.

    `srt`: Sajjadi et al., CVPR 2022. `isrt`: as improved in OSRT, Sajjadi et al., NeurIPS 2022,
    appendix A.4. `vsrt`: with the volumetric decoder of stelzner/srt.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = DECODERS[config.name](config)

    def encode(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "b m c"]:
        """Returns the scene tokens of posed images with colours in [0, 1]."""
        return self.encoder(images, origins, directions)

    def decode(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Returns what rays see, given `decoder.keys_values(tokens)`."""
        return self.decoder(keys_values, rays)


def build_model(config: ModelConfig, seed: int) -> SRT:
    """Returns the configured model in float32, the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SRT(config)
