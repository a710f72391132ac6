"""Evaluation of full images: which views are predicted, and the rows of measures.

Figures must not depend on how the work is divided among groups of rays or processes.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_training import ALONE, CPU, VIEWS, one_thread, tiny_experiment, write_packed

from srt.common.distributed import Processes
from srt.data.batch import ViewConfig, make_full_view_batch
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import evaluate_items, predict_item
from srt.evaluation.protocols import Item, protocol_items
from srt.model.decoder import Prediction
from srt.model.srt import build_model

MEAN_COLOUR = (0.25, 0.5, 0.75)
WORLD = ViewConfig(
    canonical=False, input_views=1, input_stride=1, all_targets=False, near=0.5, far=4.0
)
CANONICAL = dataclasses.replace(WORLD, canonical=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write_packed(tmp_path_factory.mktemp("packed"), source_view=2) / "test"


@pytest.fixture(scope="module")
def scenes(packed):
    return Scenes(packed, CPU)


@pytest.fixture(scope="module")
def images(packed):
    """Return the images of all scenes and views, with values in [0, 1]."""
    return np.load(packed / "images-00000.npy") / 255


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny_experiment(tmp_path_factory.mktemp("params")).model
    return build_model(config, seed=0).eval().requires_grad_(False)


def evaluate(model, scenes, items, protocol, **options):
    """Return the rows of items, measured with defaults for all options of `evaluate_items`."""
    defaults = {
        "mean_colour": MEAN_COLOUR,
        "lpips": None,
        "view_config": WORLD,
        "rays_per_group": 100,
        "processes": ALONE,
    }
    return evaluate_items(model, scenes, items, protocol, **(defaults | options))


def decibels(error):
    """Return the PSNR of a mean squared error."""
    return -10 * np.log10(error)


# How the work is divided


@dataclasses.dataclass(frozen=True)
class RankedProcess(Processes):
    """One of several processes. The last one to gather gets the values of all."""

    shares: dict[int, Any]

    def gather(self, value):
        self.shares[self.rank] = value
        return list(self.shares.values())


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_any_number_of_processes_gives_the_rows_of_one(scenes, model, protocol, count):
    items = protocol_items(scenes, protocol, 1, 4)
    expected = evaluate(model, scenes, items, protocol)
    assert len(expected) == len(items)

    # The ranks run in reverse, so that their shares are gathered in another order.
    shares = {}
    for rank in reversed(range(count)):
        process = RankedProcess(rank, count, CPU, None, shares)
        rows = evaluate(model, scenes, items, protocol, processes=process)
    assert rows == expected
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rays_per_group", [1, 768, 10**6])
def test_the_figures_do_not_depend_on_the_groups_of_rays(scenes, model, rays_per_group):
    items = protocol_items(scenes, "stelzner", 1, 1)
    (row,) = evaluate(model, scenes, items, "stelzner", rays_per_group=100)
    (grouped_row,) = evaluate(model, scenes, items, "stelzner", rays_per_group=rays_per_group)
    assert grouped_row.scores.psnr == pytest.approx(row.scores.psnr, abs=1e-5)


# The measures of a row


def nearest_inputs(positions, inputs, targets):
    """Return the input view whose camera is nearest to each target's."""
    distances = np.linalg.norm(positions[targets][:, None] - positions[list(inputs)], axis=2)
    return [inputs[index] for index in distances.argmin(axis=1)]


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_the_baselines_are_the_mean_colour_and_the_nearest_input(
    scenes, packed, images, model, protocol
):
    items = [Item(0, (0, 2)), Item(2, (3,))]
    positions = np.load(packed / "cameras.npz")["camera_to_world"][..., :3, 3]
    mean_colour = np.array(MEAN_COLOUR)
    if protocol == "pixelnerf":  # which measures images of 256 levels
        mean_colour = np.round(mean_colour * 255) / 255

    for item, row in zip(items, evaluate(model, scenes, items, protocol)):
        assert row.scene == f"s{item.scene}"
        assert row.class_name == "cube"
        assert row.inputs == item.inputs

        # `stelzner` averages the errors of the views, and the others average their PSNRs.
        targets = [view for view in range(VIEWS) if view not in item.inputs]
        nearest = nearest_inputs(positions[item.scene], item.inputs, targets)
        predictions = {"mean_colour": mean_colour, "input_view": images[item.scene, nearest]}
        for name, prediction in predictions.items():
            error = ((images[item.scene, targets] - prediction) ** 2).mean(axis=(1, 2, 3))
            expected = decibels(error.mean()) if protocol == "stelzner" else decibels(error).mean()
            assert getattr(row.baselines, name).psnr == pytest.approx(expected, abs=1e-4)
    assert nearest == [3, 3, 3]  # the last item has no other input


