"""Gradients in groups of rays, the learning rate, and trainings that resume bit for bit."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from support.paths import REFERENCE
from support.tiny_training import (
    ALONE,
    CPU,
    PARAMS,
    VARIANTS,
    change_train,
    one_thread,
    read_packed,
    states_folder_of,
    tiny_experiment,
    train,
    weights_file,
    write_packed,
)
from torch.nn.utils import convert_conv2d_weight_memory_format

from srt.config.load import load_experiment
from srt.data.sampling import Sampler
from srt.model.srt import build_model
from srt.results.record_tables import history_text
from srt.training.cuda_graph import plain_step
from srt.training.gradients import choose_group_shape, compute_gradients, largest_equal_group
from srt.training.loop import (
    NotFiniteError,
    learning_rate,
    make_sampler,
    train_step,
)
from srt.training.monitoring import learning_curve
from srt.training.state import MOMENTS, TrainingState


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_packed(write_packed(tmp_path_factory.mktemp("packed")))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return tiny_experiment(tmp_path_factory.mktemp("params"))


@pytest.fixture(scope="module")
def uninterrupted(experiment, data, tmp_path_factory):
    """The experiment, trained from the first step to the last in one call."""
    return train(experiment, data, tmp_path_factory.mktemp("states"))


def assert_same_training(first, second, folder):
    """Check that weights, Adam's state, curves and the best step are equal bit for bit."""
    assert weights_file(first, folder / "first") == weights_file(second, folder / "second")
    assert learning_curve(first) == learning_curve(second)
    assert first.best_step == second.best_step
    ours, theirs = first.state().tensors, second.state().tensors
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def to_float64(batch):
    """Return the batch with all its tensors in float64."""
    values = vars(batch).items()
    tensors = {name: value.double() for name, value in values if isinstance(value, torch.Tensor)}
    return dataclasses.replace(batch, **tensors)


def gradients(model):
    """Return copies of the gradients of all parameters."""
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module", params=VARIANTS)
def all_rays_at_once(request, data, tmp_path_factory):
    """A model and a batch in float64, and their error and gradients by one plain backward pass."""
    experiment = tiny_experiment(tmp_path_factory.mktemp("params"), VARIANTS[request.param])
    model = build_model(experiment.model, seed=0).double()
    batch = to_float64(make_sampler(experiment, ALONE).batch(data.train, step=0))
    tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
    keys_values = model.decoder.scene_keys_values(tokens)
    prediction = model.decode(keys_values, batch.rays)

    # VSRT also learns from its coarse colours, but only the fine ones make the error.
    error = loss = (prediction.colours.float() - batch.colours).square().mean()
    if prediction.coarse_colours is not None:
        loss = error + (prediction.coarse_colours.float() - batch.colours).square().mean()
    loss.backward()
    return model, batch, error.detach(), gradients(model)


