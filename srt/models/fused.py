"""A decoder layer as a GPU likes it: the same function, in products of whole tiles.

What depends on weights and scene alone is computed once a step, by `prepare`, not once a group:

- A query of 180 channels is 192 wide, the others 0. A norm's scale and bias are folded into the
  product that follows it, whose bias is the row beside a channel that is always 1.
- Where a scene has fewer tokens than a head has channels, products associate the other way: scores
  are norm(x) · (Wq_h K_hᵀ), and what is gathered is Σ_h P_h · (V_h Wo_h).
- The MLP's products take GELU and its slope along, instead of reading and writing its hidden
  channels once more for each (`srt/models/kernels.py`).

b scenes, n queries of `width` channels, m scene tokens, h heads of d channels.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import importlib.util
import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.models.attention import CrossAttention, KeysValues, Mlp, join_heads, split_heads
from srt.models.encoding import Waves, encode, in_bfloat16
from srt.shapes import Float

WIDTHS = (96, 192)


class FewTokens(NamedTuple):
    """A layer before a scene of few tokens."""

    PER_SCENE = ("inward", "outward")
    inward: Float[Tensor, "b width h m"]  # from a query to its scores
    outward: Float[Tensor, "b hm width"]  # from its weights to what is gathered
    bias: Float[Tensor, "width"]
    expand: Float[Tensor, "width hidden"]
    contract: Float[Tensor, "hidden width"]
    mlp_bias: Float[Tensor, "width"]


class ManyTokens(NamedTuple):
    """A layer before a scene of many tokens."""

    PER_SCENE = ("key", "value")
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
    if not in_bfloat16(tokens):
        return False
    return padded_width(dim) is not None and hidden % 64 == 0 and kernels_run()


@torch.compiler.assume_constant_result
def kernels_run() -> bool:
    """Returns whether the GPU runs our kernels; Triton comes with PyTorch, but not everywhere."""
    found = importlib.util.find_spec("triton") is not None
    return found and torch.cuda.get_device_capability() >= (8, 0)


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
    normal = normalise(x, real).flatten(0, 1)
    mlp = kernel_mlp if x.device.type == "cuda" else plain_mlp
    return x + (mlp(normal, made.expand, made.contract).view_as(x) + made.mlp_bias.to(x.dtype))


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
    normal: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
) -> Float[Tensor, "n width"]:
    """Returns what an MLP adds to rows, but for its bias."""
    return F.gelu(normal @ expand.to(normal.dtype)) @ contract.to(normal.dtype)


def kernel_mlp(
    normal: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
) -> Float[Tensor, "n width"]:
    """Returns the same by kernels that take the GELU along; its weights' gradients are float32."""
    if torch.is_grad_enabled():
        added: Tensor = _KernelMlp.apply(normal, expand, contract)  # type: ignore[no-untyped-call]
        return added
    return _mlp(normal, expand.to(normal.dtype), contract.to(normal.dtype), False)[0]


class _KernelMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, normal: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
        expand, contract = expand.to(normal.dtype), contract.to(normal.dtype)
        added, hidden, slope = _mlp(normal, expand, contract, True)
        ctx.save_for_backward(normal, hidden, slope, expand, contract)
        return added

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = _mlp_backward(*ctx.saved_tensors, dy.contiguous())
        return gradients


def _operator(name: str, schema: str) -> Any:
    """Registers a function as one that PyTorch's compiler calls and does not look into."""
    return torch.library.custom_op(f"srt::{name}", mutates_args=(), schema=schema)


@_operator("mlp", "(Tensor normal, Tensor expand, Tensor contract, bool keep) -> Tensor[]")
def _mlp(normal: Tensor, expand: Tensor, contract: Tensor, keep: bool) -> list[Tensor]:
    from srt.models import kernels

    hidden, slope = kernels.expand_gelu(normal, expand, keep)
    return [hidden @ contract, hidden, slope]


@_mlp.register_fake
def _(normal: Tensor, expand: Tensor, contract: Tensor, keep: bool) -> list[Tensor]:
    hidden = normal.new_empty(normal.shape[0], expand.shape[1])
    return [torch.empty_like(normal), hidden, torch.empty_like(hidden[: None if keep else 0])]


