"""The decoder's layers for a GPU: the same functions as the plain ones in fewer, larger products.

Rays are decoded in many groups, so a decoder layer runs often and its cost decides how long a
training takes. Three changes make it faster. None is an approximation:

- Matrix units multiply tiles whose sides are powers of two. Queries of 180 channels are padded with
  0 to a `width` of 192. The first padding channel is set to 1 after each norm. The biases of norm
  and product then become one more row of the product's weights.
- Where a scene has fewer tokens than a head has channels, products are associated differently.
  scores = (norm(x) Wq_h) K_hᵀ becomes norm(x) (Wq_h K_hᵀ), and Σ_h (P_h V_h) Wo_h becomes
  Σ_h P_h (V_h Wo_h). The brackets depend on weights and scene alone.
- The MLP's kernels compute the GELU and its derivative together with the matrix products, which
  saves reading and writing the hidden channels (srt/model/kernels/triton_mlp.py).

`prepare_layer` computes what depends on weights and scene alone: once for a step, not once for each
group of rays. `fused_layer` is the layer itself.

b scenes, n queries of `width` channels, m scene tokens, h heads of d channels. `dim` is the number
of channels without padding.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.model.attention import CrossAttention, KeysValues, Mlp, attend
from srt.model.kernels.operators import kernel_mlp, kernels_available, linear_relu
from srt.model.positional_encoding import FourierInput, encode_padded, uses_bfloat16

# The widths for which there are kernels: 64 + 32 and 128 + 64.
WIDTHS = (96, 192)

# The fields of a prepared layer, and of `KeysValues`, that have a dimension of scenes.
PER_SCENE = ("query_to_scores", "weights_to_output", "key", "value")


class FewTokens(NamedTuple):
    """A layer prepared for a scene that has fewer tokens than a head has channels."""

    query_to_scores: Float[Tensor, "b width h m"]  # Wq_h K_hᵀ
    weights_to_output: Float[Tensor, "b hm width"]  # V_h Wo_h
    bias: Float[Tensor, "width"]
    expand: Float[Tensor, "width hidden"]
    contract: Float[Tensor, "hidden width"]
    mlp_bias: Float[Tensor, "width"]


class ManyTokens(NamedTuple):
    """A layer prepared for a scene that has at least as many tokens as a head has channels."""

    query: Float[Tensor, "width hd"]
    key: Float[Tensor, "b h m d"]
    value: Float[Tensor, "b h m d"]
    output: Float[Tensor, "hd width"]
    bias: Float[Tensor, "width"]
    expand: Float[Tensor, "width hidden"]
    contract: Float[Tensor, "hidden width"]
    mlp_bias: Float[Tensor, "width"]


PreparedLayer = FewTokens | ManyTokens


def padded_width(dim: int) -> int | None:
    """Return the width to which queries are padded, or None if there is no suitable one.

    At least one channel is padding, for the biases, and at most a third of them are.
    """
    return next((width for width in WIDTHS if width * 2 // 3 <= dim < width), None)


def can_fuse(tokens: Tensor, dim: int, hidden: int) -> bool:
    """Return True if a layer can run as described above: in bfloat16 on a recent NVIDIA GPU.

    Args:
        dim: the channels of a query.
        hidden: the hidden channels of the MLP, of which the kernels take up to 64 at a time.
    """
    if not uses_bfloat16(tokens):
        return False
    return padded_width(dim) is not None and hidden % 64 == 0 and kernels_available()


def prepare_layer(attention: CrossAttention, mlp: Mlp, pair: KeysValues) -> PreparedLayer:
    """Return the matrices by which queries are multiplied, in float32 at least.

    Args:
        pair: the keys and values of the scenes.
    """
    dim = mlp.contract.out_features
    width = padded_width(dim) or dim + 1
    tokens, head_dim = pair.key.shape[2:]
    with torch.autocast(pair.key.device.type, enabled=False):
        # Pad the weights, and fold the norms into them. The scale of the scores is folded as well.
        query = fold_norm(attention.norm, attention.query, width) * head_dim**-0.5  # (width, hd)
        output, bias = transpose_padded(attention.output, width)  # (hd, width), (width,)
        expand = fold_norm(mlp.norm, mlp.expand, width)  # (width, hidden)
        contract, mlp_bias = transpose_padded(mlp.contract, width)  # (hidden, width), (width,)
        if tokens >= head_dim:
            return ManyTokens(query, *pair, output, bias, expand, contract, mlp_bias)

        to_scores, to_output = associate_scene_first(query, output, pair)
        return FewTokens(to_scores, to_output, bias, expand, contract, mlp_bias)


def associate_scene_first(
    query: Float[Tensor, "width hd"], output: Float[Tensor, "hd width"], pair: KeysValues
) -> tuple[Float[Tensor, "b width h m"], Float[Tensor, "b hm width"]]:
    """Return Wq_h K_hᵀ and V_h Wo_h: the two fields of `FewTokens` that depend on the scene."""
    # Multiply in the keys' precision, but keep results in float32: every group of rays accumulates
    # into their gradients.
    key, value = pair
    head_dim = key.shape[3]
    query_heads = query.to(key.dtype).unflatten(1, (-1, head_dim))  # (width, h, d)
    output_heads = output.to(key.dtype).unflatten(0, (-1, head_dim))  # (h, d, width)
    to_scores = torch.einsum("whd,bhmd->bwhm", query_heads, key)
    to_output = torch.einsum("bhmd,hdw->bhmw", value, output_heads).flatten(1, 2)  # (b, hm, width)
    return to_scores.to(query.dtype), to_output.to(query.dtype)


def fold_norm(norm: nn.LayerNorm, linear: nn.Linear, width: int) -> Float[Tensor, "{width} out"]:
    """Return the one matrix that replaces a norm's scale and bias and a linear layer.

    It multiplies rows that `normalise_rows` returns. These have a channel that is always 1, whose
    row of the matrix holds the biases.
    """
    bias = linear.weight @ norm.bias
    if linear.bias is not None:
        bias = bias + linear.bias
    rows = torch.cat(((linear.weight * norm.weight).T, bias[None]))  # (dim + 1, out)
    return F.pad(rows, (0, 0, 0, width - rows.shape[0]))


def transpose_padded(
    linear: nn.Linear, width: int
) -> tuple[Float[Tensor, "in {width}"], Float[Tensor, "{width}"]]:
    """Return the transposed weights and the bias of a linear layer, with outputs of 0 appended."""
    padding = width - linear.out_features
    weight = F.pad(linear.weight, (0, 0, 0, padding)).T.contiguous()
    return weight, F.pad(linear.bias, (0, padding))


def normalise_rows(x: Float[Tensor, "*n width"], dim: int) -> Float[Tensor, "*n width"]:
    """Return rows with mean 0 and variance 1 in the first `dim` channels, and 1 in the next one."""
    # Statistics are computed in float32. The padding is 0, so the sum of all channels is that of
    # the first ones.
    channel = torch.arange(x.shape[-1], device=x.device)
    precise = x if x.dtype == torch.float64 else x.float()
    mean = precise.sum(dim=-1, keepdim=True) / dim

    # Subtracting the mean must leave the padding at 0.
    centred = torch.where(channel < dim, precise - mean, 0)
    variance = centred.square().sum(dim=-1, keepdim=True) / dim
    return (centred * (variance + 1e-5).rsqrt() + (channel == dim)).to(x.dtype)


def fused_layer(
    x: Float[Tensor, "b n width"], prepared: PreparedLayer, dim: int
) -> Float[Tensor, "b n width"]:
    """Return queries after one decoder layer: cross-attention, then the MLP.

    Args:
        x: queries with `dim` channels, then padding of 0, which stays 0.
    """
    x = fused_attention(x, prepared, dim)

    # The kernels take all queries of all scenes as rows of one matrix.
    rows = normalise_rows(x, dim).flatten(0, 1)  # (b · n, width)
    mlp = kernel_mlp if x.device.type == "cuda" else plain_mlp
    added = mlp(rows, prepared.expand, prepared.contract).view_as(x)
    return x + (added + prepared.mlp_bias.to(x.dtype))


def fused_attention(
    x: Float[Tensor, "b n width"], prepared: PreparedLayer, dim: int
) -> Float[Tensor, "b n width"]:
    """Return queries plus what they gather from the scenes' tokens."""
    # The prepared matrices are float32; the queries' precision decides that of the products.
    rows, dtype = normalise_rows(x, dim), x.dtype
    bias = prepared.bias.to(dtype)

    # With many tokens this is ordinary attention. The query's weights contain the scale already.
    if isinstance(prepared, ManyTokens):
        query = rows @ prepared.query.to(dtype)  # (b, n, hd)
        gathered = attend(query, prepared.key.to(dtype), prepared.value.to(dtype), 1.0)
        return x + (gathered @ prepared.output.to(dtype) + bias)

    # With few tokens, one product gives the scores of all heads, and one more joins them again.
    heads_tokens = prepared.query_to_scores.shape[2:]
    scores = rows @ prepared.query_to_scores.flatten(2).to(dtype)  # (b, n, hm)
    weights = scores.unflatten(-1, heads_tokens).softmax(dim=-1)  # (b, n, h, m)
    weights = weights.to(dtype).flatten(2)  # (b, n, hm)
    return x + (weights @ prepared.weights_to_output.to(dtype) + bias)


