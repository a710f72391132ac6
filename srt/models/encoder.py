"""Posed images -> scene tokens: a CNN over pixels and rays, then a transformer over all patches.

SRT, section 3.1, with pre-norm self-attention as in OSRT, which the published weights use. ISRT's
has no learned places (OSRT, appendix A.4): `model.pixel_embedding` is null.
b scenes, v input views, h x w pixels, p patches of a view, c channels of a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.config import ModelConfig
from srt.models.attention import Mlp, SelfAttention
from srt.models.encoding import encode_rays, ray_channels
from srt.shapes import Float


class Encoder(nn.Module):
    """The set-latent encoder. The first input view is the canonical one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels, convolutions = 3 + ray_channels(config), []
        for block in range(config.conv_blocks):
            width = config.conv_channels * 2**block
            convolutions.append(nn.Conv2d(channels, width, 3, stride=1, padding=1, bias=False))
            convolutions.append(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False))
            channels = 2 * width
        self.convolutions = nn.ModuleList(convolutions)
        if config.conv_init == "he":
            for convolution in convolutions:
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            # Three colours beside all the channels of a ray: the image is to weigh as much as they.
            convolutions[0].weight.data[:, :3] *= (ray_channels(config) / 3) ** 0.5
        self.patch_projection = nn.Conv2d(channels, config.latent_dim, kernel_size=1)
        if config.pixel_embedding is not None:
            # Standard normal, not scaled down: as the published weights were trained.
            self.pixel_embedding = nn.Parameter(
                torch.randn(1, config.latent_dim, *config.pixel_embedding)
            )
            self.canonical_embedding = nn.Parameter(torch.randn(1, 1, config.latent_dim))
            self.other_embedding = nn.Parameter(torch.randn(1, 1, config.latent_dim))
        self.layers = nn.ModuleList(
            nn.Sequential(
                SelfAttention(config.latent_dim, config.heads, config.head_dim),
                Mlp(config.latent_dim, config.mlp_dim),
            )
            for _ in range(config.encoder_layers)
        )

    def forward(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "b m c"]:
        """Returns the scene tokens, m = v · p, view after view."""
        views = images.shape[1]
        rays = encode_rays(origins[:, :, None, None].expand_as(directions), directions, self.config)
        pixels = torch.cat((images, rays), dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
        for convolution in self.convolutions:
            pixels = F.relu(convolution(pixels))
        patches = self.patch_projection(pixels).unflatten(0, (-1, views))  # (b, v, c, rows, cols)
        if self.config.pixel_embedding is not None:
            patches = patches + self.places(*patches.shape[3:]) + self.cameras(views)
        tokens = patches.flatten(3).transpose(2, 3).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    def cameras(self, views: int) -> Float[Tensor, "{views} c 1 1"]:
        """Returns what tells the first camera's patches from the others'."""
        others = self.other_embedding.expand(views - 1, 1, -1)
        return torch.cat((self.canonical_embedding, others)).transpose(1, 2)[..., None]

    def places(self, rows: int, columns: int) -> Float[Tensor, "1 c {rows} {columns}"]:
        """Returns the learned places of an image's patches."""
        most_rows, most_columns = self.config.pixel_embedding or (0, 0)
        if rows > most_rows or columns > most_columns:
            raise ValueError(
                f"an image has {rows} x {columns} patches, more than model.pixel_embedding"
                f" [{most_rows}, {most_columns}] has places for; enlarge it in params.yaml"
            )
        return self.pixel_embedding[:, :, :rows, :columns]
