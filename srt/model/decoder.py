"""Scene tokens and rays -> colours: light-field decoders (SRT, ISRT) and a volumetric one (VSRT).

Queries do not see each other, so any grouping of rays gives the same colours and gradients.
b scenes, r rays, s samples of a ray, n queries, m scene tokens, c channels of a token.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.config.schema import ModelConfig
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
    """What a model says of rays; a light field has colours alone."""

    colours: Float[Tensor, "b r 3"]
    depth: Float[Tensor, "b r"] | None = None  # the mean distance along the ray
    coarse_colours: Float[Tensor, "b r 3"] | None = None  # of the coarse samples, for the loss


LayerKeysValues = KeysValues | fused_decoder.PreparedLayer


class DecoderLayer(nn.Module):
    """Cross-attention to the scene, then an MLP."""

    def __init__(self, dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, config.latent_dim, config.heads, config.head_dim)
        self.mlp = Mlp(dim, config.mlp_dim)

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> LayerKeysValues:
        """Returns what queries attend to, with all else that a group of them need not compute."""
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
    """Encoded rays or points, each by itself, gather what the scene tokens know of them."""

    def __init__(self, dim: int, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.query_hidden
        self.query = make_perceptron(dim, hidden, dim) if hidden else nn.Identity()
        self.layers = nn.ModuleList(DecoderLayer(dim, config) for _ in range(config.decoder_layers))

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[LayerKeysValues]:
        """Returns what the queries of a scene attend to, one pair a layer."""
        layers = (cast(DecoderLayer, layer) for layer in self.layers)
        return [layer.scene_keys_values(tokens) for layer in layers]

    def gather(
        self, inputs: list[FourierInput], keys_values: list[LayerKeysValues]
    ) -> Float[Tensor, "b n dim"]:
        """Returns what each query has gathered from the scene; on a GPU it may be wider, with 0."""
        if isinstance(keys_values[0], KeysValues):
            queries = self.query(encode_inputs(inputs))
        else:
            queries = fused_decoder.encode_queries(self.query, inputs)
        for layer, pair in zip(self.layers, keys_values):
            queries = layer(queries, pair)
        return queries


class LightFieldDecoder(SceneQueries):
    """A ray's encoding is its query; what it gathers is its colour (SRT, section 3.2)."""

    queries_per_ray = 1

    def __init__(self, config: ModelConfig) -> None:
        dim = ray_channels(config)
        super().__init__(dim, config)
        self.config = config
        self.colour = make_perceptron(dim, *hidden_widths(config), 3)

    def forward(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Returns the colour of each ray; SRT's are in [0, 1], ISRT's are not held there."""
        gathered = self.gather(ray_inputs(rays.origins, rays.directions, self.config), keys_values)
        colours = fused_decoder.apply_perceptron(self.colour, gathered)
        # OSRT, appendix A.4, leaves the sigmoid out.
        return Prediction(colours.sigmoid() if self.config.name == "srt" else colours)


class PointNet(SceneQueries):
    """Density and colour of points, from whichever side they are seen."""

    def __init__(self, config: ModelConfig) -> None:
        dim = point_channels(config)
        super().__init__(dim, config)
        self.config = config
        self.colour = make_perceptron(dim, *hidden_widths(config), 3)
        self.density = make_perceptron(dim, *hidden_widths(config), 1)

    def forward(
        self, keys_values: list[LayerKeysValues], points: Float[Tensor, "b r s 3"]
    ) -> tuple[Float[Tensor, "b r s"], Float[Tensor, "b r s 3"]]:
        """Returns densities and colours, in float32 at least."""
        gathered = self.gather(point_inputs(points.flatten(1, 2), self.config), keys_values)
        density, colour = (
            fused_decoder.apply_perceptron(net, gathered) for net in (self.density, self.colour)
        )
        density, colour = (
            part.unflatten(1, points.shape[1:3]) for part in (density[..., 0], colour)
        )
        return F.softplus(to_float32(density)), to_float32(colour).sigmoid()


class VolumeDecoder(nn.Module):
    """Points along a ray are the queries; their composite is its colour (stelzner/srt's "nerf").

    Fine samples lie where the coarse ones say that something is; all of them are composited. With
    one net for both, the coarse samples' values are those of the first pass, not computed again.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.coarse = PointNet(config)
        self.fine = PointNet(config) if config.separate_fine_net else None
        self.queries_per_ray = config.coarse_samples * (1 + config.separate_fine_net)
        self.queries_per_ray += config.fine_samples

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[LayerKeysValues]:
        """Returns what the points of a scene attend to: the coarse net's, then the fine one's."""
        nets = (self.coarse,) if self.fine is None else (self.coarse, self.fine)
        return [pair for net in nets for pair in net.scene_keys_values(tokens)]

    def forward(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Returns colours and depth of each ray, of all samples and of the coarse ones."""
        count, layers = self.config.coarse_samples, self.config.decoder_layers
        uniforms = rays.uniforms
        if uniforms is None:
            even = even_uniforms(count, self.config.fine_samples, rays.directions)
            uniforms = even.expand(*rays.directions.shape[:2], -1)
        depths = stratified_depths(uniforms[..., :count], rays.near, rays.far)
        densities, colours = self.coarse(keys_values[:layers], points_along_rays(rays, depths))
        coarse = composite(densities, colours, depths)

        weights = coarse.weights.detach()
        fine_depths = weighted_depths(uniforms[..., count:], weights, depths, rays.near)
        depths, order = torch.cat((depths, fine_depths), dim=-1).sort(dim=-1)
        if self.fine is not None:
            densities, colours = self.fine(keys_values[layers:], points_along_rays(rays, depths))
        else:
            fine = self.coarse(keys_values, points_along_rays(rays, fine_depths))
            densities = torch.cat((densities, fine[0]), dim=-1).gather(-1, order)
            colours = torch.cat((colours, fine[1]), dim=-2)
            colours = colours.gather(-2, order[..., None].expand_as(colours))
        seen = composite(densities, colours, depths)
        return Prediction(seen.colours, seen.depth, coarse.colours)


@runtime_checkable
class Decoder(Protocol):
    """What decodes rays: a decoder of the register below, or the same compiled."""

    def scene_keys_values(self, tokens: Float[Tensor, "b m c"]) -> list[LayerKeysValues]:
        """Return what the queries of a scene attend to, one entry a layer."""

    def __call__(self, keys_values: list[LayerKeysValues], rays: Rays) -> Prediction:
        """Return the colours of the rays."""


DECODERS: dict[str, type[LightFieldDecoder | VolumeDecoder]] = {
    "srt": LightFieldDecoder,
    "isrt": LightFieldDecoder,
    "vsrt": VolumeDecoder,
}


def uniforms_per_ray(config: ModelConfig) -> int:
    """Returns how many random numbers a ray needs in training: one for each of its samples."""
    return config.coarse_samples + config.fine_samples if config.name == "vsrt" else 0


def points_along_rays(rays: Rays, depths: Float[Tensor, "b r s"]) -> Float[Tensor, "b r s 3"]:
    """Returns the points at distances along rays."""
    return rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]


def make_perceptron(*widths: int) -> nn.Sequential:
    """Returns linear layers of these widths, from the input's to the output's, ReLU between."""
    pairs = itertools.pairwise(widths)
    layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def hidden_widths(config: ModelConfig) -> list[int]:
    """Returns the widths between what a query gathered and its colour or density."""
    return [config.decoder_hidden] * config.decoder_hidden_layers