def plain_mlp(
    rows: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
) -> Float[Tensor, "n width"]:
    """Return what an MLP adds to its input, without the bias of the second layer.

    Args:
        rows: the normalised input.
    """
    return F.gelu(rows @ expand.to(rows.dtype)) @ contract.to(rows.dtype)


def encode_queries(net: nn.Module, inputs: list[FourierInput]) -> Float[Tensor, "b n width"]:
    """Return encoded queries in bfloat16, padded with 0 to the width of a layer.

    Args:
        net: the MLP that encoded queries pass first, or the identity.
    """
    encoded = encode_padded(inputs, 96)
    return apply_padded(net, encoded, 96) if isinstance(net, nn.Sequential) else encoded


def apply_perceptron(net: nn.Sequential, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
    """Return the output of an MLP, whose input may be padded with channels of 0."""
    if x.shape[-1] == net[0].in_features:
        return net(x)
    return apply_padded(net, x, 8)[..., : net[-1].out_features]


def apply_padded(
    net: nn.Sequential, x: Float[Tensor, "*n in"], multiple: int
) -> Float[Tensor, "*n _"]:
    """Return the output of an MLP, padded with channels of 0 up to a multiple.

    The hidden layers are padded as well.
    """
    # Linear layers and activations alternate; the last linear layer has no activation.
    layers = list(net)
    for layer, activation in itertools.zip_longest(layers[::2], layers[1::2]):
        linear = cast(nn.Linear, layer)
        padding = -linear.out_features % multiple
        weight = F.pad(linear.weight, (0, x.shape[-1] - linear.in_features, 0, padding))
        bias = F.pad(linear.bias, (0, padding))
        if activation is None:
            x = F.linear(x, weight, bias)
        elif x.is_cuda:
            x = linear_relu(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
        else:
            x = activation(F.linear(x, weight, bias))
    return x
