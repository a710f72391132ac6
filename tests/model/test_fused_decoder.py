"""The decoder layer for GPUs against the plain one, and its kernels against plain PyTorch.

The kernels run on a GPU where there is one, else by Triton's interpreter where Triton is installed.
"""

import pytest
import torch
import torch.nn.functional as F
from support.kernel_modules import GPU, load_kernels
from support.tiny_training import PARAMS, VARIANTS, tiny_experiment

from srt.config.load import load_experiment
from srt.model import fused_decoder
from srt.model.decoder import DecoderLayer
from srt.model.encoder import CameraAndPixels, Encoder
from srt.model.inference import MAX_QUERIES, queries_for_memory
from srt.model.kernels.operators import camera_relu, convolution_relu, linear_relu
from srt.model.positional_encoding import encode_inputs, ray_inputs

CONFIG = load_experiment(PARAMS, "nmr_srt", "paper").model


def random_layer(dim):
    layer = DecoderLayer(dim, CONFIG).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # no bias is 0, no scale is 1
    return layer


@pytest.mark.parametrize("dim", [90, 180])
@pytest.mark.parametrize("tokens", [5, 63, 64, 70])
def test_a_layer_in_whole_tiles_is_the_plain_layer_and_so_are_its_gradients(dim, tokens):
    torch.manual_seed(tokens)
    layer, width = random_layer(dim), fused_decoder.padded_width(dim)
    scene = torch.randn(2, tokens, CONFIG.latent_dim, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(2, 9, dim, dtype=torch.float64)
    pair = layer.attention.scene_keys_values(scene)
    plain = layer.mlp(layer.attention(queries, pair))
    made = fused_decoder.prepare_layer(layer.attention, layer.mlp, pair)
    assert isinstance(
        made, fused_decoder.FewTokens if tokens < CONFIG.head_dim else fused_decoder.ManyTokens
    )
    tiled = fused_decoder.fused_layer(F.pad(queries, (0, width - dim)), made, dim)
    assert not tiled[..., dim:].any()
    torch.testing.assert_close(tiled[..., :dim], plain, rtol=1e-10, atol=1e-12)
    inputs = [scene, *layer.parameters()]
    wanted = torch.autograd.grad(plain.square().sum(), inputs, retain_graph=True)
    found = torch.autograd.grad(tiled[..., :dim].square().sum(), inputs)
    for ours, theirs in zip(found, wanted):
        assert (ours - theirs).norm() <= 1e-10 * theirs.norm()


def test_widths_leave_a_channel_for_the_bias_and_no_third_of_them_empty():
    assert [fused_decoder.padded_width(dim) for dim in (63, 64, 95, 96, 127, 128, 191, 192)] == [
        *(None, 96, 96, None, None, 192, 192, None)
    ]
    assert not fused_decoder.can_fuse(torch.zeros(1), 180, 1536)  # on a CPU


@pytest.fixture
def kernels(monkeypatch):
    return load_kernels("triton_mlp", monkeypatch)


@pytest.mark.parametrize("width", fused_decoder.WIDTHS)
def test_kernels_give_what_plain_pytorch_gives_forward_and_backward(kernels, width):
    torch.manual_seed(width)
    device, kind = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
    rows, hidden = 200, 128  # rows that fill no block
    normal, dy = (torch.randn(rows, width, device=device).to(kind) for _ in range(2))
    expand = (torch.randn(width, hidden, device=device) / width**0.5).to(kind)
    contract = (torch.randn(hidden, width, device=device) / hidden**0.5).to(kind)
    exact = [value.double().requires_grad_() for value in (normal, expand, contract)]
    wanted = fused_decoder.plain_mlp(*exact)
    gradients = torch.autograd.grad(wanted, exact, dy.double())

    activations, slope = kernels.expand_gelu(normal, expand, True)
    alone, nothing = kernels.expand_gelu(normal, expand, False)
    assert torch.equal(alone, activations)
    assert nothing.numel() == 0
    dx = kernels.contract_backward(dy, contract, slope)
    found = [activations @ contract, dx @ expand.T, normal.T @ dx, activations.T @ dy]
    for ours, theirs in zip(found, (wanted, *gradients)):
        assert (ours.double() - theirs).norm() < (1e-2 if GPU else 1e-4) * theirs.norm()


@pytest.mark.parametrize(("raw", "multiple"), [(0, 96), (3, 8)])
def test_the_encoding_kernel_gives_the_plain_encoding_and_channels_of_0(kernels, raw, multiple):
    torch.manual_seed(raw)
    device = "cuda" if GPU else "cpu"
    origins, directions = (torch.randn(70, 3, device=device) for _ in range(2))
    beside = torch.rand(70, raw, device=device)
    config = load_experiment(PARAMS, "nmr_srt", "paper").model
    waves = ray_inputs(8 * origins, F.normalize(directions, dim=-1), config)
    plain = torch.cat((beside, encode_inputs(waves)), dim=-1)
    width = plain.shape[1] + -plain.shape[1] % multiple
    rows = torch.cat((beside, *(part.coordinates for part in waves)), dim=-1)
    octaves, starts = (tuple(part[i] for part in waves) for i in (1, 2))
    found = kernels.encode_inputs(rows, raw, octaves, starts, width)
    assert found.shape == (70, width)
    assert not found[:, plain.shape[1] :].any()
    assert (found[:, : plain.shape[1]].float() - plain).abs().max() <= 2**-8  # of bfloat16, near 1


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("size", [(2, 5), (3, 3), (20, 37)])
def test_the_first_layers_kernels_add_the_camera_and_so_are_the_gradients(size):
    torch.manual_seed(0)
    device, kind = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
    images = [torch.randn(3, 24, *size, device=device).to(kind) for _ in range(2)]
    pixels, dy = (part.contiguous(memory_format=torch.channels_last) for part in images)
    inputs = [pixels, torch.randn(3, 24, 3, 3, device=device).to(kind)]
    inputs = [part.requires_grad_() for part in inputs]
    found, plain = camera_relu(*inputs), CameraAndPixels()(*inputs)  # no autocast: plainly
    assert torch.equal(found, plain)
    pixels_found, camera_found = torch.autograd.grad(found, inputs, dy)
    pixels_wanted, camera_wanted = torch.autograd.grad(plain, inputs, dy)
    assert torch.equal(pixels_found, pixels_wanted)
    wrong = (camera_found - camera_wanted).norm() / camera_wanted.norm()
    assert wrong < (1e-2 if GPU else 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_with_its_relu_is_both_and_so_are_its_gradients(stride):
    torch.manual_seed(stride)
    x = torch.randn(2, 16, 12, 8, device="cuda").bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(32, 16, 3, 3, device="cuda") / 12).requires_grad_()
    plain = F.relu(F.conv2d(x, weight.bfloat16(), stride=stride, padding=1))
    found = convolution_relu(x, weight, stride)
    assert torch.equal(found, plain)
    dy = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, (x, weight), dy)
    for ours, theirs in zip(torch.autograd.grad(found, (x, weight), dy), wanted):
        torch.testing.assert_close(ours, theirs)