@pytest.mark.parametrize("rays_per_group", [4, 50, 80, 192, 383, 384, 5000])
def test_gradients_in_groups_equal_those_of_all_rays_at_once(all_rays_at_once, rays_per_group):
    model, batch, error, expected = all_rays_at_once
    model.zero_grad(set_to_none=True)
    group_sizes = []

    # The decoder, which also records how many rays it decodes at once.
    def decode(keys_values, rays):
        group_sizes.append(rays.origins.shape[:2].numel())
        return model.decoder(keys_values, rays)

    decode.scene_keys_values = model.decoder.scene_keys_values
    loss = compute_gradients(model, batch, rays_per_group, decoder=decode)
    torch.testing.assert_close(loss, error, rtol=1e-12, atol=0)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-12, msg=name)

    # Each of the 4 x 96 rays is decoded once. A group has at least one ray of each of the 4 scenes,
    # and otherwise as many rays as the limit allows, to which each sample of a ray counts.
    assert sum(group_sizes) == 384
    assert max(group_sizes) <= max(rays_per_group // model.decoder.queries_per_ray, 4)


@pytest.mark.parametrize("scenes", [1, 3, 32])
@pytest.mark.parametrize("rays", [1, 24, 97, 128])
@pytest.mark.parametrize("limit", [1, 31, 32, 96, 1000, 4096, 10**9])
def test_groups_are_equal_and_as_large_as_the_limit_allows(scenes, rays, limit):
    divisors = [size for size in range(1, rays + 1) if rays % size == 0]
    fitting = [size for size in divisors if scenes * size <= limit]
    assert largest_equal_group(scenes, rays, limit) == max(fitting, default=1)


@pytest.mark.parametrize(
    ("scenes", "rays", "most", "shape"),
    [
        (256, 8192, 131072, (16, 8192)),  # whole scenes
        (24, 8192, 131072, (12, 8192)),  # groups are equal: not 16 and 8
        (32, 256, 682, (2, 256)),
        (4, 96, 50, (1, 48)),  # not even one whole scene fits
        (7, 100, 400, (7, 50)),  # groups of whole scenes would be seven, not two
        (32, 64, 4096, (32, 64)),
    ],
)
def test_a_group_has_whole_scenes_if_that_makes_no_more_groups(scenes, rays, most, shape):
    assert choose_group_shape(scenes, rays, most) == shape


def test_the_learning_rate_equals_the_published_schedule():
    published = load_experiment(PARAMS, "nmr_srt", "paper").train
    reference = np.load(REFERENCE / "lr_schedule.npz")
    rates = [learning_rate(int(step), published) for step in reference["it"]]
    np.testing.assert_allclose(rates, reference["lr"], rtol=1e-12, atol=0)


def test_every_step_uses_its_own_rate_and_all_weights_learn(experiment, data, uninterrupted):
    assert [rate for *_, rate in uninterrupted.curve] == [
        learning_rate(step - 1, experiment.train) for step in (3, 6)
    ]
    start = build_model(experiment.model, experiment.seed).state_dict()
    unchanged = [
        name
        for name, value in uninterrupted.model.state_dict().items()
        if torch.equal(value, start[name])
    ]

    # The embedding of further input views is not used, because there is only one input view.
    assert unchanged == ["encoder.other_embedding"]


@pytest.mark.parametrize("variant", ["srt", "isrt", "vsrt"])
def test_every_model_learns_and_resumes_bit_for_bit(variant, data, tmp_path):
    steps = {"steps": 24, "decay_steps": 1000, "log_every": 8, "validate_every": 24}
    sizes = {"rays_per_scene": 32, "rays_per_group": 2048, "validation_items": 1}
    experiment = tiny_experiment(tmp_path, VARIANTS[variant], **steps, **sizes)
    whole = train(experiment, data, tmp_path / "whole")

    # It learns: the training PSNR grows by at least 0.3 dB.
    assert whole.curve[-1][1] > whole.curve[0][1] + 0.3

    # It resumes.
    train(experiment, data, tmp_path / "parts", stop_after=13)
    assert_same_training(whole, train(experiment, data, tmp_path / "parts"), tmp_path)


@pytest.mark.parametrize("stops", [[1], [3], [4], [5], [7], [2, 5, 6]])
def test_a_training_that_stops_and_goes_on_equals_one_that_does_not(
    experiment, data, uninterrupted, tmp_path, stops
):
    for step in stops:
        assert train(experiment, data, tmp_path, stop_after=step).step == step
    resumed = train(experiment, data, tmp_path)
    assert resumed.step == experiment.train.steps
    assert_same_training(uninterrupted, resumed, tmp_path)


def test_a_finished_training_run_again_does_no_step(experiment, data, tmp_path, monkeypatch):
    first = train(experiment, data, tmp_path)
    monkeypatch.setattr("srt.training.loop.train_step", None)
    assert_same_training(first, train(experiment, data, tmp_path), tmp_path)


def test_a_longer_training_goes_on_from_a_shorter_one(
    experiment, data, uninterrupted, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    short = change_train(experiment, steps=4)
    train(short, data, tmp_path)
    longer = train(experiment, data, tmp_path)
    assert f"continuing from {states_folder_of(tmp_path, short) / 'state-000000004'}" in caplog.text
    assert "resuming after step 4" in caplog.text
    assert_same_training(uninterrupted, longer, tmp_path)


def test_a_shorter_training_takes_nothing_from_the_later_steps_of_a_longer_one(
    experiment, data, tmp_path
):
    short = change_train(experiment, steps=4)
    alone = train(short, data, tmp_path / "alone")
    train(experiment, data, tmp_path / "both")
    assert_same_training(alone, train(short, data, tmp_path / "both"), tmp_path)


def test_the_best_weights_are_those_of_the_best_validation(experiment, data, tmp_path):
    # The learning rate becomes far too high, so that the last weights are not the best.
    unstable = change_train(experiment, learning_rate=0.3, warmup_steps=8)
    training = train(unstable, data, tmp_path)
    psnr = dict(training.validation)
    assert list(psnr) == [2, 4, 6, 8]
    assert training.best_step == max(psnr, key=psnr.get) != 8
    assert training.best_psnr == psnr[training.best_step]

    # A training that stops at the best step has the best weights.
    stopped = train(unstable, data, tmp_path / "again", stop_after=training.best_step)
    weights = stopped.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in training.best.items())


def make_colours_nan(monkeypatch, from_step):
    """Make the colours of all batches from a step on not a number."""
    make_batch = Sampler.batch

    def make_faulty_batch(self, scenes, step):
        batch = make_batch(self, scenes, step)
        if step >= from_step:
            batch.colours.fill_(float("nan"))
        return batch

    monkeypatch.setattr(Sampler, "batch", make_faulty_batch)


def test_a_loss_that_is_not_finite_ends_the_training_and_names_step_and_scenes(
    experiment, data, tmp_path, monkeypatch
):
    make_colours_nan(monkeypatch, from_step=4)
    message = r"nmr_srt: .* gradient of step 5 is not finite; its scenes were s\d.* step 4: look"
    with pytest.raises(NotFiniteError, match=message):
        train(experiment, data, tmp_path)


@pytest.mark.parametrize("stop_after", [5, None])
def test_no_state_of_a_loss_that_is_not_finite_is_saved(
    experiment, data, uninterrupted, tmp_path, monkeypatch, stop_after
):
    # There is no log in these steps, so the save itself must notice, and the last save as well.
    unlogged = change_train(experiment, log_every=100)
    with monkeypatch.context() as patch:
        make_colours_nan(patch, from_step=4)
        with pytest.raises(NotFiniteError):
            train(unlogged, data, tmp_path, stop_after=stop_after)
    newest = max(states_folder_of(tmp_path, unlogged).glob("state-*"))
    assert newest.name == "state-000000004.safetensors"

    # From that state, the training goes on with correct batches as if nothing had happened.
    healthy = train(unlogged, data, tmp_path)
    weights = uninterrupted.model.state_dict()
    for name, value in healthy.model.state_dict().items():
        assert torch.equal(value, weights[name])


def test_a_gradient_that_is_not_finite_ends_the_training_even_if_the_loss_is_finite(
    experiment, data, tmp_path, monkeypatch
):
    def make_bad_step(model, device, rays_per_group, reduction):
        def step(batch):
            loss = compute_gradients(model, batch, rays_per_group, reduction)
            next(iter(model.parameters())).grad[0] = float("inf")
            return loss

        return step

    monkeypatch.setattr("srt.training.loop.make_step", make_bad_step)
    with pytest.raises(NotFiniteError, match=r"gradient of step 1 is not finite.* of step 0"):
        train(experiment, data, tmp_path)


def test_gradients_are_clipped_to_the_norm(experiment, data):
    norms = []
    for clip_norm in (None, 1e-3):
        training = TrainingState(change_train(experiment, clip_norm=clip_norm), CPU)
        batch = make_sampler(experiment, ALONE).batch(data.train, 0)
        train_step(training, plain_step(training.model), batch, 0.01)
        clipped = [parameter.grad for parameter in training.model.parameters()]
        norms.append((training.gradient_norm, torch.nn.utils.get_total_norm(clipped)))

    # What is logged is the norm before clipping.
    assert norms[0][0] == norms[0][1] == norms[1][0] > 1e-3
    assert norms[1][1] == pytest.approx(1e-3, rel=1e-3)


def test_the_average_of_the_weights_replaces_them_for_a_while_and_resumes(
    experiment, data, tmp_path
):
    averaged = change_train(experiment, ema_decay=0.5)
    training = TrainingState(averaged, CPU)

    # Compute the average after each of three steps.
    expected = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    for step in range(3):
        batch = make_sampler(experiment, ALONE).batch(data.train, step)
        train_step(training, plain_step(training.model), batch, 0.01)
        for name, parameter in training.model.named_parameters():
            expected[name] = 0.5 * expected[name] + 0.5 * parameter.detach()

    # Within the context the model has it, and after the context its own weights.
    current = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    with training.with_average_weights():
        for name, parameter in training.model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name])
    for name, parameter in training.model.named_parameters():
        assert torch.equal(parameter, current[name])

    # A training with an average resumes bit for bit.
    whole = train(averaged, data, tmp_path / "whole")
    train(averaged, data, tmp_path / "parts", stop_after=3)
    assert_same_training(whole, train(averaged, data, tmp_path / "parts"), tmp_path)


