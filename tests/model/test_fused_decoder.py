"""The decoder layer for GPUs against the plain one, in float64 on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from support.tiny_training import PARAMS

from srt.config.load import load_experiment
from srt.model import fused_decoder
from srt.model.decoder import DecoderLayer

CONFIG = load_experiment(PARAMS, "nmr_srt", "paper").model


def random_layer(dim):
    """Return a layer in float64 in which no bias is 0 and no scale is 1."""
    layer = DecoderLayer(dim, CONFIG).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("dim", [90, 180])
@pytest.mark.parametrize("tokens", [5, 63, 64, 70])
def test_the_fused_layers_result_and_gradients_are_those_of_the_plain_layer(dim, tokens):
    torch.manual_seed(tokens)
    layer, width = random_layer(dim), fused_decoder.padded_width(dim)
    scene = torch.randn(2, tokens, CONFIG.latent_dim, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(2, 9, dim, dtype=torch.float64)
    pair = layer.attention.scene_keys_values(scene)
    plain = layer.mlp(layer.attention(queries, pair))

    # A scene with fewer tokens than a head has channels is prepared differently.
    prepared = fused_decoder.prepare_layer(layer.attention, layer.mlp, pair)
    few_tokens = tokens < CONFIG.head_dim
    expected_class = fused_decoder.FewTokens if few_tokens else fused_decoder.ManyTokens
    assert isinstance(prepared, expected_class)

    # The result is the plain one, and the padding stays 0.
    fused = fused_decoder.fused_layer(F.pad(queries, (0, width - dim)), prepared, dim)
    assert not fused[..., dim:].any()
    torch.testing.assert_close(fused[..., :dim], plain, rtol=1e-10, atol=1e-12)

    inputs = [scene, *layer.parameters()]
    expected = torch.autograd.grad(plain.square().sum(), inputs, retain_graph=True)
    gradients = torch.autograd.grad(fused[..., :dim].square().sum(), inputs)
    for ours, theirs in zip(gradients, expected):
        assert (ours - theirs).norm() <= 1e-10 * theirs.norm()


def test_padding_has_room_for_the_biases_and_is_at_most_a_third():
    dims = (63, 64, 95, 96, 127, 128, 191, 192)
    widths = [fused_decoder.padded_width(dim) for dim in dims]
    assert widths == [None, 96, 96, None, None, 192, 192, None]


def test_a_cpu_uses_the_plain_layer():
    assert not fused_decoder.can_fuse(torch.zeros(1), 180, 1536)