def test_a_product_with_its_relu_is_both_and_so_are_its_gradients():
    torch.manual_seed(0)
    device = "cuda" if GPU else "cpu"
    x, weight = torch.randn(40, 24, device=device), torch.randn(16, 24, device=device)
    inputs = [part.requires_grad_() for part in (x, weight, torch.randn(16, device=device))]
    found, plain = linear_relu(*inputs), F.relu(F.linear(*inputs))
    torch.testing.assert_close(found, plain)
    dy = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, inputs, dy)
    for ours, theirs in zip(torch.autograd.grad(found, inputs, dy), wanted):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(2, 5), (3, 3), (8, 4)])
def test_the_first_layer_is_the_convolution_of_all_channels(tmp_path, size):
    config = tiny_experiment(tmp_path, VARIANTS["srt"]).model
    encoder = Encoder(config).double()
    images, directions = (torch.rand(2, 3, *size, 3, dtype=torch.float64) for _ in range(2))
    origins = torch.randn(2, 3, 3, dtype=torch.float64)
    rays = encode_inputs(
        ray_inputs(origins[:, :, None, None].expand_as(directions), directions, config)
    )
    channels = torch.cat((images, rays), dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
    wanted = F.relu(encoder.convolutions[0](channels))
    torch.testing.assert_close(encoder.first_convolution(images, origins, directions), wanted)


def test_more_memory_takes_no_smaller_groups_and_they_are_powers_of_two():
    groups = [queries_for_memory(10**9 * size) for size in range(200)]
    assert groups == sorted(groups)
    assert groups[0] >= 1
    assert groups[-1] == MAX_QUERIES
    assert all(group & (group - 1) == 0 for group in groups)
