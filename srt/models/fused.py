"""A decoder layer as a GPU likes it: the same function, in products of whole tiles.

What depends on weights and scene alone is computed once a step, by `prepare`, not once a group:

- A query of 180 channels is 192 wide, the others 0. A norm's scale and bias are folded into the
  product that follows it, whose bias is the row beside a channel that is always 1.
- Where a scene has fewer tokens than a head has channels, products associate the other way: scores
  are norm(x) · (Wq_h K_hᵀ), and what is gathered is Σ_h P_h · (V_h Wo_h).
- The MLP's hidden activations stay on the chip (`srt/models/kernels.py`).

b scenes, n queries of `width` channels, m scene tokens, h heads of d channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.models.attention import CrossAttention, KeysValues, Mlp, join_heads, split_heads
from srt.shapes import Float

WIDTHS = (96, 192)


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


Prepared = FewTokens | ManyTokens


def padded_width(dim: int) -> int | None:
    """Returns the width at which queries of `dim` channels are computed; None: there is none."""
    return next((width for width in WIDTHS if width * 2 // 3 <= dim < width), None)


def suits(tokens: Tensor, dim: int, hidden: int) -> bool:
    """Returns whether layers run like this: in bfloat16, on NVIDIA's GPUs from Ampere on."""
    if tokens.device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return False
    known = padded_width(dim) is not None and hidden % 64 == 0
    return known and torch.cuda.get_device_capability(tokens.device) >= (8, 0)


def prepare(attention: CrossAttention, mlp: Mlp, pair: KeysValues) -> Prepared:
    """Returns what the queries of scenes are multiplied by, in float32 at least."""
    dim = mlp.contract.out_features
    width = padded_width(dim) or dim + 1
    tokens, head_dim = pair.key.shape[2:]
    with torch.autocast(pair.key.device.type, enabled=False):
        query = folded(attention.norm, attention.query, width) * head_dim**-0.5
        output, bias = transposed(attention.output, width)
        hidden = (folded(mlp.norm, mlp.expand, width), *transposed(mlp.contract, width))
        if tokens >= head_dim:
            return ManyTokens(query, *pair, output, bias, *hidden)
        key, value = (part.to(query.dtype) for part in pair)
        inward = torch.einsum("whd,bhmd->bwhm", query.unflatten(1, (-1, head_dim)), key)
        outward = torch.einsum("bhmd,hdw->bhmw", value, output.unflatten(0, (-1, head_dim)))
        return FewTokens(inward, outward.flatten(1, 2), bias, *hidden)


def folded(norm: nn.LayerNorm, linear: nn.Linear, width: int) -> Float[Tensor, "{width} out"]:
    """Returns what `normalise`d rows are multiplied by: a norm's scale and bias, and a product."""
    constant = linear.weight @ norm.bias
    if linear.bias is not None:
        constant = constant + linear.bias
    rows = torch.cat(((linear.weight * norm.weight).T, constant[None]))
    return F.pad(rows, (0, 0, 0, width - rows.shape[0]))


def transposed(
    linear: nn.Linear, width: int
) -> tuple[Float[Tensor, "in {width}"], Float[Tensor, "{width}"]]:
    """Returns a product's weights and bias, with columns of 0 up to the width."""
    missing = width - linear.out_features
    return F.pad(linear.weight, (0, 0, 0, missing)).T.contiguous(), F.pad(linear.bias, (0, missing))


def normalise(x: Float[Tensor, "*n width"], real: int) -> Float[Tensor, "*n width"]:
    """Returns rows whose `real` channels have mean 0 and variance 1, and whose next one is 1."""
    place = torch.arange(x.shape[-1], device=x.device)
    precise = x if x.dtype == torch.float64 else x.float()
    mean = precise.sum(dim=-1, keepdim=True) / real  # the others are 0
    centred = torch.where(place < real, precise - mean, 0)
    variance = centred.square().sum(dim=-1, keepdim=True) / real
    return (centred * (variance + 1e-5).rsqrt() + (place == real)).to(x.dtype)


def layer(x: Float[Tensor, "b n width"], made: Prepared, real: int) -> Float[Tensor, "b n width"]:
    """Returns what a decoder layer makes of queries, of which `real` channels are not 0."""
    x = attend(x, made, real)
    rows = x.flatten(0, 1)
    hidden = (made.expand, made.contract, made.mlp_bias)
    if x.device.type == "cuda" and x.dtype == torch.bfloat16:
        return fused_mlp(rows, *hidden, real).view_as(x)
    return plain_mlp(rows, *hidden, real).view_as(x)


