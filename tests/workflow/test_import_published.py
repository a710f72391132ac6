"""A published run folder becomes our run and goes back: the same bits, and goes on as before."""

import json
import shutil

import numpy as np
import pytest
import torch
import tyro
import yaml
from support.published_form import STEP, published_content, same
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
from srt.tracking.tracker import Tracker
from srt.training.loop import Requests, fit
from srt.training.states import load_latest_state, state_folder
from workflow.common.stage_files import read_history, read_json
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
    """That of the test's variant, or of srt; for this test the published code has its sizes."""
    names = request.fixturenames
    name = request.getfixturevalue("variant") if "variant" in names else "srt"
    experiment, folder = experiments[name]
    shutil.copy(folder / "params.yaml", tmp_path)
    sizes = published_config.sizes_in_code("srt", "srt")
    sizes = {key: getattr(experiment.model, key) for key in sizes}
    monkeypatch.setattr(published_config, "sizes_in_code", lambda encoder, decoder: dict(sizes))
    return experiment


def run(folder, tmp_path, *options, data=None, out="out", states="states"):
    """Calls the stage as its command line does."""
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


def go_on(experiment, packed, states, stop_after=None):
    """Trains, or goes on, with what `workflow.train` would find there."""
    settings = training_config(experiment, sha256_of(packed / "manifest.json"))
    folder = state_folder(states, experiment, settings)
    data, requests = read_packed(packed), Requests(stop_after=stop_after)
    return fit(experiment, settings, data, folder, Tracker(), ALONE, NeverStop(), requests)


def test_a_published_checkpoint_becomes_weights_a_state_and_what_the_tables_need(
    experiment, packed, tmp_path
):
    content, module, adam = published_content(experiment)
    run(write_run_folder(tmp_path / "run", experiment, content), tmp_path, data=packed)
    model, settings = load_model(tmp_path / "out" / "model.safetensors", CPU)
    assert settings == json.loads(
        json.dumps(training_config(experiment, sha256_of(packed / "manifest.json")))
    )
    state = load_latest_state(state_folder(tmp_path / "states", experiment, settings), settings)
    cost = {"seconds": 12.34, "joules": None, "peak_gigabytes": None}
    assert state.progress == {"step": 4, "best_step": 4, "best_psnr": 21.5, **cost}
    for name, weight in model.state_dict().items():
        theirs = module.by_our_name[name]
        assert torch.equal(weight, theirs), name
        for key, value in adam.state[theirs].items():
            assert torch.equal(state.tensors[f"optimizer.{key}.{name}"], value), name
    history = read_history(tmp_path / "out" / "history.csv")
    assert history["validation_psnr"] == [(4, 21.5)]
    keys = ("steps", "best_step", "seconds", "hardware")
    cost = read_json(tmp_path / "out" / "training.json", keys)
    assert [cost[key] for key in keys] == [4, 4, 12.34, "not recorded (published run)"]
    assert cost["published"]["sha256"] == sha256_of(tmp_path / "run" / "model.pt")


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
    assert [key for key in content if not same(content[key], back[key])] == []
    for name in ("config.yaml", "model.pt"):
        with pytest.raises(UserError, match=f"back/{name}: this file exists"):
            run(tmp_path / "back", tmp_path, "--export")
        (tmp_path / "back" / name).unlink()


def test_an_exported_training_goes_on_as_if_it_had_not_been_away(
    variant, experiment, packed, tmp_path
):
    """Its weights and optimiser, bit for bit; its colours, too."""
    half = go_on(experiment, packed, tmp_path / "here", stop_after=STEP)
    settings = training_config(experiment, sha256_of(packed / "manifest.json"))
    write_outputs(half, settings, tmp_path / "mine", ALONE)
    run(tmp_path / "run", tmp_path, "--export", out="mine", states="here")
    run(tmp_path / "run", tmp_path, data=packed, states="there")

    model, _ = load_model(tmp_path / "out" / "model.safetensors", CPU)
    images = torch.rand(1, 2, SIZE, SIZE, 3)
    vectors = nn.functional.normalize(torch.randn(1, 2 + 9, 3), dim=-1)
    rays = Rays(torch.zeros(1, 9, 3), vectors[:, 2:], near=0.5, far=4.0)
    directions = vectors[:, :2, None, None].expand_as(images)
    with torch.no_grad():
        colours = [
            each.decode(each.decoder.scene_keys_values(tokens), rays).colours
            for each in (half.model.eval(), model)
            for tokens in [each.encode(images, torch.zeros(1, 2, 3), directions)]
        ]
    assert torch.equal(*colours)

    ours = go_on(experiment, packed, tmp_path / "here")
    theirs = go_on(experiment, packed, tmp_path / "there")
    assert ours.step == theirs.step == experiment.train.steps
    for name, value in ours.state().tensors.items():
        if name.startswith(("model.", "optimizer.")):
            assert torch.equal(value, theirs.state().tensors[name]), name


def test_without_a_validation_nothing_is_claimed(experiment, tmp_path):
    content, *_ = published_content(experiment)
    content["loss_val_best"] = -np.inf
    run(write_run_folder(tmp_path / "run", experiment, content), tmp_path)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["validation_psnr"] is None
    assert read_history(tmp_path / "out" / "history.csv")["validation_psnr"] == []


def test_nothing_is_replaced(experiment, packed, tmp_path):
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


def test_nothing_is_exported_that_the_published_code_cannot_build(experiments, tmp_path):
    _, folder = experiments["srt"]
    shutil.copy(folder / "params.yaml", tmp_path)
    with pytest.raises(UserError, match=r"model\.latent_dim: 16 here, 768 there"):
        run(tmp_path / "run", tmp_path, "--export")
