"""Our kernels, and products with a ReLU, against plain PyTorch.

The kernels run on a GPU where there is one, or else in Triton's interpreter where it is installed.
"""

import pytest
import torch
import torch.nn.functional as F
from support.kernel_modules import DEVICE, DTYPE, GPU, TOLERANCE, load_kernels
from support.tiny_training import PARAMS

from srt.config.load import load_experiment
from srt.model import fused_decoder
from srt.model.encoder import CameraAndPixels
from srt.model.kernels.operators import camera_relu, convolution_relu, linear_relu
from srt.model.positional_encoding import encode_inputs, ray_inputs


@pytest.mark.parametrize("width", fused_decoder.WIDTHS)
def test_the_mlps_kernels_give_the_plain_results_and_gradients(width, monkeypatch):
    kernels = load_kernels("triton_mlp", monkeypatch)
    torch.manual_seed(width)
    count, hidden = 200, 128  # the last block of rows is not full
    rows, dy = (torch.randn(count, width, device=DEVICE).to(DTYPE) for _ in range(2))
    expand = (torch.randn(width, hidden, device=DEVICE) / width**0.5).to(DTYPE)
    contract = (torch.randn(hidden, width, device=DEVICE) / hidden**0.5).to(DTYPE)
    exact_inputs = [value.double().requires_grad_() for value in (rows, expand, contract)]
    exact_result = fused_decoder.plain_mlp(*exact_inputs)
    exact_gradients = torch.autograd.grad(exact_result, exact_inputs, dy.double())

    # Without the derivative, the activations are the same.
    activations, slope = kernels.expand_gelu(rows, expand, True)
    alone, nothing = kernels.expand_gelu(rows, expand, False)
    assert torch.equal(alone, activations)
    assert nothing.numel() == 0

    dx = kernels.contract_backward(dy, contract, slope)
    result, gradients = activations @ contract, [dx @ expand.T, rows.T @ dx, activations.T @ dy]
    for ours, exact in zip((result, *gradients), (exact_result, *exact_gradients)):
        assert (ours.double() - exact).norm() < TOLERANCE * exact.norm()


@pytest.mark.parametrize(("leading", "multiple"), [(0, 96), (3, 8)])
def test_the_encoding_kernel_gives_the_plain_encoding_and_channels_of_0(
    leading, multiple, monkeypatch
):
    kernels = load_kernels("triton_encoding", monkeypatch)
    torch.manual_seed(leading)
    origins, directions = (torch.randn(70, 3, device=DEVICE) for _ in range(2))
    colours = torch.rand(70, leading, device=DEVICE)
    config = load_experiment(PARAMS, "nmr_srt", "paper").model
    inputs = ray_inputs(8 * origins, F.normalize(directions, dim=-1), config)
    plain = torch.cat((colours, encode_inputs(inputs)), dim=-1)
    channels = plain.shape[1]

    width = channels + -channels % multiple
    rows = torch.cat((colours, *(item.coordinates for item in inputs)), dim=-1)
    octaves = tuple(item.octaves for item in inputs)
    starts = tuple(item.start for item in inputs)
    encoded = kernels.encode(rows, leading, octaves, starts, width)
    assert encoded.shape == (70, width)
    assert not encoded[:, channels:].any()

    # This is bfloat16's rounding of numbers near 1.
    assert (encoded[:, :channels].float() - plain).abs().max() <= 2**-8


@pytest.mark.parametrize("size", [(2, 5), (3, 3), (20, 37)])
def test_the_cameras_kernels_give_the_plain_results_and_gradients(size, monkeypatch):
    load_kernels("triton_camera", monkeypatch)
    torch.manual_seed(0)
    pixels, dy = (
        torch.randn(3, 24, *size, device=DEVICE)
        .to(DTYPE)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    camera = torch.randn(3, 24, 3, 3, device=DEVICE).to(DTYPE)
    inputs = [pixels.requires_grad_(), camera.requires_grad_()]

    # Without autocast, the module does not use the kernels.
    result, plain = camera_relu(*inputs), CameraAndPixels()(*inputs)
    assert torch.equal(result, plain)

    # Sums over the image may be rounded differently.
    dpixels, dcamera = torch.autograd.grad(result, inputs, dy)
    plain_dpixels, plain_dcamera = torch.autograd.grad(plain, inputs, dy)
    assert torch.equal(dpixels, plain_dpixels)
    error = (dcamera - plain_dcamera).norm() / plain_dcamera.norm()
    assert error < (1e-2 if GPU else 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_with_relu_gives_the_plain_results_and_gradients(stride):
    torch.manual_seed(stride)
    x = torch.randn(2, 16, 12, 8, device="cuda").bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(32, 16, 3, 3, device="cuda") / 12).requires_grad_()
    plain = F.relu(F.conv2d(x, weight.bfloat16(), stride=stride, padding=1))
    result = convolution_relu(x, weight, stride)
    assert torch.equal(result, plain)
    dy = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, weight), dy)
    for ours, theirs in zip(torch.autograd.grad(result, (x, weight), dy), expected):
        torch.testing.assert_close(ours, theirs)


def test_a_linear_layer_with_relu_gives_the_plain_results_and_gradients():
    torch.manual_seed(0)
    shapes = ((40, 24), (16, 24), (16,))
    inputs = [torch.randn(shape, device=DEVICE, requires_grad=True) for shape in shapes]
    result, plain = linear_relu(*inputs), F.relu(F.linear(*inputs))
    torch.testing.assert_close(result, plain)
    dy = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, dy)
    for ours, theirs in zip(torch.autograd.grad(result, inputs, dy), expected):
        torch.testing.assert_close(ours, theirs)
