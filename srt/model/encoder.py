"""The encoder: input images with their cameras -> scene tokens (SRT, section 3.1).

    pixels    each pixel is its colour and the Fourier encoding of its ray
    patches   a CNN turns every block of pixels, a patch, into one vector
    tokens    a transformer lets the patches of all views attend to each other

The set of tokens that comes out is the scene. Decoders attend to it and never see the images.

The published weights decide what the paper leaves open. Self-attention is pre-norm, as in OSRT.
ISRT adds no learned embeddings to its patches (OSRT, appendix A.4): there `model.pixel_embedding`
is null.

b scenes, v input views, h x w pixels, c channels, m tokens of a scene. `bv` is a dimension of
b · v images, one view after the other.

Another encoder is a subclass of `Encoder` with an entry in `ENCODERS`; docs/extending.md has one.
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


class Encoder(nn.Module):
    """What every encoder is. The first input view is the canonical one."""

    def forward(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "b m c"]:
        """Return the scene tokens, `config.latent_dim` channels each.

        Args:
            images: colours in [0, 1].
            origins: the cameras' positions.
            directions: the unit directions of the pixels' rays.
        """
        raise NotImplementedError

    def compiled_parts(self) -> list[nn.Module]:
        """Return the parts that a training on a GPU compiles; without any, nothing is compiled."""
        return []


class PatchEncoder(Encoder):
    """The encoder of SRT, ISRT and VSRT: a CNN makes patches, and a transformer makes tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

        # The CNN: pixels -> patches.
        self.pixel_channels = PixelChannels(config)
        self.camera_and_pixels = CameraAndPixels()
        self.convolutions = make_convolutions(config)
        channels = cast(nn.Conv2d, self.convolutions[-1]).out_channels
        self.patch_projection = nn.Conv2d(channels, config.latent_dim, kernel_size=1)

        # What tells patches apart: where each is in its image, and whether its camera is the first
        # or another one. The values start standard normal, not scaled down, because the published
        # weights were trained like that.
        if config.pixel_embedding is not None:
            self.pixel_embedding = nn.Parameter(
                torch.randn(1, config.latent_dim, *config.pixel_embedding)
            )
            self.canonical_embedding = nn.Parameter(torch.randn(1, 1, config.latent_dim))
            self.other_embedding = nn.Parameter(torch.randn(1, 1, config.latent_dim))

        # The transformer: patches -> tokens.
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
        """Return the scene tokens: one for each patch of each view, view after view."""
        # The CNN sees each image alone. Every second convolution halves height and width, so that
        # in the end each position stands for a patch of 2^conv_blocks x 2^conv_blocks pixels.
        views = images.shape[1]
        pixels = self.first_convolution(images, origins, directions)  # (bv, conv_channels, h, w)
        for convolution in self.convolutions[1:]:
            pixels = self.convolve(cast(nn.Conv2d, convolution), pixels)  # (bv, ..., rows, columns)
        patches = self.patch_projection(pixels)  # (bv, c, rows, columns)
        patches = patches.unflatten(0, (-1, views))  # (b, v, c, rows, columns)

        # Attention does not see the order of its tokens. The embeddings tell it where a patch is
        # in its image, and which view is the first, whose camera may define the world.
        if self.config.pixel_embedding is not None:
            rows, columns = patches.shape[3:]
            patches = patches + self.patch_embeddings(rows, columns) + self.camera_embeddings(views)

        # The patches of all views attend to each other, which combines the views into one scene.
        tokens = patches.flatten(3).transpose(2, 3).flatten(1, 2)  # (b, m, c)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    def compiled_parts(self) -> list[nn.Module]:
        """Return the parts that wait for memory. The compiler does not speed up convolutions."""
        return [self.pixel_channels, self.camera_and_pixels, *self.layers]

    def first_convolution(
        self,
        images: Float[Tensor, "b v h w 3"],
        origins: Float[Tensor, "b v 3"],
        directions: Float[Tensor, "b v h w 3"],
    ) -> Float[Tensor, "bv c h w"]:
        """Return the first convolution, with its ReLU, of each pixel's colour and encoded ray.

        A ray is a position and a direction, and all rays of an image start at the same position.
        About half of the input channels are therefore constant over an image. A convolution is
        linear, so theirs is computed once for an image and then added to that of the others.
        """
        pixels = self.convolve_pixels(images, directions)  # (bv, c, h, w)
        nine_values = self.convolve_positions(origins)  # (bv, c, 3, 3)
        return self.camera_and_pixels(pixels, nine_values)

    def convolve_pixels(
        self, images: Float[Tensor, "b v h w 3"], directions: Float[Tensor, "b v h w 3"]
    ) -> Float[Tensor, "bv c h w"]:
        """Return the first convolution of what differs between pixels: colour and direction."""
        # In the weights, the channels of the position are between those of colour and direction.
        weight = cast(nn.Conv2d, self.convolutions[0]).weight  # (c, 3 + ray_channels, 3, 3)
        positions = point_channels(self.config)
        channels = self.pixel_channels(images, directions)  # (bv, h, w, channels)
        pixel_weight = torch.cat((weight[:, :3], weight[:, 3 + positions :]), dim=1)

        # `PixelChannels` may have appended channels of 0, for which the weights need channels too.
        padding = channels.shape[-1] - pixel_weight.shape[1]
        pixel_weight = F.pad(pixel_weight, (0, 0, 0, 0, 0, padding))  # (c, channels, 3, 3)
        return F.conv2d(channels.permute(0, 3, 1, 2), pixel_weight, padding=1)  # (bv, c, h, w)

    def convolve_positions(self, origins: Float[Tensor, "b v 3"]) -> Float[Tensor, "bv c 3 3"]:
        """Return the first convolution of the cameras' positions, as nine values for each image.

        The convolution of a constant image has nine different values: one inside, and others at the
        four edges and four corners, where the padding of 0 begins. An image of 3 x 3 pixels has all
        nine, however large the real one is.
        """
        # Make an image of 3 x 3 pixels from each encoded position.
        camera = encode_inputs(point_inputs(origins, self.config)).flatten(0, 1)  # (bv, positions)
        small_images = camera[..., None, None].expand(-1, -1, 3, 3)  # (bv, positions, 3, 3)

        # The weights of the position follow those of the colour.
        weight = cast(nn.Conv2d, self.convolutions[0]).weight  # (c, 3 + ray_channels, 3, 3)
        position_weight = weight[:, 3 : 3 + camera.shape[1]]
        return F.conv2d(small_images, position_weight, padding=1)  # (bv, c, 3, 3)

    def convolve(
        self, convolution: nn.Conv2d, pixels: Float[Tensor, "bv c h w"]
    ) -> Float[Tensor, "bv d rows columns"]:
        """Return the ReLU of a convolution."""
        # cuDNN computes both in one pass, which saves reading and writing the image once more.
        if uses_bfloat16(pixels) and torch.version.cuda is not None:
            return convolution_relu(pixels, convolution.weight, convolution.stride[0])
        return F.relu(convolution(pixels), inplace=True)

    def camera_embeddings(self, views: int) -> Float[Tensor, "{views} c 1 1"]:
        """Return the canonical embedding for the first view, and the other one for all others."""
        repeated = self.other_embedding.expand(views - 1, 1, -1)  # (v - 1, 1, c)
        return torch.cat((self.canonical_embedding, repeated)).transpose(1, 2)[..., None]

    def patch_embeddings(self, rows: int, columns: int) -> Float[Tensor, "1 c {rows} {columns}"]:
        """Return the learned embedding of each patch position in an image.

        Raises:
            ValueError: the image has more patches than there are embeddings.
        """
        # The learned map may be larger than an image has patches. Its upper left part is used.
        max_rows, max_columns = self.config.pixel_embedding or (0, 0)
        if rows > max_rows or columns > max_columns:
            raise ValueError(
                f"an image has {rows} x {columns} patches, but model.pixel_embedding has"
                f" embeddings for {max_rows} x {max_columns} only; enlarge it in params.yaml"
            )
        return self.pixel_embedding[:, :, :rows, :columns]