def test_a_restored_state_has_the_memory_layout_of_the_weights(experiment, data):
    averaged = change_train(experiment, ema_decay=0.5)
    first, second = TrainingState(averaged, CPU), TrainingState(averaged, CPU)
    batch = make_sampler(experiment, ALONE).batch(data.train, 0)
    train_step(first, plain_step(first.model), batch, 0.01)

    # The second training has its weights channels last, as on a GPU.
    convert_conv2d_weight_memory_format(second.model, torch.channels_last)
    second.restore(first.state())
    for name, parameter in second.model.named_parameters():
        moments = [second.optimizer.state[parameter][key] for key in MOMENTS]
        for values in (*moments, second.ema[name]):
            assert values.stride() == parameter.stride(), name
    assert not all(parameter.is_contiguous() for parameter in second.model.parameters())

    # The values are the same in any layout.
    restored = second.state().tensors
    for name, values in first.state().tensors.items():
        assert torch.equal(restored[name], values), name


def test_the_curve_file_has_a_row_for_each_log_and_validation_and_no_time(uninterrupted):
    header, *rows = history_text(learning_curve(uninterrupted)).splitlines()
    assert header == "step,train_psnr,learning_rate,validation_psnr"
    cells = [row.split(",") for row in rows]

    # Logs are at every third step, validations at every second one.
    assert [row[0] for row in cells] == ["2", "3", "4", "6", "8"]
    assert [bool(row[1]) for row in cells] == [bool(row[2]) for row in cells]
    assert [row[0] for row in cells if row[1]] == ["3", "6"]
    assert [row[0] for row in cells if row[3]] == ["2", "4", "6", "8"]
