"""What PyTorch's compiler calls and does not look into: kernels of ours, and products with a ReLU.

Each is beside its plain version where it is used: the decoder's in srt/model/fused_decoder.py, the
convolutions' and the camera's in encoder.py, the encoding's in encoding.py; attention_operators.py
has others.
"""
# mypy: disable-error-code="untyped-decorator, no-untyped-call"

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from srt.common.shapes import Float


@torch.compiler.assume_constant_result
def kernels_available() -> bool:
    """Returns whether the GPU runs our kernels; Triton comes with PyTorch, but not everywhere."""
    found = importlib.util.find_spec("triton") is not None
    return found and torch.cuda.get_device_capability() >= (8, 0)


def operator(name: str, schema: str) -> Any:
    """Registers a function as one that PyTorch's compiler calls and does not look into."""
    return torch.library.custom_op(f"srt::{name}", mutates_args=(), schema=schema)


def kernel_mlp(
    normal: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
) -> Float[Tensor, "n width"]:
    """Returns what an MLP adds to rows, but for its bias; its weights' gradients are float32.

    The kernels take the GELU along.
    """
    if torch.is_grad_enabled():
        added: Tensor = _KernelMlp.apply(normal, expand, contract)
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


@operator("mlp", "(Tensor normal, Tensor expand, Tensor contract, bool keep) -> Tensor[]")
def _mlp(normal: Tensor, expand: Tensor, contract: Tensor, keep: bool) -> list[Tensor]:
    from srt.model.kernels import triton_mlp

    hidden, slope = triton_mlp.expand_gelu(normal, expand, keep)
    return [hidden @ contract, hidden, slope]


@_mlp.register_fake
def _(normal: Tensor, expand: Tensor, contract: Tensor, keep: bool) -> list[Tensor]:
    hidden = normal.new_empty(normal.shape[0], expand.shape[1])
    return [torch.empty_like(normal), hidden, torch.empty_like(hidden[: None if keep else 0])]


@operator(
    "mlp_backward",
    "(Tensor normal, Tensor hidden, Tensor slope, Tensor expand, Tensor contract, Tensor dy)"
    " -> (Tensor, Tensor, Tensor)",
)
def _mlp_backward(
    normal: Tensor, hidden: Tensor, slope: Tensor, expand: Tensor, contract: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from srt.model.kernels import triton_mlp

    dx = triton_mlp.contract_backward(dy, contract, slope)
    dexpand = torch.mm(normal.T, dx, out_dtype=torch.float32)
    return dx @ expand.T, dexpand, torch.mm(hidden.T, dy, out_dtype=torch.float32)


@_mlp_backward.register_fake
def _(
    normal: Tensor, hidden: Tensor, slope: Tensor, expand: Tensor, contract: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(normal), expand.float(), contract.float()


def encode_rows(
    rows: Float[Tensor, "n columns"], raw: int, octaves: list[int], starts: list[int], width: int
) -> Float[Tensor, "n width"]:
    """Returns, in bfloat16, what `kernels.encode` does."""
    encoded: Tensor = _encode(rows, raw, octaves, starts, width)
    return encoded


@operator("encode", "(Tensor rows, int raw, int[] octaves, int[] starts, int width) -> Tensor")
def _encode(rows: Tensor, raw: int, octaves: list[int], starts: list[int], width: int) -> Tensor:
    from srt.model.kernels import triton_mlp

    return triton_mlp.encode(rows.contiguous(), raw, tuple(octaves), tuple(starts), width)


@_encode.register_fake
def _(rows: Tensor, raw: int, octaves: list[int], starts: list[int], width: int) -> Tensor:
    return rows.new_empty(rows.shape[0], width, dtype=torch.bfloat16)


def camera_relu(
    pixels: Float[Tensor, "n c h w"], camera: Float[Tensor, "n c 3 3"]
) -> Float[Tensor, "n c h w"]:
    """Returns what encoder.py's CameraAndPixels does, by a kernel that reads and writes once."""
    out: Tensor = _CameraRelu.apply(pixels, camera)
    return out


class _CameraRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, camera: Tensor) -> Tensor:
        out: Tensor = _add_camera(pixels, camera)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor] = _add_camera_backward(*ctx.saved_tensors, dy)
        return gradients


@operator("add_camera", "(Tensor pixels, Tensor camera) -> Tensor")
def _add_camera(pixels: Tensor, camera: Tensor) -> Tensor:
    from srt.model.kernels import triton_mlp

    return triton_mlp.add_camera(pixels.contiguous(memory_format=torch.channels_last), camera)


@_add_camera.register_fake
def _(pixels: Tensor, camera: Tensor) -> Tensor:
    return torch.empty_like(pixels, memory_format=torch.channels_last)


@operator("add_camera_backward", "(Tensor out, Tensor dy) -> (Tensor, Tensor)")
def _add_camera_backward(out: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    from srt.model.kernels import triton_mlp

    return triton_mlp.add_camera_backward(out, dy.contiguous(memory_format=torch.channels_last))


@_add_camera_backward.register_fake
def _(out: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(out), out.new_empty(*out.shape[:2], 3, 3)


def linear_relu(
    x: Float[Tensor, "n in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, "out"]
) -> Float[Tensor, "n out"]:
    """Returns the ReLU of a linear layer, in the precision of `x`; cuBLAS takes both at once."""
    out: Tensor = _LinearRelu.apply(x, weight, bias)
    return out


class _LinearRelu(torch.autograd.Function):
    """Where it was 0 is read off its outcome: nothing else is kept."""

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


@operator("linear_relu", "(Tensor x, Tensor weight, Tensor bias) -> Tensor")
def _linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch._addmm_activation(bias, x, weight.T)


@_linear_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def convolution_relu(
    x: Float[Tensor, "n c h w"], weight: Float[Tensor, "out c 3 3"], stride: int
) -> Float[Tensor, "n out rows columns"]:
    """Returns the ReLU of a convolution of 3 x 3 pixels, in bfloat16; cuDNN takes both at once."""
    out: Tensor = _ConvolutionRelu.apply(x, weight, stride)
    return out


class _ConvolutionRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        steps = (stride, stride), (1, 1), (1, 1)  # and padding, and dilation
        out = torch.cudnn_convolution_relu(x, weight, None, *steps, 1)
        ctx.save_for_backward(x, weight, out)
        ctx.stride = stride
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        dy = torch.ops.aten.threshold_backward(dy, out, 0)
        steps, wanted = ((ctx.stride,) * 2, (1, 1), (1, 1)), (ctx.needs_input_grad[0], True, False)
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            dy, x, weight, None, *steps, False, (0, 0), 1, wanted
        )
        return dx, dweight, None
