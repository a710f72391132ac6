"""The models: each encodes posed images to scene tokens and decodes rays from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srt.config import ModelConfig
from srt.models.decoder import DECODERS, LayerKeysValues, Prediction
from srt.models.encoder import Encoder
from srt.rays import Rays
from srt.shapes import Float


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


def decode_in_groups(
    model: SRT, keys_values: list[LayerKeysValues], rays: Rays, queries_per_group: int
) -> Prediction:
    """Returns colours and depth of any number of rays, decoding `queries_per_group` at once.

    A ray is `model.decoder.queries_per_ray` queries; at least one ray of each scene is decoded.
    """
    scenes = rays.origins.shape[0]
    size = max(1, queries_per_group // (scenes * model.decoder.queries_per_ray))
    groups = [model.decode(keys_values, group) for group in rays.split(size)]
    depths = [group.depth for group in groups if group.depth is not None]
    return Prediction(
        colours=torch.cat([group.colours for group in groups], dim=1),
        depth=torch.cat(depths, dim=1) if depths else None,
    )
