"""The picture that compares predictions with targets: which views it shows and decodes."""

import dataclasses

import numpy as np
import pytest
import torch
from support.tiny_training import CPU, one_thread, tiny_experiment, write_packed

from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.evaluation.comparison import compare_views
from srt.evaluation.evaluator import predict_item
from srt.evaluation.protocols import Item
from srt.model.srt import build_model
from srt.visualization.pictures import to_uint8

VIEW_CONFIG = ViewConfig(
    canonical=True, input_views=1, input_stride=1, all_targets=False, near=0.5, far=4.0
)


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
def model(tmp_path_factory):
    config = tiny_experiment(tmp_path_factory.mktemp("params")).model
    return build_model(config, seed=0).eval().requires_grad_(False)


@pytest.fixture
def compared_images(monkeypatch):
    """Return a list that gets the inputs, targets and predictions of every picture."""
    images = []
    monkeypatch.setattr(
        "srt.evaluation.comparison.comparison_columns", lambda *arrays: images.append(arrays)
    )
    monkeypatch.setattr(
        "srt.evaluation.comparison.grid", lambda columns, labels: np.zeros((1, 1, 3), np.uint8)
    )
    return images


def test_a_picture_never_shows_an_input_as_its_target(scenes, packed, model, compared_images):
    # Here the inputs are targets of the measures as well.
    view_config = dataclasses.replace(VIEW_CONFIG, all_targets=True)
    items = [Item(1, (view,)) for view in range(4)]
    compare_views(model, scenes, items, view_config=view_config, rays_per_group=100)

    ((inputs, targets, _),) = compared_images
    images = np.load(packed / "images-00000.npy") / 255
    for view in range(4):
        input_image = to_uint8(torch.from_numpy(images[1, view]))
        assert (inputs[view, 0] == input_image).all()
        assert (targets[view] != input_image).any()


def test_a_picture_decodes_only_the_view_that_it_shows(scenes, model, compared_images, monkeypatch):
    """The view is predicted as it is among all views of the item."""
    item = Item(1, (2,))
    all_views = predict_item(model, scenes, item, view_config=VIEW_CONFIG, rays_per_group=100)

    # Record the rays that are decoded.
    decoded, decode = [], model.decode

    def record_rays(keys_values, rays):
        decoded.append(rays)
        return decode(keys_values, rays)

    monkeypatch.setattr(model, "decode", record_rays)
    compare_views(model, scenes, [item], view_config=VIEW_CONFIG, rays_per_group=100)
    assert sum(rays.directions.shape[1] for rays in decoded) == scenes.height * scenes.width

    # Find the view by its target. Groups of another size may round a value to the next level.
    ((_, targets, predictions),) = compared_images
    matches = [(to_uint8(target) == targets[0]).all() for target in all_views.targets]
    assert matches.count(True) == 1
    expected = to_uint8(all_views.predictions[matches.index(True)]).astype(int)
    assert abs(expected - predictions[0]).max() <= 1