# The encoder of each model, by the name in its configuration.
ENCODERS: dict[str, type[Encoder]] = {
    "srt": PatchEncoder,
    "isrt": PatchEncoder,
    "vsrt": PatchEncoder,
}


def make_convolutions(config: ModelConfig) -> nn.ModuleList:
    """Return the 3 x 3 convolutions of the CNN, two for each block, without biases.

    The first one of a block keeps the size of the image; the second one halves it and doubles the
    channels.
    """
    channels = 3 + ray_channels(config)
    convolutions = []
    for block in range(config.conv_blocks):
        width = config.conv_channels * 2**block
        convolutions.append(nn.Conv2d(channels, width, 3, stride=1, padding=1, bias=False))
        convolutions.append(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False))
        channels = 2 * width

    # The published code keeps PyTorch's initialisation. He's keeps the variance of activations
    # through ReLUs. The three colours are scaled up, so that they have as much influence at the
    # beginning as the many channels of the ray together.
    if config.conv_init == "he":
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        convolutions[0].weight.data[:, :3] *= (ray_channels(config) / 3) ** 0.5
    return nn.ModuleList(convolutions)


class PixelChannels(nn.Module):
    """Turns each pixel into its colour and its encoded direction.

    It is a module, so that a training can compile it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, images: Float[Tensor, "b v h w 3"], directions: Float[Tensor, "b v h w 3"]
    ) -> Float[Tensor, "bv h w channels"]:
        # In bfloat16, convolutions are faster if the number of channels is a multiple of eight.
        inputs = direction_inputs(directions, self.config)
        if uses_bfloat16(images):
            return encode_padded(inputs, 8, leading=images).flatten(0, 1)
        return torch.cat((images, encode_inputs(inputs)), dim=-1).flatten(0, 1)


class CameraAndPixels(nn.Module):
    """Adds the convolution of the camera's position to that of the pixels, then takes the ReLU.

    It is a module, so that a training can compile it.
    """

    def forward(
        self, pixels: Float[Tensor, "bv c h w"], camera: Float[Tensor, "bv c 3 3"]
    ) -> Float[Tensor, "bv c h w"]:
        """Return ReLU(pixels + camera), with the nine values of `camera` repeated to the size.

        Args:
            camera: the values at the corners, at the edges and, in the middle, inside.
        """
        if uses_bfloat16(pixels) and kernels_available():
            return camera_relu(pixels, camera)

        # Channels are last in memory, as in `pixels`.
        height, width = pixels.shape[2:]
        values = camera.permute(0, 2, 3, 1)  # (bv, 3, 3, c)
        values = repeat_middle(values, 1, height)  # (bv, h, 3, c)
        values = repeat_middle(values, 2, width)  # (bv, h, w, c)
        return F.relu(pixels + values.permute(0, 3, 1, 2))


def repeat_middle(
    values: Float[Tensor, "bv rows columns c"], dim: int, size: int
) -> Float[Tensor, "bv _ _ c"]:
    """Return `values` with the middle one of three slices repeated until there are `size`."""
    first, middle, last = values.split(1, dim=dim)
    shape = [-1, -1, -1, -1]
    shape[dim] = size - 2
    return torch.cat((first, middle.expand(shape), last), dim=dim)
