"""Operators for PyTorch: our Triton kernels, and matrix products and convolutions with a ReLU.

Each of them has three layers. A public function is what models call. An `autograd.Function` below
it says what is saved for the backward pass and how gradients are computed. Operators registered as
`srt::*` call the kernels. PyTorch's compiler calls an operator without looking into it, and learns
the shapes of its results from its `register_fake`.

The plain versions, and the decisions when to use which, are beside the callers: for the MLP in
srt/model/fused_decoder.py, for convolutions and camera in encoder.py, for the Fourier encoding in
positional_encoding.py. Attention has its own operators in attention_operators.py.

Triton may not be installed, so the modules with kernels are imported only where a kernel runs.

n rows (queries or points) or images, c channels, h x w pixels.
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
    """Return True if the GPU can run our kernels.

    They need Triton, which comes with PyTorch on Linux, and bfloat16, which NVIDIA's GPUs have from
    Ampere on.
    """
    installed = importlib.util.find_spec("triton") is not None
    return installed and torch.cuda.get_device_capability() >= (8, 0)


def operator(name: str, schema: str) -> Any:
    """Return a decorator that registers a function as the operator `srt::name`.

    Args:
        schema: the arguments and results, as PyTorch's schema language writes them.
    """
    return torch.library.custom_op(f"srt::{name}", mutates_args=(), schema=schema)


def kernel_mlp(
    rows: Float[Tensor, "n width"],
    expand: Float[Tensor, "width hidden"],
    contract: Float[Tensor, "hidden width"],
) -> Float[Tensor, "n width"]:
    """Return GELU(rows · expand) · contract in the precision of `rows`.

    The gradients of the two matrices are float32, because they sum over all rows.
    """
    if torch.is_grad_enabled():
        added: Tensor = _KernelMlp.apply(rows, expand, contract)
        return added
    return _mlp(rows, expand.to(rows.dtype), contract.to(rows.dtype), False)[0]


class _KernelMlp(torch.autograd.Function):
    """Saves the GELU's values and derivatives, from which the backward pass needs no GELU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
        expand, contract = expand.to(rows.dtype), contract.to(rows.dtype)
        added, hidden, slope = _mlp(rows, expand, contract, True)
        ctx.save_for_backward(rows, hidden, slope, expand, contract)
        return added

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = _mlp_backward(*ctx.saved_tensors, dy.contiguous())
        return gradients


@operator("mlp", "(Tensor rows, Tensor expand, Tensor contract, bool with_slope) -> Tensor[]")
def _mlp(rows: Tensor, expand: Tensor, contract: Tensor, with_slope: bool) -> list[Tensor]:
    """Return the result, the hidden activations, and the GELU's derivatives if asked for."""
    from srt.model.kernels import triton_mlp

    hidden, slope = triton_mlp.expand_gelu(rows, expand, with_slope)
    return [hidden @ contract, hidden, slope]


@_mlp.register_fake
def _(rows: Tensor, expand: Tensor, contract: Tensor, with_slope: bool) -> list[Tensor]:
    hidden = rows.new_empty(rows.shape[0], expand.shape[1])
    slope = torch.empty_like(hidden if with_slope else hidden[:0])
    return [torch.empty_like(rows), hidden, slope]