def attend(x: Float[Tensor, "b n width"], made: Prepared, real: int) -> Float[Tensor, "b n width"]:
    """Returns queries plus what they gather from the scenes' tokens."""
    normal, kind = normalise(x, real), x.dtype
    if isinstance(made, ManyTokens):
        query = split_heads(normal @ made.query.to(kind), made.key.shape[1])
        key, value = made.key.to(kind), made.value.to(kind)
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + (join_heads(seen) @ made.output.to(kind) + made.bias.to(kind))
    scores = (normal @ made.inward.flatten(2).to(kind)).unflatten(-1, made.inward.shape[2:])
    weights = scores.softmax(dim=-1).to(kind).flatten(2)
    return x + (weights @ made.outward.to(kind) + made.bias.to(kind))


def plain_mlp(
    x: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
    bias: Float[Tensor, "width"],
    real: int,
) -> Float[Tensor, "n width"]:
    """Returns rows plus what an MLP makes of them."""
    hidden = F.gelu(normalise(x, real) @ expand.to(x.dtype))
    return x + (hidden @ contract.to(x.dtype) + bias.to(x.dtype))


fused_mlp: Any = torch.library.custom_op(
    "srt::mlp",
    lambda x, expand, contract, bias, real: _kernels().mlp_forward(
        x, expand.to(x.dtype), contract.to(x.dtype), bias, real
    ),
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor x, Tensor expand, Tensor contract, Tensor bias, int real) -> Tensor",
)
"""The same as `plain_mlp`, by one kernel; the gradients of the weights are in float32."""


def _kernels() -> Any:
    """Returns the kernels' module: Triton comes with PyTorch for CUDA, and with no other."""
    from srt.models import kernels

    return kernels


def _mlp_gradients(
    x: Tensor, expand: Tensor, contract: Tensor, dy: Tensor, real: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights = expand.to(x.dtype), contract.to(x.dtype)
    dx, normal, hidden, dhidden = _kernels().mlp_backward(x, *weights, dy.contiguous(), real)
    dexpand = torch.mm(normal.T, dhidden, out_dtype=torch.float32)
    dcontract = torch.mm(hidden.T, dy, out_dtype=torch.float32)
    return dx, dexpand, dcontract, dy.sum(dim=0, dtype=torch.float32)


_fused_mlp_gradients: Any = torch.library.custom_op(
    "srt::mlp_gradients",
    _mlp_gradients,
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor x, Tensor expand, Tensor contract, Tensor dy, int real)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.real = inputs
    ctx.save_for_backward(*tensors[:3])


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return *_fused_mlp_gradients(*ctx.saved_tensors, dy, ctx.real), None


fused_mlp.register_fake(lambda x, expand, contract, bias, real: torch.empty_like(x))
_fused_mlp_gradients.register_fake(
    lambda x, expand, contract, dy, real: (
        torch.empty_like(x),
        *(torch.empty_like(like, dtype=torch.float32) for like in (expand, contract, expand[:, 0])),
    )
)
fused_mlp.register_autograd(_backward, setup_context=_remember)


def widen(net: nn.Module, encoded: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n width"]:
    """Returns the queries, in bfloat16, with channels of 0 up to a layer's width."""
    dim = encoded.shape[-1]
    encoded = F.pad(encoded, (0, (padded_width(dim) or dim) - dim)).bfloat16()
    return padded(net, encoded, 96) if isinstance(net, nn.Sequential) else encoded


def perceptron(net: nn.Sequential, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
    """Returns what linear layers make of rows, which may have channels of 0 behind the others."""
    if x.shape[-1] == net[0].in_features:
        return net(x)
    return padded(net, x, 8)[..., : net[-1].out_features]


def padded(net: nn.Sequential, x: Float[Tensor, "*n in"], multiple: int) -> Float[Tensor, "*n _"]:
    """Returns what linear layers make of rows, each with channels of 0 up to a multiple."""
    for part in net:
        if isinstance(part, nn.Linear):
            rows = -part.out_features % multiple
            weight = F.pad(part.weight, (0, x.shape[-1] - part.in_features, 0, rows))
            x = F.linear(x, weight, F.pad(part.bias, (0, rows)))
        else:
            x = part(x)
    return x
