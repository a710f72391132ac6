"""Every model gives the outputs that were recorded from the published code, stelzner/srt."""

import dataclasses
import json
import zlib

import numpy as np
import pytest
import torch
from support.paths import REFERENCE, REPOSITORY

from srt.config.load import load_experiment
from srt.geometry.rays import Rays
from srt.model.srt import build_model
from srt.model.volume_rendering import composite
from srt.published.tensor_names import our_name, published_order
from srt.training.loop import learning_rate

PUBLISHED = {
    name: load_experiment(REPOSITORY / "params.yaml", f"nmr_{name}", "paper")
    for name in ("srt", "isrt", "vsrt")
}
PARAMETERS = {"srt": 73_932_563, "isrt": 41_033_583, "vsrt": 73_102_300}
CONFIGS = {
    "srt": PUBLISHED["srt"].model,
    "isrt": PUBLISHED["isrt"].model,
    "vsrt": dataclasses.replace(PUBLISHED["vsrt"].model, coarse_samples=16, fine_samples=8),
}


def manifest(name):
    """Return the names and shapes of the tensors of a published checkpoint."""
    return json.loads((REFERENCE / f"manifest_{name}.json").read_text())["tensors"]


def reference_weights(name):
    """Return the weights with which the outputs were recorded.

    They are random numbers whose seed is the tensor's published name. VSRT's only net has two names
    in the published code; it has the numbers of the second one, `decoder.fine_net`.
    """
    weights = {}
    for published, shape in manifest(name).items():
        generator = np.random.default_rng([1, zlib.crc32(published.encode())])
        values = generator.standard_normal(shape)
        if "embedding" in published:
            values = 0.02 * values
        elif len(shape) >= 2:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif published.endswith("norm.weight"):
            values = 1 + 0.1 * values
        else:
            values = 0.02 * values
        weights[our_name(CONFIGS[name], published)] = torch.from_numpy(values)
    return weights


@pytest.fixture(scope="module", params=CONFIGS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def reference(name):
    return dict(np.load(REFERENCE / f"model_{name}.npz"))


@pytest.fixture(scope="module")
def model(name):
    with torch.device("meta"):
        model = build_model(CONFIGS[name], seed=0)
    model.load_state_dict(reference_weights(name), assign=True)
    return model.requires_grad_()


def float64_tensors(reference, *names):
    return [torch.tensor(reference[name]).double() for name in names]


def mean_loss(model, reference):
    """Return the scene tokens, the prediction and the published trainer's loss of each scene."""
    images, *rays = float64_tensors(reference, "input_images", "input_camera_pos", "input_rays")
    tokens = model.encode(images.permute(0, 1, 3, 4, 2), *rays)

    # VSRT's loss has a second term, for the colours of the coarse samples.
    *rays, pixels = float64_tensors(reference, "target_camera_pos", "target_rays", "target_pixels")
    predicted = model.decode(
        model.decoder.scene_keys_values(tokens), Rays(*rays, near=0.5, far=6.0)
    )
    predictions = (predicted.colours, predicted.coarse_colours)
    loss = sum((p - pixels).square().mean(dim=(1, 2)) for p in predictions if p is not None)
    return tokens, predicted, loss


def assert_recorded(value, reference, name, rtol=1e-6, atol=1e-7):
    np.testing.assert_allclose(value.detach(), reference[name], rtol=rtol, atol=atol, err_msg=name)


def test_a_model_of_published_size_has_the_published_number_of_parameters(name, model):
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_published_and_our_tensors_correspond_to_each_other(name, model):
    ours = {published: our_name(CONFIGS[name], published) for published in manifest(name)}
    assert set(ours.values()) == model.state_dict().keys()
    assert set(published_order(CONFIGS[name], model.state_dict().keys())) == set(ours.items())
    with pytest.raises(KeyError, match=rf"decoder\.slots is not a tensor of .*{name}"):
        our_name(CONFIGS[name], "decoder.slots")


def test_tokens_predictions_loss_and_gradients_are_the_recorded_ones(name, model, reference):
    model.zero_grad()
    tokens, predicted, loss = mean_loss(model, reference)
    loss.mean().backward()
    norms = {tensor: parameter.grad.norm().item() for tensor, parameter in model.named_parameters()}
    published = {
        our_name(CONFIGS[name], str(tensor)): norm
        for tensor, norm in zip(reference["grad_norm_names"], reference["grad_norms"])
    }
    assert norms.keys() == published.keys()

    # The recorded tensors are float32, the losses and norms float64.
    assert_recorded(tokens, reference, "scene_tokens", atol=1e-6)
    assert_recorded(predicted.colours, reference, "pred_pixels")
    assert_recorded(loss, reference, "loss", atol=0)
    for tensor, norm in published.items():
        np.testing.assert_allclose(norms[tensor], norm, rtol=1e-6, atol=1e-15, err_msg=tensor)


def test_a_volumetric_models_depths_and_coarse_image_are_the_recorded_ones(monkeypatch):
    # The coarse depth is not part of the prediction, so every compositing is recorded.
    composites = []

    def composite_and_record(*samples):
        composites.append(composite(*samples))
        return composites[-1]

    monkeypatch.setattr("srt.model.decoder.composite", composite_and_record)
    reference = dict(np.load(REFERENCE / "model_vsrt.npz"))
    model = build_model(CONFIGS["vsrt"], seed=0).double()
    model.load_state_dict(reference_weights("vsrt"))
    _, predicted, _ = mean_loss(model, reference)
    assert_recorded(predicted.depth, reference, "extra_depth")
    assert_recorded(predicted.coarse_colours, reference, "extra_coarse_img")
    assert_recorded(composites[0].depth, reference, "extra_coarse_depth")


def test_the_losses_of_four_adam_steps_are_the_recorded_ones(model, reference):
    # The model is restored afterwards, because other tests use it too.
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters())
    losses = []
    for step in range(1000, 1004):
        optimizer.zero_grad()
        loss = mean_loss(model, reference)[2].mean()
        loss.backward()
        optimizer.param_groups[0]["lr"] = learning_rate(step, PUBLISHED["srt"].train)
        optimizer.step()
        losses.append(loss.item())
    model.load_state_dict(weights)
    np.testing.assert_allclose(losses, reference["adam_losses"], rtol=1e-6)
