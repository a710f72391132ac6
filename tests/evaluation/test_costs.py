"""The costs of a model: counts that equal those of every product, and times."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from support.tiny_training import CPU, SIZE, VARIANTS, one_thread, tiny_experiment, write_packed

from srt.data.batch import make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import encode_batch
from srt.evaluation.model_costs import (
    count_costs,
    median_seconds,
    single_view_batch,
    time_stages,
)
from srt.evaluation.protocols import Item
from srt.model.srt import build_model


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return Scenes(write_packed(tmp_path_factory.mktemp("packed")) / "test", CPU)


def model_and_frame(scenes, folder, variant, inputs=(0, 1)):
    """Return a model and the batch of one frame of scene 0."""
    experiment = tiny_experiment(folder, VARIANTS[variant])
    model = build_model(experiment.model, seed=0).eval().requires_grad_(False)
    return model, single_view_batch(scenes, Item(0, inputs), make_view_config(experiment))


@pytest.fixture
def operations(monkeypatch):
    """Return a list whose only number counts the multiplications and additions of all products."""
    total = [0]

    # Every output of a matrix product or convolution is a sum of products.
    def linear(features, weight, *bias):
        total[0] += 2 * features.numel() * weight.shape[0]
        return originals["linear"](features, weight, *bias)

    def convolution(images, weight, *arguments, **options):
        result = originals["conv2d"](images, weight, *arguments, **options)
        total[0] += 2 * result.numel() * weight[0].numel()
        return result

    # Attention multiplies queries by keys, and the weights by values.
    def attention(query, key, value, **options):
        total[0] += 4 * query.numel() * key.shape[-2]
        return originals["scaled_dot_product_attention"](query, key, value, **options)

    counting = {"linear": linear, "conv2d": convolution, "scaled_dot_product_attention": attention}
    originals = {name: getattr(F, name) for name in counting}
    for name, function in counting.items():
        monkeypatch.setattr(F, name, function)
    return total


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operations_are_those_of_all_products(scenes, tmp_path, operations, variant):
    model, frame = model_and_frame(scenes, tmp_path, variant)
    costs = count_costs(model, frame)

    operations[0] = 0
    scene = encode_batch(model, frame, 100)
    assert costs.encode_flops == operations[0]

    operations[0] = 0
    scene.decode(frame.rays)
    assert costs.frame_flops == operations[0]


def test_counting_counts_the_parameters_and_does_not_change_the_model(scenes, tmp_path):
    model, frame = model_and_frame(scenes, tmp_path, "srt")
    original = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = sum(value.numel() for value in original.values())
    assert count_costs(model, frame).parameters == parameters
    for name, value in model.state_dict().items():
        assert torch.equal(value, original[name])


def test_a_scene_of_more_views_costs_more_and_a_frame_has_all_its_pixels(scenes, tmp_path):
    one = count_costs(*model_and_frame(scenes, tmp_path, "srt", (0,)))
    two = count_costs(*model_and_frame(scenes, tmp_path, "srt", (0, 1)))
    assert two.encode_flops > 2 * one.encode_flops
    assert two.parameters == one.parameters

    # Half of the rays need half of the operations.
    model, frame = model_and_frame(scenes, tmp_path, "srt")
    assert frame.origins.shape == (1, SIZE * SIZE, 3)
    half = frame.origins.shape[1] // 2
    rays = {name: getattr(frame, name)[:, :half] for name in ("origins", "directions", "colours")}
    half_frame = count_costs(model, dataclasses.replace(frame, **rays))
    assert half_frame.frame_flops * 2 == two.frame_flops


def test_a_time_is_the_median_of_all_but_the_first(monkeypatch):
    clock = [0.0]
    durations = iter([99.0, 1.0, 5.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def work():
        clock[0] += next(durations)

    assert median_seconds(work, CPU) == 3


def test_times_are_positive_and_name_the_hardware(scenes, tmp_path):
    costs = time_stages(*model_and_frame(scenes, tmp_path, "srt"), 1000)
    assert costs.encode_seconds > 0
    assert costs.frame_seconds > 0
    assert costs.hardware.endswith("CPU, 1 thread")
