"""The decoders: scene tokens and rays -> colours.

All of them ask the scene tokens in the same way. A query is the Fourier encoding of a ray or of a
point. It passes a few layers of cross-attention to the tokens, and comes out as a feature vector.
A small MLP then turns this vector into a colour.

    LightFieldDecoder  SRT, ISRT: a ray is one query, and its feature is the ray's colour
                       (SRT, section 3.2)
    VolumeDecoder      VSRT: many points along a ray are queries. They give densities and colours,
                       which volume rendering combines into one colour and a depth, as in NeRF

Queries do not see each other. Rays can therefore be decoded in any groups, with the same colours
and gradients. What depends on the scene alone is computed once, by `scene_keys_values`.

b scenes, r rays of a scene, s samples of a ray, n queries of a scene, m scene tokens, c channels of
a token. `dim` is the number of channels of a query.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float, Int
from srt.config.schema import ModelConfig, VsrtConfig
from srt.geometry.rays import Rays
from srt.model import fused_decoder
from srt.model.attention import CrossAttention, KeysValues, Mlp
from srt.model.positional_encoding import (
    FourierInput,
    encode_inputs,
    point_channels,
    point_inputs,
    ray_channels,
    ray_inputs,
    to_float32,
)
from srt.model.volume_rendering import composite, even_uniforms, stratified_depths, weighted_depths


class Prediction(NamedTuple):
    """What a model predicts for rays. A light field predicts colours only."""

    colours: Float[Tensor, "b r 3"]
    depth: Float[Tensor, "b r"] | None = None  # the mean distance along the ray
    coarse_colours: Float[Tensor, "b r 3"] | None = None  # of the coarse samples, for the loss


# What the queries attend to in one layer: keys and values, or what the GPU's layer needs instead.
LayerKeysValues = KeysValues | fused_decoder.PreparedLayer


@runtime_checkable
class Decoder(Protocol):
    """What decodes rays: one of the decoders below, or a compiled one."""

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[LayerKeysValues]:
        """Return what the queries of a scene attend to, one entry for each layer."""

    def __call__(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Return the colours of the rays."""


class DecoderLayer(nn.Module):
    """Cross-attention to the scene, then an MLP."""

    def __init__(self, dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, config.latent_dim, config.heads, config.head_dim)
        self.mlp = Mlp(dim, config.mlp_dim)

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> LayerKeysValues:
        """Return what the queries of a scene attend to in this layer."""
        # On a GPU, a faster layer with the same result is used where the sizes allow it. It needs
        # the weights in another form, which is computed here and not again for each group of rays.
        pair = self.attention.scene_keys_values(tokens)
        contract = self.mlp.contract
        if fused_decoder.can_fuse(tokens, contract.out_features, contract.in_features):
            return fused_decoder.prepare_layer(self.attention, self.mlp, pair)
        return pair

    def forward(
        self, queries: Float[Tensor, "b n dim"], keys_values: LayerKeysValues
    ) -> Float[Tensor, "b n dim"]:
        if isinstance(keys_values, KeysValues):
            return self.mlp(self.attention(queries, keys_values))
        return fused_decoder.fused_layer(queries, keys_values, self.mlp.contract.out_features)


class SceneQueries(nn.Module):
    """Queries that attend to the scene tokens: what all decoders have in common."""

    def __init__(self, dim: int, config: ModelConfig) -> None:
        super().__init__()

        # ISRT passes the encoded ray through an MLP first (OSRT, appendix A.4). Then follow the
        # layers of cross-attention.
        hidden = config.query_hidden
        self.query = make_perceptron(dim, hidden, dim) if hidden else nn.Identity()
        self.layers = nn.ModuleList(DecoderLayer(dim, config) for _ in range(config.decoder_layers))

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[LayerKeysValues]:
        """Return what the queries of a scene attend to, one entry for each layer."""
        layers = (cast(DecoderLayer, layer) for layer in self.layers)
        return [layer.scene_keys_values(tokens) for layer in layers]

    def gather(
        self, inputs: list[FourierInput], keys_values: list[LayerKeysValues]
    ) -> Float[Tensor, "b n dim"]:
        """Return the features that queries gather from the scene.

        On a GPU they may have additional channels of 0, which `fused_decoder.apply_perceptron`
        ignores.

        Args:
            inputs: the coordinates of the queries, which are encoded here.
        """
        if isinstance(keys_values[0], KeysValues):
            queries = self.query(encode_inputs(inputs))
        else:
            queries = fused_decoder.encode_queries(self.query, inputs)
        for layer, pair in zip(self.layers, keys_values):
            queries = layer(queries, pair)
        return queries


