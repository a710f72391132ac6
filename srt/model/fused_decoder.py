"""A decoder layer as a GPU likes it: the same function, in products of whole tiles.

What depends on weights and scene alone is computed once a step, by `prepare_layer`, not once a group:

- A query of 180 channels is 192 wide, the others 0. A norm's scale and bias are folded into the
  product that follows it, whose bias is the row beside a channel that is always 1.
- Where a scene has fewer tokens than a head has channels, products associate the other way: scores
  are norm(x) · (Wq_h K_hᵀ), and what is gathered is Σ_h P_h · (V_h Wo_h).
- The MLP's products take GELU and its slope along, instead of reading and writing its hidden
  channels once more for each (`srt/model/kernels/triton_mlp.py`).

b scenes, n queries of `width` channels, m scene tokens, h heads of d channels.
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

WIDTHS = (96, 192)
PER_SCENE = ("inward", "outward", "key", "value")  # what each scene has of its own to attend to


class FewTokens(NamedTuple):
    """A layer before a scene of few tokens."""

    inward: Float[Tensor, "b width h m"]  # from a query to its scores
    outward: Float[Tensor, "b hm width"]  # from its weights to what is gathered
    bias: Float[Tensor, "width"]
    expand: Float[Tensor, "width hidden"]
    contract: Float[Tensor, "hidden width"]
    mlp_bias: Float[Tensor, "width"]


class ManyTokens(NamedTuple):
    """A layer before a scene of many tokens."""

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
    """Returns the width at which queries of `dim` channels are computed; None: there is none."""
    return next((width for width in WIDTHS if width * 2 // 3 <= dim < width), None)


def can_fuse(tokens: Tensor, dim: int, hidden: int) -> bool:
    """Returns whether layers run like this: in bfloat16, on NVIDIA's GPUs from Ampere on."""
    if not uses_bfloat16(tokens):
        return False
    return padded_width(dim) is not None and hidden % 64 == 0 and kernels_available()


def prepare_layer(attention: CrossAttention, mlp: Mlp, pair: KeysValues) -> PreparedLayer:
    """Returns what the queries of scenes are multiplied by, in float32 at least."""
    dim = mlp.contract.out_features
    width = padded_width(dim) or dim + 1
    tokens, head_dim = pair.key.shape[2:]
    with torch.autocast(pair.key.device.type, enabled=False):
        query = fold_norm(attention.norm, attention.query, width) * head_dim**-0.5
        output, bias = transpose_padded(attention.output, width)
        hidden = (fold_norm(mlp.norm, mlp.expand, width), *transpose_padded(mlp.contract, width))
        if tokens >= head_dim:
            return ManyTokens(query, *pair, output, bias, *hidden)
        # In the keys' precision; what comes out is not, for groups add to its gradient.
        key, value = pair
        inwards, outwards = (part.to(key.dtype) for part in (query, output))
        inward = torch.einsum("whd,bhmd->bwhm", inwards.unflatten(1, (-1, head_dim)), key)
        outward = torch.einsum("bhmd,hdw->bhmw", value, outwards.unflatten(0, (-1, head_dim)))
        inward, outward = (part.to(query.dtype) for part in (inward, outward.flatten(1, 2)))
        return FewTokens(inward, outward, bias, *hidden)


def fold_norm(norm: nn.LayerNorm, linear: nn.Linear, width: int) -> Float[Tensor, "{width} out"]:
    """Returns what `normalise_rows`d rows are multiplied by: a norm's scale and bias, and a product."""
    constant = linear.weight @ norm.bias
    if linear.bias is not None:
        constant = constant + linear.bias
    rows = torch.cat(((linear.weight * norm.weight).T, constant[None]))
    return F.pad(rows, (0, 0, 0, width - rows.shape[0]))