@operator(
    "mlp_backward",
    "(Tensor rows, Tensor hidden, Tensor slope, Tensor expand, Tensor contract, Tensor dy)"
    " -> (Tensor, Tensor, Tensor)",
)
def _mlp_backward(
    rows: Tensor, hidden: Tensor, slope: Tensor, expand: Tensor, contract: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the rows and of both matrices."""
    from srt.model.kernels import triton_mlp

    dx = triton_mlp.contract_backward(dy, contract, slope)
    dexpand = torch.mm(rows.T, dx, out_dtype=torch.float32)
    return dx @ expand.T, dexpand, torch.mm(hidden.T, dy, out_dtype=torch.float32)


@_mlp_backward.register_fake
def _(
    rows: Tensor, hidden: Tensor, slope: Tensor, expand: Tensor, contract: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(rows), expand.float(), contract.float()


def encode_rows(
    rows: Float[Tensor, "n columns"],
    leading: int,
    octaves: list[int],
    starts: list[int],
    width: int,
) -> Float[Tensor, "n width"]:
    """Return the Fourier encoding of rows in bfloat16, with channels of 0 appended.

    Args:
        rows: `leading` columns that are copied, then three coordinates for each entry of `octaves`.
        octaves: how many octaves each three coordinates are encoded with.
        starts: the lowest octave of each three coordinates.
        width: the number of channels of the result.
    """
    encoded: Tensor = _encode(rows, leading, octaves, starts, width)
    return encoded


@operator("encode", "(Tensor rows, int leading, int[] octaves, int[] starts, int width) -> Tensor")
def _encode(
    rows: Tensor, leading: int, octaves: list[int], starts: list[int], width: int
) -> Tensor:
    from srt.model.kernels import triton_encoding

    return triton_encoding.encode(rows.contiguous(), leading, tuple(octaves), tuple(starts), width)


@_encode.register_fake
def _(rows: Tensor, leading: int, octaves: list[int], starts: list[int], width: int) -> Tensor:
    return rows.new_empty(rows.shape[0], width, dtype=torch.bfloat16)


def camera_relu(
    pixels: Float[Tensor, "n c h w"], camera: Float[Tensor, "n c 3 3"]
) -> Float[Tensor, "n c h w"]:
    """Return ReLU(pixels + camera), as `CameraAndPixels` in encoder.py describes it.

    The kernel reads and writes each pixel once.
    """
    out: Tensor = _CameraRelu.apply(pixels, camera)
    return out


class _CameraRelu(torch.autograd.Function):
    """Saves the result only: where it is 0, the ReLU's gradient is 0."""

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
    from srt.model.kernels import triton_camera

    return triton_camera.add_camera(pixels.contiguous(memory_format=torch.channels_last), camera)


@_add_camera.register_fake
def _(pixels: Tensor, camera: Tensor) -> Tensor:
    return torch.empty_like(pixels, memory_format=torch.channels_last)


@operator("add_camera_backward", "(Tensor out, Tensor dy) -> (Tensor, Tensor)")
def _add_camera_backward(out: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the pixels and of the camera's nine values."""
    from srt.model.kernels import triton_camera

    return triton_camera.add_camera_backward(out, dy.contiguous(memory_format=torch.channels_last))


@_add_camera_backward.register_fake
def _(out: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(out), out.new_empty(*out.shape[:2], 3, 3)


def linear_relu(
    x: Float[Tensor, "n in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, "out"]
) -> Float[Tensor, "n out"]:
    """Return the ReLU of a linear layer, in the precision of `x`; cuBLAS computes both at once."""
    out: Tensor = _LinearRelu.apply(x, weight, bias)
    return out


class _LinearRelu(torch.autograd.Function):
    """Saves input and result only: where the result is 0, the ReLU's gradient is 0."""

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
    """Return the ReLU of a 3 x 3 convolution in bfloat16; cuDNN computes both at once."""
    out: Tensor = _ConvolutionRelu.apply(x, weight, stride)
    return out


class _ConvolutionRelu(torch.autograd.Function):
    """Saves input and result only: where the result is 0, the ReLU's gradient is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        strides, padding, dilation = (stride, stride), (1, 1), (1, 1)
        out = torch.cudnn_convolution_relu(x, weight, None, strides, padding, dilation, 1)
        ctx.save_for_backward(x, weight, out)
        ctx.stride = stride
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients that are 0 where the ReLU was, then those of the convolution. The first one has
        # no gradient of its input, because nothing before it is trained.
        x, weight, out = ctx.saved_tensors
        dy = torch.ops.aten.threshold_backward(dy, out, 0)
        strides, padding, dilation = (ctx.stride, ctx.stride), (1, 1), (1, 1)
        transposed, output_padding, groups = False, (0, 0), 1
        needed = (ctx.needs_input_grad[0], True, False)  # of input, weights and bias
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            *(dy, x, weight, None, strides, padding, dilation),
            *(transposed, output_padding, groups, needed),
        )
        return dx, dweight, None