@_operator(
    "mlp_backward",
    "(Tensor normal, Tensor hidden, Tensor slope, Tensor expand, Tensor contract, Tensor dy)"
    " -> (Tensor, Tensor, Tensor)",
)
def _mlp_backward(
    normal: Tensor, hidden: Tensor, slope: Tensor, expand: Tensor, contract: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from srt.models import kernels

    dx = kernels.contract_backward(dy, contract, slope)
    dexpand = torch.mm(normal.T, dx, out_dtype=torch.float32)
    return dx @ expand.T, dexpand, torch.mm(hidden.T, dy, out_dtype=torch.float32)


@_mlp_backward.register_fake
def _(
    normal: Tensor, hidden: Tensor, slope: Tensor, expand: Tensor, contract: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(normal), expand.float(), contract.float()


def encode_wide(
    waves: list[Waves], multiple: int, beside: Float[Tensor, "*points _"] | None = None
) -> Float[Tensor, "*points width"]:
    """Returns the encoding, in bfloat16, with channels of 0 up to a multiple.

    Args:
        beside: channels that come first and are not encoded.
    """
    before = [] if beside is None else [beside]
    raw = sum(part.shape[-1] for part in before)
    channels = raw + sum(6 * part.octaves for part in waves)
    width = channels + -channels % multiple
    coordinates = torch.cat((*before, *(part.coordinates for part in waves)), dim=-1)
    if not coordinates.is_cuda or coordinates.requires_grad or not kernels_run():
        plain = torch.cat((*before, encode(waves)), dim=-1)
        return F.pad(plain, (0, width - channels)).bfloat16()
    octaves, starts = [part.octaves for part in waves], [part.start for part in waves]
    rows = coordinates.float().flatten(0, -2)
    encoded: Tensor = _encode(rows, raw, octaves, starts, width)
    return encoded.unflatten(0, coordinates.shape[:-1])


@_operator("encode", "(Tensor rows, int raw, int[] octaves, int[] starts, int width) -> Tensor")
def _encode(rows: Tensor, raw: int, octaves: list[int], starts: list[int], width: int) -> Tensor:
    from srt.models import kernels

    return kernels.encode(rows.contiguous(), raw, tuple(octaves), tuple(starts), width)


@_encode.register_fake
def _(rows: Tensor, raw: int, octaves: list[int], starts: list[int], width: int) -> Tensor:
    return rows.new_empty(rows.shape[0], width, dtype=torch.bfloat16)


def widen(net: nn.Module, waves: list[Waves]) -> Float[Tensor, "b n width"]:
    """Returns the queries, in bfloat16, with channels of 0 up to a layer's width."""
    encoded = encode_wide(waves, 96)
    return padded(net, encoded, 96) if isinstance(net, nn.Sequential) else encoded


def perceptron(net: nn.Sequential, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
    """Returns what linear layers make of rows, which may have channels of 0 behind the others."""
    if x.shape[-1] == net[0].in_features:
        return net(x)
    return padded(net, x, 8)[..., : net[-1].out_features]


def padded(net: nn.Sequential, x: Float[Tensor, "*n in"], multiple: int) -> Float[Tensor, "*n _"]:
    """Returns what linear layers make of rows, each with channels of 0 up to a multiple."""
    parts = list(net)
    for linear, activation in itertools.zip_longest(parts[::2], parts[1::2]):
        rows = -linear.out_features % multiple
        weight = F.pad(linear.weight, (0, x.shape[-1] - linear.in_features, 0, rows))
        bias = F.pad(linear.bias, (0, rows))
        if activation is None:
            x = F.linear(x, weight, bias)
        elif x.is_cuda:
            flat: Tensor = _LinearRelu.apply(x.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
            x = flat.unflatten(0, x.shape[:-1])
        else:
            x = activation(F.linear(x, weight, bias))
    return x


class _LinearRelu(torch.autograd.Function):
    """A product that takes the ReLU along; where it was 0 is read off its outcome."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight = weight.to(x.dtype)
        out: Tensor = _linear_relu(x, weight, bias.to(x.dtype))
        ctx.save_for_backward(x, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, weight, out = ctx.saved_tensors
        dy = torch.where(out > 0, dy, 0)
        return dy @ weight, dy.T @ x, dy.sum(dim=0)


@_operator("linear_relu", "(Tensor x, Tensor weight, Tensor bias) -> Tensor")
def _linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch._addmm_activation(bias, x, weight.T)


@_linear_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])
