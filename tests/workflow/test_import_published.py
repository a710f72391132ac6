"""A published run folder becomes our run and goes back without the loss of a bit."""

import json
import shutil

import numpy as np
import pytest
import torch
import tyro
import yaml
from support.published_form import STEP, equal_values, published_content
from support.tiny_training import (
    ALONE,
    CPU,
    SIZE,
    VARIANTS,
    NeverStop,
    one_thread,
    read_packed,
    tiny_experiment,
    write_packed,
)
from torch import nn

from srt.common.errors import UserError
from srt.common.files import sha256_of
from srt.geometry.rays import Rays
from srt.model.weights import load_model, training_config
from srt.published import config as published_config
from srt.published.checkpoint import read_checkpoint
from srt.results.record_files import read_record
from srt.results.record_tables import read_history
from srt.results.records import Training
from srt.tracking.tracker import Tracker
from srt.training.loop import Requests, fit
from srt.training.states import load_latest_state, state_folder
from workflow.tools.import_published import import_published
from workflow.train import write_outputs

SHORT = {"rays_per_scene": 32, "rays_per_group": 2048, "validation_items": 1, "picture_every": 100}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write_packed(tmp_path_factory.mktemp("packed"))


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """Every variant's tiny experiment and the folder of its params.yaml."""
    folders = {name: tmp_path_factory.mktemp("params") for name in VARIANTS}
    return {
        name: (tiny_experiment(folder, VARIANTS[name], **SHORT), folder)
        for name, folder in folders.items()
    }


@pytest.fixture
def experiment(request, experiments, tmp_path, monkeypatch):
    """The tiny experiment of the test's variant, or of srt if the test has none."""
    names = request.fixturenames
    name = request.getfixturevalue("variant") if "variant" in names else "srt"
    experiment, folder = experiments[name]
    shutil.copy(folder / "params.yaml", tmp_path)

    # The published code fixes some sizes. For this test they are those of the tiny experiment.
    sizes = published_config.sizes_in_code("srt", "srt")
    sizes = {key: getattr(experiment.model, key) for key in sizes}
    monkeypatch.setattr(published_config, "sizes_in_code", lambda encoder, decoder: dict(sizes))
    return experiment


def run(folder, tmp_path, *options, data=None, out="out", states="states"):
    """Call the tool as its command line does."""
    arguments = [folder / "config.yaml", folder / "model.pt", "--profile", "quick"]
    arguments += ["--experiment", "nmr_srt", "--out", tmp_path / out, *options]
    arguments += ["--params", tmp_path / "params.yaml", "--states", tmp_path / states]
    arguments += [] if data is None else ["--data", data]
    tyro.cli(import_published, args=[str(argument) for argument in arguments])


def write_run_folder(folder, experiment, content):
    folder.mkdir()
    config = yaml.safe_dump(published_config.published_config(experiment))
    (folder / "config.yaml").write_text(config)
    torch.save(content, folder / "model.pt")
    return folder


def continue_training(experiment, packed, states, stop_after=None):
    """Train from the state in `states`, as `workflow.train` does."""
    settings = training_config(experiment, sha256_of(packed / "manifest.json"))
    folder = state_folder(states, experiment, settings)
    data, requests = read_packed(packed), Requests(stop_after=stop_after)
    return fit(experiment, settings, data, folder, Tracker(), ALONE, NeverStop(), requests)


def test_a_published_checkpoint_becomes_weights_a_state_and_files_for_the_tables(
    experiment, packed, tmp_path
):
    content, module, adam = published_content(experiment)
    run(write_run_folder(tmp_path / "run", experiment, content), tmp_path, data=packed)
    model, settings = load_model(tmp_path / "out" / "model.safetensors", CPU)
    assert settings == json.loads(
        json.dumps(training_config(experiment, sha256_of(packed / "manifest.json")))
    )

    # The resume state has the weights and the optimiser bit for bit.
    state = load_latest_state(state_folder(tmp_path / "states", experiment, settings), settings)
    cost = {"seconds": 12.34, "joules": None, "peak_gigabytes": None}
    assert state.progress == {"step": 4, "best_step": 4, "best_psnr": 21.5, **cost}
    for name, weight in model.state_dict().items():
        published = module.by_our_name[name]
        assert torch.equal(weight, published), name
        for key, value in adam.state[published].items():
            assert torch.equal(state.tensors[f"optimizer.{key}.{name}"], value), name

    # The tables need a learning curve and what the training cost.
    history = read_history(tmp_path / "out" / "history.csv")
    assert history.validation_psnr == [(4, 21.5)]
    record = read_record(tmp_path / "out" / "training.json", Training)
    assert (record.steps, record.best_step, record.seconds) == (4, 4, 12.34)
    assert record.hardware == "not recorded (published run)"
    assert record.published.sha256 == sha256_of(tmp_path / "run" / "model.pt")