def transpose_padded(
    linear: nn.Linear, width: int
) -> tuple[Float[Tensor, "in {width}"], Float[Tensor, "{width}"]]:
    """Returns a product's weights and bias, with columns of 0 up to the width."""
    missing = width - linear.out_features
    return F.pad(linear.weight, (0, 0, 0, missing)).T.contiguous(), F.pad(linear.bias, (0, missing))


def normalise_rows(x: Float[Tensor, "*n width"], real: int) -> Float[Tensor, "*n width"]:
    """Returns rows whose `real` channels have mean 0 and variance 1, and whose next one is 1."""
    place = torch.arange(x.shape[-1], device=x.device)
    precise = x if x.dtype == torch.float64 else x.float()
    mean = precise.sum(dim=-1, keepdim=True) / real  # the others are 0
    centred = torch.where(place < real, precise - mean, 0)
    variance = centred.square().sum(dim=-1, keepdim=True) / real
    return (centred * (variance + 1e-5).rsqrt() + (place == real)).to(x.dtype)


def fused_layer(
    x: Float[Tensor, "b n width"], prepared: PreparedLayer, real: int
) -> Float[Tensor, "b n width"]:
    """Returns what a decoder layer makes of queries, of which `real` channels are not 0."""
    x = fused_attention(x, prepared, real)
    normal = normalise_rows(x, real).flatten(0, 1)
    mlp = kernel_mlp if x.device.type == "cuda" else plain_mlp
    return x + (
        mlp(normal, prepared.expand, prepared.contract).view_as(x) + prepared.mlp_bias.to(x.dtype)
    )


def fused_attention(
    x: Float[Tensor, "b n width"], prepared: PreparedLayer, real: int
) -> Float[Tensor, "b n width"]:
    """Returns queries plus what they gather from the scenes' tokens."""
    normal, kind = normalise_rows(x, real), x.dtype
    if isinstance(prepared, ManyTokens):
        query, key, value = (
            normal @ prepared.query.to(kind),
            prepared.key.to(kind),
            prepared.value.to(kind),
        )
        seen = attend(query, key, value, 1.0)
        return x + (seen @ prepared.output.to(kind) + prepared.bias.to(kind))
    scores = (normal @ prepared.inward.flatten(2).to(kind)).unflatten(-1, prepared.inward.shape[2:])
    weights = scores.softmax(dim=-1).to(kind).flatten(2)
    return x + (weights @ prepared.outward.to(kind) + prepared.bias.to(kind))


def plain_mlp(
    normal: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
) -> Float[Tensor, "n width"]:
    """Returns what an MLP adds to rows, but for its bias."""
    return F.gelu(normal @ expand.to(normal.dtype)) @ contract.to(normal.dtype)


def encode_queries(net: nn.Module, inputs: list[FourierInput]) -> Float[Tensor, "b n width"]:
    """Returns the queries, in bfloat16, with channels of 0 up to a layer's width."""
    encoded = encode_padded(inputs, 96)
    return apply_padded(net, encoded, 96) if isinstance(net, nn.Sequential) else encoded


def apply_perceptron(net: nn.Sequential, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
    """Returns what linear layers make of rows, which may have channels of 0 behind the others."""
    if x.shape[-1] == net[0].in_features:
        return net(x)
    return apply_padded(net, x, 8)[..., : net[-1].out_features]


def apply_padded(
    net: nn.Sequential, x: Float[Tensor, "*n in"], multiple: int
) -> Float[Tensor, "*n _"]:
    """Returns what linear layers make of rows, each with channels of 0 up to a multiple."""
    parts = list(net)
    for layer, activation in itertools.zip_longest(parts[::2], parts[1::2]):
        linear = cast(nn.Linear, layer)
        rows = -linear.out_features % multiple
        weight = F.pad(linear.weight, (0, x.shape[-1] - linear.in_features, 0, rows))
        bias = F.pad(linear.bias, (0, rows))
        if activation is None:
            x = F.linear(x, weight, bias)
        elif x.is_cuda:
            x = linear_relu(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
        else:
            x = activation(F.linear(x, weight, bias))
    return x
