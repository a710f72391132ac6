"""The models: an encoder (images -> scene tokens) and a decoder (tokens and rays -> colours).

`srt`   Scene Representation Transformer, Sajjadi et al., CVPR 2022
`isrt`  the improved SRT of OSRT, Sajjadi et al., NeurIPS 2022, appendix A.4
`vsrt`  SRT with the volumetric decoder of the published code, stelzner/srt
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.config.schema import ModelConfig
from srt.geometry.rays import Rays
from srt.model.decoder import DECODERS, LayerKeysValues, Prediction
from srt.model.encoder import ENCODERS


class SRT(nn.Module):
    """One of the models. The configuration says which, and how large it is.

    b scenes, v input views, h x w pixels, m scene tokens of c channels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = ENCODERS[config.name](config)
        self.decoder = DECODERS[config.name](config)

    def encode(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "b m c"]:
        """Return the scene tokens of input images.

        Args:
            images: colours in [0, 1].
            origins: the cameras' positions.
            directions: the unit directions of the pixels' rays.
        """
        return self.encoder(images, origins, directions)

    def decode(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Return the colours of rays.

        Args:
            keys_values: what `decoder.scene_keys_values` returns for the scene tokens.
        """
        return self.decoder(keys_values, rays)


def build_model(config: ModelConfig, seed: int) -> SRT:
    """Return a new model in float32. A seed always gives the same weights."""
    # The caller's random numbers are not touched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SRT(config)
