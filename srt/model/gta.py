"""GTA: SRT's structure with relative cameras (Miyato et al., ICLR 2024; arXiv 2310.10375).

No ray is encoded. The encoder's CNN sees colours only, and all rays start as the same learned
query. Where a patch or a ray is reaches them through attention alone, as a representation of its
camera. The colours of a ray therefore do not depend on the choice of the world's coordinates.

The published files are autonomousvision/gta, source/encoder.py and source/decoder.py at a2e7971.
The published training drops 1 % of the activations; there is no dropout here. The representation
is GTA's or PRoPE's.

b scenes, v input views, h x w pixels, c channels, m tokens of a scene, r rays of a scene.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.geometry.camera_channels import GtaChannels, PropeChannels
from srt.geometry.rays import Rays
from srt.geometry.token_cameras import TokenCameras, patch_cameras
from srt.model.attention import KeysValues
from srt.model.camera_attention import CameraDecoderLayer, CameraEncoderLayer
from srt.model.decoder import Prediction


@dataclass(frozen=True, kw_only=True)
class GtaSizes:
    """The sizes of both halves of the model. The names are those of the other models' settings."""

    # What attention sees of cameras: how the channels of a head are used.
    channels: GtaChannels | PropeChannels

    # Where the learned scale of translations starts in each layer; null: there is none.
    translation_scale: float | None

    # The CNN of the encoder. Each block doubles the channels of the first convolution.
    conv_blocks: int
    conv_channels: int

    # The transformers of encoder and decoder: channels of a token, heads.
    latent_dim: int
    heads: int
    mlp_dim: int
    encoder_layers: int
    decoder_layers: int

    # The channels of a query, and the MLP that turns what it has collected into a colour.
    query_dim: int
    decoder_hidden: int
    decoder_hidden_layers: int


class GtaEncoder(nn.Module):
    """Input images -> scene tokens. All views are equal, and none is the first one."""

    def __init__(self, sizes: GtaSizes) -> None:
        super().__init__()
        self.channels = sizes.channels
        self.convolutions = make_colour_convolutions(sizes.conv_channels, sizes.conv_blocks)
        channels = cast(nn.Conv2d, self.convolutions[-1]).out_channels
        self.patch_projection = nn.Conv2d(channels, sizes.latent_dim, kernel_size=1)
        self.layers = nn.ModuleList(
            CameraEncoderLayer(
                sizes.latent_dim,
                sizes.heads,
                sizes.channels.head_dim,
                sizes.mlp_dim,
                sizes.translation_scale,
            )
            for _ in range(sizes.encoder_layers)
        )

    def forward(
        self, images: Float[Tensor, "b v h w 3"], cameras: TokenCameras
    ) -> Float[Tensor, "b m c"]:
        """Return the scene tokens: one for each patch of each view, view after view.

        Args:
            images: colours in [0, 1].
            cameras: of the patches: what `patch_cameras` returns.
        """
        # The CNN sees each image alone. Every second convolution halves height and width.
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2)  # (bv, 3, h, w)
        for convolution in self.convolutions:
            pixels = F.relu(convolution(pixels), inplace=True)  # (bv, ..., rows, columns)
        patches = self.patch_projection(pixels).flatten(2).transpose(1, 2)  # (bv, patches, c)

        # The patches of all views attend to each other, and see each other's cameras.
        tokens = patches.unflatten(0, images.shape[:2]).flatten(1, 2)  # (b, m, c)
        representation = self.channels.represent(cameras)
        for layer in self.layers:
            tokens = layer(tokens, representation)
        return tokens

    def patch_cameras(
        self,
        images: Float[Tensor, "b v h w 3"],
        world_to_camera: Float[Tensor, "b v 4 4"],
        normalised_intrinsics: Float[Tensor, "b v 3 3"] | None = None,
    ) -> TokenCameras:
        """Return the cameras of the patches that the CNN makes of images."""
        # A convolution with stride 2 and a padding of 1 rounds an odd size up.
        size = 2 ** (len(self.convolutions) // 2)
        rows, columns = (-(-pixels // size) for pixels in images.shape[2:4])
        return patch_cameras(world_to_camera, rows, columns, normalised_intrinsics)


class GtaDecoder(nn.Module):
    """Scene tokens and rays -> colours. All rays start as the same query."""

    queries_per_ray = 1

    def __init__(self, sizes: GtaSizes) -> None:
        super().__init__()
        self.channels = sizes.channels
        self.query = nn.Parameter(torch.randn(sizes.query_dim))
        self.layers = nn.ModuleList(
            CameraDecoderLayer(
                sizes.query_dim,
                sizes.latent_dim,
                sizes.heads,
                sizes.channels.head_dim,
                sizes.mlp_dim,
                sizes.translation_scale,
            )
            for _ in range(sizes.decoder_layers)
        )
        hidden = [sizes.decoder_hidden] * sizes.decoder_hidden_layers
        self.colour = make_leaky_perceptron(sizes.query_dim, *hidden, 3)

    def scene_keys_values(
        self, tokens: Float[Tensor, "b m c"], cameras: TokenCameras
    ) -> list[KeysValues]:
        """Return what the rays of a scene attend to, one entry for each layer.

        Args:
            cameras: of the tokens: those that the encoder had.
        """
        representation = self.channels.represent(cameras)
        layers = (cast(CameraDecoderLayer, layer) for layer in self.layers)
        return [layer.attention.scene_keys_values(tokens, representation) for layer in layers]

    def forward(self, keys_values: list[KeysValues], rays: Rays) -> Prediction:
        """Return the colour of each ray, in [0, 1].

        Args:
            rays: their cameras must be there. Their origins and directions are not read.

        Raises:
            ValueError: the rays have no cameras.
        """
        if rays.cameras is None:
            raise ValueError("rays.cameras is None; this model needs the camera of each ray")
        representation = self.channels.represent(rays.cameras)

        # One query stands for all rays until the first attention, which tells them apart.
        queries = self.query[None, None]  # (1, 1, dim)
        for layer, pair in zip(self.layers, keys_values):
            queries = layer(queries, pair, representation)  # (b, r, dim)
        return Prediction(self.colour(queries).sigmoid())


def make_colour_convolutions(width: int, blocks: int) -> nn.ModuleList:
    """Return the 3 x 3 convolutions of a CNN on colours, two for each block, without biases.

    The first one of a block keeps the size of the image; the second one halves it and doubles the
    channels.

    Args:
        width: the channels of the first convolution.
    """
    channels = 3
    convolutions = []
    for block in range(blocks):
        kept = width * 2**block
        convolutions.append(nn.Conv2d(channels, kept, 3, stride=1, padding=1, bias=False))
        convolutions.append(nn.Conv2d(kept, 2 * kept, 3, stride=2, padding=1, bias=False))
        channels = 2 * kept
    return nn.ModuleList(convolutions)


def make_leaky_perceptron(*widths: int) -> nn.Sequential:
    """Return linear layers of these widths, from input to output, with leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for in_features, out_features in itertools.pairwise(widths):
        layers += [nn.Linear(in_features, out_features), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])