class LightFieldDecoder(SceneQueries):
    """Predicts a ray's colour from the ray itself, with one query (SRT, section 3.2).

    A light field is a function from rays to colours. It has no notion of points or of depth.
    """

    queries_per_ray = 1

    def __init__(self, config: ModelConfig) -> None:
        dim = ray_channels(config)
        super().__init__(dim, config)
        self.config = config
        self.colour = make_perceptron(dim, *hidden_widths(config), 3)

    def forward(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Return the colour of each ray. SRT's are in [0, 1]; ISRT's may lie outside."""
        # The encoded ray gathers features from the scene, from which an MLP computes the colour.
        inputs = ray_inputs(rays.origins, rays.directions, self.config)
        features = self.gather(inputs, keys_values)  # (b, r, dim)
        colours = fused_decoder.apply_perceptron(self.colour, features)  # (b, r, 3)

        # SRT ends in a sigmoid. ISRT omits it (OSRT, appendix A.4).
        return Prediction(colours if self.config.name == "isrt" else colours.sigmoid())


class PointNet(SceneQueries):
    """Predicts density and colour of points. The viewing direction has no influence on them."""

    def __init__(self, config: ModelConfig) -> None:
        dim = point_channels(config)
        super().__init__(dim, config)
        self.config = config
        self.colour = make_perceptron(dim, *hidden_widths(config), 3)
        self.density = make_perceptron(dim, *hidden_widths(config), 1)

    def forward(
        self, keys_values: list[LayerKeysValues], points: Float[Tensor, "b r s 3"]
    ) -> tuple[Float[Tensor, "b r s"], Float[Tensor, "b r s 3"]]:
        """Return densities, which are positive, and colours in [0, 1].

        Both are float32 or float64, because volume rendering sums over many samples.
        """
        # Each point is a query of its own: which ray it lies on does not matter here.
        samples = points.shape[1:3]
        features = self.gather(point_inputs(points.flatten(1, 2), self.config), keys_values)
        density = fused_decoder.apply_perceptron(self.density, features)  # (b, r · s, 1)
        colour = fused_decoder.apply_perceptron(self.colour, features)  # (b, r · s, 3)

        # Arrange the points by rays again.
        density = density[..., 0].unflatten(1, samples)  # (b, r, s)
        colour = colour.unflatten(1, samples)  # (b, r, s, 3)
        return F.softplus(to_float32(density)), to_float32(colour).sigmoid()


class VolumeDecoder(nn.Module):
    """Predicts a ray's colour and depth by volume rendering, as the published "nerf" decoder.

    Each ray is sampled twice (NeRF, section 5.2). Coarse samples are spread from near to far. Fine
    samples lie where the coarse ones say that something is. All of them give the final colour.
    """

    def __init__(self, config: VsrtConfig) -> None:
        super().__init__()
        self.config = config
        self.coarse = PointNet(config)
        self.fine = PointNet(config) if config.separate_fine_net else None

        # A net of its own for the fine pass also evaluates the coarse samples again.
        self.queries_per_ray = config.coarse_samples * (1 + config.separate_fine_net)
        self.queries_per_ray += config.fine_samples

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[LayerKeysValues]:
        """Return what the points of a scene attend to: the coarse net's, then the fine net's."""
        keys_values = self.coarse.scene_keys_values(tokens)
        if self.fine is not None:
            keys_values = keys_values + self.fine.scene_keys_values(tokens)
        return keys_values

    def forward(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Return colours and depth of each ray, and the colours that the coarse samples give."""
        # Coarse pass: one sample in each of `count` equally long segments between near and far.
        count = self.config.coarse_samples
        uniforms = self.sample_uniforms(rays)  # (b, r, coarse + fine)
        depths = stratified_depths(uniforms[..., :count], rays.near, rays.far)  # (b, r, coarse)
        coarse_keys_values = keys_values[: self.config.decoder_layers]
        densities, colours = self.coarse(coarse_keys_values, points_along_rays(rays, depths))
        coarse = composite(densities, colours, depths)

        # Fine samples are more likely where coarse samples contributed much to the colour. These
        # weights only choose depths, so no gradient flows through them.
        weights = coarse.weights.detach()
        fine_depths = weighted_depths(uniforms[..., count:], weights, depths, rays.near)
        all_depths, order = torch.cat((depths, fine_depths), dim=-1).sort(dim=-1)

        # Fine pass: a second net evaluates all samples. With one net for both passes, the coarse
        # samples' values are already known, and only the fine ones are evaluated.
        if self.fine is not None:
            fine_keys_values = keys_values[self.config.decoder_layers :]
            points = points_along_rays(rays, all_depths)  # (b, r, coarse + fine, 3)
            densities, colours = self.fine(fine_keys_values, points)
        else:
            fine_values = self.coarse(keys_values, points_along_rays(rays, fine_depths))
            densities, colours = merge_samples((densities, colours), fine_values, order)
        final = composite(densities, colours, all_depths)
        return Prediction(final.colours, final.depth, coarse.colours)

    def sample_uniforms(self, rays: Rays) -> Float[Tensor, "b r uniforms"]:
        """Return the numbers in [0, 1] that choose the samples of each ray.

        In training they are random. Elsewhere they are the same for all rays, so that a ray always
        looks the same.
        """
        if rays.uniforms is not None:
            return rays.uniforms
        samples = (self.config.coarse_samples, self.config.fine_samples)
        return even_uniforms(*samples, rays.directions).expand(*rays.directions.shape[:2], -1)


# The decoder of each model, by the name in its configuration. It takes that configuration.
DECODERS: dict[str, Callable[..., LightFieldDecoder | VolumeDecoder]] = {
    "srt": LightFieldDecoder,
    "isrt": LightFieldDecoder,
    "vsrt": VolumeDecoder,
}


def uniforms_per_ray(config: ModelConfig) -> int:
    """Return how many random numbers a ray needs in training: one for each of its samples."""
    if isinstance(config, VsrtConfig):
        return config.coarse_samples + config.fine_samples
    return 0


def points_along_rays(rays: Rays, depths: Float[Tensor, "b r s"]) -> Float[Tensor, "b r s 3"]:
    """Return the points at these distances from the rays' origins."""
    return rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]


def merge_samples(
    coarse: tuple[Float[Tensor, "b r _"], Float[Tensor, "b r _ 3"]],
    fine: tuple[Float[Tensor, "b r _"], Float[Tensor, "b r _ 3"]],
    order: Int[Tensor, "b r s"],
) -> tuple[Float[Tensor, "b r s"], Float[Tensor, "b r s 3"]]:
    """Return the densities and colours of both kinds of samples, from near to far.

    Args:
        order: for each position from near to far, the sample's number among all of its ray, coarse
            ones first.
    """
    densities = torch.cat((coarse[0], fine[0]), dim=-1).gather(-1, order)
    colours = torch.cat((coarse[1], fine[1]), dim=-2)
    return densities, colours.gather(-2, order[..., None].expand_as(colours))


def make_perceptron(*widths: int) -> nn.Sequential:
    """Return linear layers of these widths, from input to output, with ReLUs between them."""
    layers: list[nn.Module] = []
    for in_features, out_features in itertools.pairwise(widths):
        layers += [nn.Linear(in_features, out_features), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def hidden_widths(config: ModelConfig) -> list[int]:
    """Return the hidden widths of the MLP from a query's features to its colour or density."""
    return [config.decoder_hidden] * config.decoder_hidden_layers
