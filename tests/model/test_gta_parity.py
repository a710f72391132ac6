"""GTA's model gives the outputs that were recorded from the published code."""

import dataclasses

import numpy as np
import pytest
import torch
from support.gta_records import (
    CHANNELS,
    build_pair,
    decode,
    load_record,
    our_name,
    record_inputs,
    recorded_model,
    reference_weights,
)
from support.paths import REPOSITORY

from srt.geometry.camera_channels import GtaChannels
from srt.model.gta import GtaDecoder, GtaEncoder, GtaSizes

WITH_WEIGHTS = REPOSITORY.parent / "shared" / "reference"
PUBLISHED_SIZES = GtaSizes(
    channels=GtaChannels(48, 0, 48),
    translation_scale=0.01,
    conv_blocks=3,
    conv_channels=96,
    latent_dim=768,
    heads=8,
    mlp_dim=1536,
    encoder_layers=5,
    decoder_layers=2,
    query_dim=180,
    decoder_hidden=1536,
    decoder_hidden_layers=4,
)


@pytest.fixture(scope="module", params=CHANNELS)
def name(request):
    return request.param


def assert_equal(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("channels", [GtaChannels(48, 0, 48), GtaChannels(48, 24, 24)])
def test_a_model_of_published_size_has_the_published_number_of_parameters(channels):
    sizes = dataclasses.replace(PUBLISHED_SIZES, channels=channels)
    with torch.device("meta"):
        halves = GtaEncoder(sizes), GtaDecoder(sizes)
    counts = [sum(value.numel() for value in half.parameters()) for half in halves]
    assert counts[0] == 29_359_397
    assert sum(counts) == 40_748_110


def test_published_and_our_tensors_correspond_to_each_other(name):
    ours = [our_name(tensor) for tensor in reference_weights(name)]
    assert sorted(ours) == sorted(build_pair().state_dict())


@pytest.mark.skipif(not WITH_WEIGHTS.is_dir(), reason="no recorded weights beside the repository")
def test_the_weights_of_the_records_follow_their_rule(name):
    recorded = np.load(WITH_WEIGHTS / f"model_{name}.npz")
    for tensor, values in reference_weights(name).items():
        np.testing.assert_array_equal(values, recorded[f"weights.{tensor}"], err_msg=tensor)


def recorded_losses(model, record):
    """Return the scene tokens, the colours and the loss of each scene."""
    tokens, colours = decode(model, *record_inputs(record))
    return tokens, colours, (colours - record["target_pixels"]).square().mean(dim=(1, 2))


def test_patches_are_where_the_record_has_them(name):
    record = load_record(name)
    images, world_to_camera, _ = record_inputs(record)
    cameras = build_pair()["encoder"].patch_cameras(images, world_to_camera)
    assert_equal(cameras.coordinates, record["input_coord"].flatten(1, 2))


def test_tokens_colours_loss_and_gradients_are_the_recorded_ones(name):
    record, model = load_record(name), recorded_model(name)
    tokens, colours, loss = recorded_losses(model, record)
    assert_equal(tokens, record["scene_tokens"])
    assert_equal(colours, record["pred_pixels"])
    assert_equal(loss, record["loss"])

    loss.mean().backward()
    norms = {tensor: value.grad.norm() for tensor, value in model.named_parameters()}
    recorded = {our_name(str(key)): norm for key, norm in zip(record["grad_norm_names"],
                                                              record["grad_norms"])}  # fmt: skip
    assert norms.keys() == recorded.keys()
    for tensor, norm in recorded.items():
        torch.testing.assert_close(norms[tensor], norm, rtol=1e-8, atol=1e-15, msg=tensor)


@pytest.mark.parametrize(("optimiser", "decay"), [("adam", 0.0), ("adamw", 0.01)])
def test_the_losses_of_four_steps_are_the_recorded_ones(name, optimiser, decay):
    record, model = load_record(name), recorded_model(name)
    steps = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=decay)
    losses = []
    for _ in range(4):
        steps.zero_grad()
        loss = recorded_losses(model, record)[2].mean()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, record[f"{optimiser}_losses"], rtol=1e-8)
