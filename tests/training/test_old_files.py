"""Weights and states of version 0.2.0, whose configuration had the keys of all models, load."""

import dataclasses
import logging

import pytest
import torch
from support.old_form import (
    KEYS_OF_ALL,
    old_config,
    rewrite_in_old_form,
    rewrite_states_in_old_form,
)
from support.tiny_training import (
    CPU,
    VARIANTS,
    make_config,
    one_thread,
    read_packed,
    states_folder_of,
    tiny_experiment,
    train,
    weights_file,
    write_packed,
)

from srt.config.strict import ConfigError
from srt.model.srt import build_model
from srt.model.weights import (
    StateError,
    config_differences,
    load_model,
    read_tensors,
    save_weights,
    write_tensors,
)
from srt.serving import _load_pyfunc
from srt.training.states import load_latest_state


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_packed(write_packed(tmp_path_factory.mktemp("packed")))


@pytest.fixture
def experiment(tmp_path):
    return tiny_experiment(tmp_path)


def write_old_states(experiment, data, states, stop_after=5):
    """Train some steps, turn the states into those of version 0.2.0, and return their folder."""
    train(experiment, data, states, stop_after=stop_after)
    folder = states_folder_of(states, experiment)
    return rewrite_states_in_old_form(folder, make_config(experiment))


def write_old_weights(folder, variant):
    """Write weights of a new model in the old form, and return the experiment and the path."""
    experiment = tiny_experiment(folder, VARIANTS[variant])
    weights = build_model(experiment.model, seed=3).state_dict()
    path = folder / "model.safetensors"
    save_weights(path, weights, make_config(experiment))
    rewrite_in_old_form(path)
    assert KEYS_OF_ALL.keys() <= read_tensors(path)[1]["config"]["model"].keys()
    return experiment, path


def test_a_training_goes_on_from_its_old_states_in_their_folder(experiment, data, tmp_path):
    uninterrupted = train(experiment, data, tmp_path / "whole")
    folder = write_old_states(experiment, data, tmp_path / "stopped")
    assert states_folder_of(tmp_path / "stopped", experiment) == folder
    assert load_latest_state(folder, make_config(experiment)).progress["step"] == 5

    # No second folder appears, so its lock and its run in MLflow stay those of the training.
    resumed = train(experiment, data, tmp_path / "stopped")
    assert list(folder.parent.iterdir()) == [folder]
    expected = weights_file(uninterrupted, tmp_path / "a")
    assert expected == weights_file(resumed, tmp_path / "b")


def test_a_longer_training_goes_on_from_old_states(data, tmp_path, caplog):
    folder = write_old_states(tiny_experiment(tmp_path), data, tmp_path / "states")
    longer = tiny_experiment(tmp_path, steps=10)
    caplog.set_level(logging.INFO)
    assert train(longer, data, tmp_path / "states").step == 10
    assert f"continuing from {folder}" in caplog.text


def test_old_states_of_another_configuration_are_not_used(experiment, data, tmp_path):
    folder = write_old_states(experiment, data, tmp_path)
    other = dataclasses.replace(experiment, seed=1)
    assert states_folder_of(tmp_path, other) != folder
    with pytest.raises(StateError, match=r"configuration: seed: 1 here, 0 there\. Change"):
        load_latest_state(folder, make_config(other))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_old_file_of_weights_gives_its_model(tmp_path, variant):
    experiment, path = write_old_weights(tmp_path, variant)
    model, settings = load_model(path, CPU)
    expected = build_model(experiment.model, seed=3).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert config_differences(make_config(experiment), settings) == []

    # A model in MLflow's registry is such a file.
    assert _load_pyfunc(str(path)).network.state_dict().keys() == expected.keys()


def test_what_a_model_uses_is_compared_in_old_files_too(experiment, tmp_path):
    config = make_config(experiment)
    old = old_config(config | {"model": config["model"] | {"heads": 4}})
    assert config_differences(config, old) == ["model.heads: 2 here, 4 there"]

    config = make_config(tiny_experiment(tmp_path, VARIANTS["vsrt"]))
    other = config | {"model": config["model"] | {"fine_samples": 9}}
    assert config_differences(config, other) == ["model.fine_samples: 4 here, 9 there"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 7}, "model.slots: unknown key; possible keys: name, frame, "),
        ({"name": "osrt"}, "model.name: 'osrt' is not one of srt, isrt, vsrt"),
    ],
)
def test_weights_of_a_model_that_this_version_does_not_have_are_refused(tmp_path, change, message):
    _, path = write_old_weights(tmp_path, "srt")
    weights, header = read_tensors(path)
    header["config"]["model"] |= change
    write_tensors(path, weights, header)
    with pytest.raises(ConfigError, match=f"^{path}: {message}"):
        load_model(path, CPU)