@pytest.mark.parametrize("optimizer", [True, False])
def test_import_then_export_is_the_same_checkpoint_bit_for_bit(
    variant, experiment, packed, tmp_path, optimizer
):
    content, *_ = published_content(experiment)
    content = content if optimizer else {k: v for k, v in content.items() if k != "optimizer"}
    folder = write_run_folder(tmp_path / "run", experiment, content)
    run(folder, tmp_path, data=packed if optimizer else None)
    run(tmp_path / "back", tmp_path, "--export")
    back = read_checkpoint(tmp_path / "back" / "model.pt")
    assert content.keys() == back.keys()
    assert [key for key in content if not equal_values(content[key], back[key])] == []

    # Neither file is replaced.
    for name in ("config.yaml", "model.pt"):
        with pytest.raises(UserError, match=f"back/{name}: this file exists"):
            run(tmp_path / "back", tmp_path, "--export")
        (tmp_path / "back" / name).unlink()


def test_a_training_that_was_exported_and_imported_ends_with_the_same_weights(
    variant, experiment, packed, tmp_path
):
    # Train a few steps, export them and import them again.
    half = continue_training(experiment, packed, tmp_path / "here", stop_after=STEP)
    settings = training_config(experiment, sha256_of(packed / "manifest.json"))
    write_outputs(half, settings, tmp_path / "mine", ALONE)
    run(tmp_path / "run", tmp_path, "--export", out="mine", states="here")
    run(tmp_path / "run", tmp_path, data=packed, states="there")

    # The model that came back predicts the same colours.
    model, _ = load_model(tmp_path / "out" / "model.safetensors", CPU)
    images = torch.rand(1, 2, SIZE, SIZE, 3)
    vectors = nn.functional.normalize(torch.randn(1, 2 + 9, 3), dim=-1)
    rays = Rays(torch.zeros(1, 9, 3), vectors[:, 2:], near=0.5, far=4.0)
    directions = vectors[:, :2, None, None].expand_as(images)
    with torch.no_grad():
        colours = []
        for network in (half.model.eval(), model):
            tokens = network.encode(images, torch.zeros(1, 2, 3), directions)
            keys_values = network.decoder.scene_keys_values(tokens)
            colours.append(network.decode(keys_values, rays).colours)
    assert torch.equal(*colours)

    # It ends as the training that was not exported.
    ours = continue_training(experiment, packed, tmp_path / "here")
    theirs = continue_training(experiment, packed, tmp_path / "there")
    assert ours.step == theirs.step == experiment.train.steps
    for name, value in ours.state().tensors.items():
        if name.startswith(("model.", "optimizer.")):
            assert torch.equal(value, theirs.state().tensors[name]), name


def test_a_run_without_a_validation_has_no_validation_psnr(experiment, tmp_path):
    content, *_ = published_content(experiment)
    content["loss_val_best"] = -np.inf
    run(write_run_folder(tmp_path / "run", experiment, content), tmp_path)
    assert read_record(tmp_path / "out" / "training.json", Training).validation_psnr is None
    assert read_history(tmp_path / "out" / "history.csv").validation_psnr == []


def test_existing_files_are_not_replaced(experiment, packed, tmp_path):
    content, *_ = published_content(experiment)
    folder = write_run_folder(tmp_path / "run", experiment, content)
    run(folder, tmp_path, data=packed)
    with pytest.raises(UserError, match=r"out/model.safetensors: this file exists"):
        run(folder, tmp_path, data=packed)
    with pytest.raises(UserError, match="nmr_srt has a resume state already"):
        run(folder, tmp_path, data=packed, out="other")
    with pytest.raises(UserError, match=r"manifest\.json: there is no such file; .*workflow\.pack"):
        run(folder, tmp_path, data=tmp_path, out="other")
    assert not (tmp_path / "other").exists()


def test_a_model_that_the_published_code_cannot_build_is_not_exported(experiments, tmp_path):
    _, folder = experiments["srt"]
    shutil.copy(folder / "params.yaml", tmp_path)
    with pytest.raises(UserError, match=r"model\.latent_dim: 16 here, 768 there"):
        run(tmp_path / "run", tmp_path, "--export")
