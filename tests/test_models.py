"""Parity with the published code's recorded outputs, and the properties that grouping relies on."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from srt.models import build_model
from srt.params import load_experiment
from srt.published import our_name
from srt.schedule import learning_rate

REPOSITORY = Path(__file__).parents[1]
REFERENCE = REPOSITORY / "tests" / "reference"
PUBLISHED = load_experiment(REPOSITORY / "params.yaml", "nmr_srt", "paper")


def reference_weights(names_shapes):
    """The rule by which every tensor of the reference run was filled."""
    weights = {}
    for name, shape in names_shapes.items():
        generator = np.random.default_rng([1, zlib.crc32(name.encode())])
        values = generator.standard_normal(shape)
        if "embedding" in name:
            values = 0.02 * values
        elif len(shape) >= 2:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("norm.weight"):
            values = 1 + 0.1 * values
        else:
            values = 0.02 * values
        weights[our_name(name)] = torch.from_numpy(values)
    return weights


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCE / "model_srt.npz")


@pytest.fixture(scope="module")
def model():
    manifest = json.loads((REFERENCE / "manifest_srt.json").read_text())
    model = build_model(PUBLISHED.model, seed=0).double()
    model.load_state_dict(reference_weights(manifest["tensors"]))
    return model


def inputs(reference):
    names = ("input_images", "input_camera_pos", "input_rays")
    images, origins, directions = (torch.tensor(reference[name]).double() for name in names)
    return images.permute(0, 1, 3, 4, 2), origins, directions


def targets(reference):
    names = ("target_camera_pos", "target_rays", "target_pixels")
    return [torch.tensor(reference[name]).double() for name in names]


def mean_loss(model, reference):
    origins, directions, pixels = targets(reference)
    tokens = model.encode(*inputs(reference))
    predicted = model.decode(model.decoder.keys_values(tokens), origins, directions)
    return tokens, predicted, (predicted - pixels).square().mean(dim=(1, 2))


def test_published_size_has_the_published_number_of_parameters(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 73_932_563


def test_tokens_pixels_loss_and_gradients_equal_the_published_codes(model, reference):
    model.zero_grad()
    tokens, predicted, loss = mean_loss(model, reference)
    loss.mean().backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    published = {
        our_name(str(n)): g for n, g in zip(*map(reference.get, ("grad_norm_names", "grad_norms")))
    }
    assert norms.keys() == published.keys()
    # The recorded tensors are float32, the losses and norms float64.
    np.testing.assert_allclose(tokens.detach(), reference["scene_tokens"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(predicted.detach(), reference["pred_pixels"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(loss.detach(), reference["loss"], rtol=1e-6)
    for name, norm in published.items():
        np.testing.assert_allclose(norms[name], norm, rtol=1e-6, atol=1e-15, err_msg=name)


def test_four_adam_steps_equal_the_published_trainers(model, reference):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters())
    losses = []
    for step in range(1000, 1004):
        optimizer.zero_grad()
        loss = mean_loss(model, reference)[2].mean()
        loss.backward()
        optimizer.param_groups[0]["lr"] = learning_rate(step, PUBLISHED.train)
        optimizer.step()
        losses.append(loss.item())
    model.load_state_dict(weights)
    np.testing.assert_allclose(losses, reference["adam_losses"], rtol=1e-6)
