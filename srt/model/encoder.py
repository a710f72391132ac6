"""Posed images -> scene tokens: a CNN over pixels and rays, then a transformer over all patches.

SRT, section 3.1, with pre-norm self-attention as in OSRT, which the published weights use. ISRT's
has no learned places (OSRT, appendix A.4): `model.pixel_embedding` is null.
b scenes, v input views, h x w pixels, p patches of a view, c channels of a token.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.config.schema import ModelConfig
from srt.model.attention import Mlp, SelfAttention
from srt.model.kernels.operators import camera_relu, convolution_relu, kernels_available
from srt.model.positional_encoding import (
    direction_inputs,
    encode_inputs,
    encode_padded,
    point_channels,
    point_inputs,
    ray_channels,
    uses_bfloat16,
)


class PixelChannels(nn.Module):
    """What the first convolution sees of a pixel: its colour and the direction of its ray."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, images: Float[Tensor, "b v h w 3"], directions: Float[Tensor, "b v h w 3"]
    ) -> Float[Tensor, "bv h w channels"]:
        inputs = direction_inputs(directions, self.config)
        if uses_bfloat16(images):  # products of whole eights of channels are faster
            return encode_padded(inputs, 8, beside=images).flatten(0, 1)
        return torch.cat((images, encode_inputs(inputs)), dim=-1).flatten(0, 1)


class CameraAndPixels(nn.Module):
    """Adds to a convolution of pixels that of its camera's position, then the ReLU.

    The position is the same all over an image: what it gives are nine values, inside and at each
    edge and corner, as of an image of 3 x 3 pixels.
    """

    def forward(
        self, pixels: Float[Tensor, "bv c h w"], camera: Float[Tensor, "bv c 3 3"]
    ) -> Float[Tensor, "bv c h w"]:
        if uses_bfloat16(pixels) and kernels_available():
            return camera_relu(pixels, camera)
        values = camera.permute(0, 2, 3, 1)
        for dim, size in ((1, pixels.shape[2]), (2, pixels.shape[3])):
            first, inside, last = values.split(1, dim=dim)
            repeated = inside.expand(*(size - 2 if d == dim else -1 for d in range(4)))
            values = torch.cat((first, repeated, last), dim=dim)
        return F.relu(pixels + values.permute(0, 3, 1, 2))


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
        self.pixel_channels, self.camera_and_pixels = PixelChannels(config), CameraAndPixels()
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
        pixels = self.first_convolution(images, origins, directions)
        for convolution in self.convolutions[1:]:
            pixels = self.convolve(cast(nn.Conv2d, convolution), pixels)
        patches = self.patch_projection(pixels).unflatten(0, (-1, views))  # (b, v, c, rows, cols)
        if self.config.pixel_embedding is not None:
            patches = (
                patches + self.patch_embeddings(*patches.shape[3:]) + self.camera_embeddings(views)
            )
        tokens = patches.flatten(3).transpose(2, 3).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    def convolve(
        self, convolution: nn.Conv2d, pixels: Float[Tensor, "bv c h w"]
    ) -> Float[Tensor, "bv d rows columns"]:
        """Returns a convolution's ReLU."""
        if uses_bfloat16(pixels) and torch.version.cuda is not None:
            return convolution_relu(pixels, convolution.weight, convolution.stride[0])
        return F.relu(convolution(pixels), inplace=True)

    def first_convolution(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "bv c h w"]:
        """Returns the first convolution of colours and rays: of what varies, plus what does not."""
        weight = cast(nn.Conv2d, self.convolutions[0]).weight
        positions = point_channels(self.config)
        pixels = self.pixel_channels(images, directions)
        varying = torch.cat((weight[:, :3], weight[:, 3 + positions :]), dim=1)
        varying = F.pad(varying, (0, 0, 0, 0, 0, pixels.shape[-1] - varying.shape[1]))
        seen = F.conv2d(pixels.permute(0, 3, 1, 2), varying, padding=1)
        camera = encode_inputs(point_inputs(origins, self.config)).flatten(0, 1)[..., None, None]
        position = weight[:, 3 : 3 + positions]
        constant = F.conv2d(camera.expand(-1, -1, 3, 3), position, padding=1)
        return self.camera_and_pixels(seen, constant)

    def camera_embeddings(self, views: int) -> Float[Tensor, "{views} c 1 1"]:
        """Returns what tells the first camera's patches from the others'."""
        others = self.other_embedding.expand(views - 1, 1, -1)
        return torch.cat((self.canonical_embedding, others)).transpose(1, 2)[..., None]

    def patch_embeddings(self, rows: int, columns: int) -> Float[Tensor, "1 c {rows} {columns}"]:
        """Returns the learned places of an image's patches."""
        most_rows, most_columns = self.config.pixel_embedding or (0, 0)
        if rows > most_rows or columns > most_columns:
            raise ValueError(
                f"an image has {rows} x {columns} patches, more than model.pixel_embedding"
                f" [{most_rows}, {most_columns}] has places for; enlarge it in params.yaml"
            )
        return self.pixel_embedding[:, :, :rows, :columns]