def set_errors(monkeypatch, errors):
    """Make every predicted colour of target view i wrong by errors[i], towards grey."""

    def predict(model, batch, rays_per_group, mixed_precision):
        views = batch.colours.unflatten(1, (VIEWS - 1, -1))  # (1, t, pixels, 3)
        towards_grey = (views < 0.5).float().mul(2).sub(1)
        offset = torch.tensor(errors)[None, :, None, None] * towards_grey
        return Prediction((views + offset).flatten(1, 2))

    monkeypatch.setattr("srt.evaluation.evaluator.predict", predict)


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_a_perfect_model_has_100_db(scenes, model, protocol, monkeypatch):
    set_errors(monkeypatch, [0.0, 0.0, 0.0])
    (row,) = evaluate(model, scenes, [Item(1, (0,))], protocol)
    assert row.scores.psnr == 100
    assert row.scores.ssim == (None if protocol == "stelzner" else pytest.approx(1))
    assert row.scores.lpips is None  # not measured, so never a number


def test_stelzner_averages_the_error_of_all_views_before_the_logarithm(scenes, model, monkeypatch):
    set_errors(monkeypatch, [0.01, 0.1, 0.3])
    (row,) = evaluate(model, scenes, [Item(1, (0,))], "stelzner")
    assert row.scores.psnr == pytest.approx(decibels(np.mean([0.01**2, 0.1**2, 0.3**2])), abs=1e-4)


def test_pixelnerf_averages_the_psnrs_of_the_views(scenes, model, monkeypatch):
    levels = np.array([3, 25, 75]) / 255  # whole levels of an 8-bit image
    set_errors(monkeypatch, levels.tolist())
    (row,) = evaluate(model, scenes, [Item(1, (0,))], "pixelnerf")
    assert row.scores.psnr == pytest.approx(decibels(levels**2).mean(), abs=1e-4)


# The views of an item


def test_targets_are_all_views_but_the_inputs_in_order(scenes, images, model):
    item = predict_item(model, scenes, Item(1, (2,)), view_config=CANONICAL, rays_per_group=100)
    np.testing.assert_allclose(item.targets, images[1, [0, 1, 3]], atol=1e-6)
    np.testing.assert_allclose(item.inputs, images[1, [2]], atol=1e-6)
    assert item.predictions.shape == item.targets.shape


def test_with_all_views_as_targets_the_inputs_are_measured_too(scenes, images, model):
    all_targets = dataclasses.replace(CANONICAL, all_targets=True)
    item = predict_item(model, scenes, Item(1, (2,)), view_config=all_targets, rays_per_group=100)
    np.testing.assert_allclose(item.targets, images[1], atol=1e-6)


def test_strided_inputs_are_returned_whole_but_encoded_strided(scenes, images, model, monkeypatch):
    encoded, encode = [], model.encode

    def record_images(images, *rays):
        encoded.append(images)
        return encode(images, *rays)

    monkeypatch.setattr(model, "encode", record_images)
    strided = dataclasses.replace(CANONICAL, input_stride=2)
    item = predict_item(model, scenes, Item(1, (2,)), view_config=strided, rays_per_group=100)
    np.testing.assert_allclose(item.inputs, images[1, [2]], atol=1e-6)
    np.testing.assert_allclose(encoded[0][0], images[1, [2], 1::2, 1::2], atol=1e-6)


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_products_may_be_in_mixed_precision_but_cameras_are_exact(
    scenes, model, monkeypatch, mixed_precision
):
    # A CPU trains in float32, so let it use bfloat16 here.
    monkeypatch.setattr(
        "srt.model.scene.training_precision",
        lambda device: torch.autocast(device.type, torch.bfloat16),
    )

    # Record the rays of inputs and targets, and the precision in which they are decoded.
    recorded, encode, decode = {}, model.encode, model.decode

    def record_encode(images, *rays):
        recorded["inputs"] = rays
        return encode(images, *rays)

    def record_decode(keys_values, rays):
        recorded["targets"] = rays.origins, rays.directions
        recorded["bfloat16"] = torch.is_autocast_enabled("cpu")
        recorded["tf32"] = torch.backends.cudnn.allow_tf32
        return decode(keys_values, rays)

    monkeypatch.setattr(model, "encode", record_encode)
    monkeypatch.setattr(model, "decode", record_decode)
    (row,) = evaluate(
        model,
        scenes,
        [Item(1, (2,))],
        "stelzner",
        mean_colour=None,
        view_config=CANONICAL,
        rays_per_group=10**6,
        mixed_precision=mixed_precision,
    )
    assert np.isfinite(row.scores.psnr)
    assert recorded["bfloat16"] == mixed_precision
    assert recorded["tf32"] == mixed_precision
    assert torch.backends.cudnn.allow_tf32  # as before

    # The rays are those of a batch that was made outside of autocast.
    index = (torch.tensor([1]), torch.tensor([[2]]), torch.tensor([[0, 1, 3]]))
    exact = make_full_view_batch(scenes, *index, CANONICAL)
    assert torch.equal(recorded["inputs"][0], exact.image_origins)
    assert torch.equal(recorded["inputs"][1], exact.image_directions)
    assert torch.equal(recorded["targets"][0], exact.origins)
    assert torch.equal(recorded["targets"][1], exact.directions)
