"""A model that MLflow loads renders what the trained model renders."""

import dataclasses

import numpy as np
import pytest
import torch
from support import tiny_training

from srt.data.batch import make_full_view_batch, make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict
from srt.model.srt import build_model
from srt.model.weights import save_weights
from srt.serving import _load_pyfunc, make_example
from srt.visualization.pictures import to_uint8

CPU = torch.device("cpu")
TARGET = 1  # the first view after one input view


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tiny_training.write_packed(tmp_path_factory.mktemp("packed"))
    return Scenes(folder / "val", CPU)


def save_model(folder, stride=1, **model):
    """Return a new model, its experiment, and the file that its weights are saved in."""
    experiment = tiny_training.tiny_experiment(folder, model)
    dataset = dataclasses.replace(experiment.dataset, input_stride=stride)
    experiment = dataclasses.replace(experiment, dataset=dataset)
    network = build_model(experiment.model, seed=3).eval()
    settings = tiny_training.make_config(experiment)
    save_weights(folder / "model.safetensors", network.state_dict(), settings)
    return network, experiment, folder / "model.safetensors"


@torch.no_grad()
def render_as_evaluation(network, scenes, view_config):
    """Return the target view of the first scene, rendered as an evaluation renders it."""
    scene, inputs, targets = (torch.tensor(index) for index in ([0], [[0]], [[TARGET]]))
    batch = make_full_view_batch(scenes, scene, inputs, targets, view_config)
    prediction = predict(network, batch, rays_per_group=4096)
    return to_uint8(prediction.colours.view(1, scenes.height, scenes.width, 3))


@pytest.mark.parametrize(("frame", "stride"), [("canonical", 1), ("canonical", 2), ("world", 1)])
def test_a_view_is_rendered_as_evaluation_renders_it(tmp_path, scenes, frame, stride):
    network, experiment, weights = save_model(tmp_path, stride, frame=frame)
    inputs, _ = make_example(scenes, input_views=1)
    views = _load_pyfunc(str(weights)).predict(inputs)
    expected = render_as_evaluation(network, scenes, make_view_config(experiment))
    np.testing.assert_allclose(views.astype(int), expected.astype(int), atol=1)


def test_several_views_are_rendered_at_once(tmp_path, scenes):
    _, _, weights = save_model(tmp_path)
    model = _load_pyfunc(str(weights))
    inputs, _ = make_example(scenes, input_views=1)

    # Render the target view and the input view.
    poses = np.concatenate((inputs["target_camera_to_world"], inputs["camera_to_world"]))
    two_targets = {
        "target_intrinsics": inputs["target_intrinsics"].repeat(2, 0),
        "target_camera_to_world": poses,
    }
    views = model.predict(inputs | two_targets)
    assert views.shape == (2, scenes.height, scenes.width, 3)
    np.testing.assert_allclose(views[:1].astype(int), model.predict(inputs).astype(int), atol=1)
    assert (views[0] != views[1]).any()


def test_an_example_has_the_images_and_cameras_of_the_first_scene(scenes):
    inputs, output = make_example(scenes, input_views=2)
    scene, views = torch.tensor([0]), torch.tensor([[0, 1, 2]])
    images, _ = scenes.gather(scene, views, torch.zeros((1, 0), dtype=torch.int64), stride=1)
    np.testing.assert_array_equal(inputs["images"], images[0, :2])
    np.testing.assert_array_equal(output, images[0, 2:])
    _, poses = scenes.cameras(scene)
    np.testing.assert_array_equal(inputs["target_camera_to_world"], poses[0, 2:3])
