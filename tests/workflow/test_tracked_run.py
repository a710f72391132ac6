"""All stages of a configuration share one run in MLflow; `dvc exp run` gives its runs names."""

import json

import pytest
import torch
from support.old_form import old_config

import workflow.common.tracked_run
from srt.common.fingerprint import fingerprint
from srt.training.states import SavedState, save_state

SETTINGS = {
    "dataset_name": "nmr",
    "seed": 0,
    "model": {"name": "srt", "heads": 2},
    "train": {"steps": 10},
}


@pytest.fixture(autouse=True)
def without_dvc(monkeypatch):
    """The variables of a stage that was started by hand."""
    for name in ("DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def open_training_run(states, **settings):
    """Open the run of a training, and return the content of its run.json."""
    run = workflow.common.tracked_run.open_run(
        "train", "quick", "nmr_srt", SETTINGS | settings, states
    )
    return json.loads((run.folder / "run.json").read_text())


def test_a_run_is_named_after_its_experiment_under_its_dataset(tmp_path):
    run = open_training_run(tmp_path)
    assert (run["experiment"], run["name"], run["parent"]) == ("quick: nmr", "nmr_srt", "")
    assert run["parameters"]["model.heads"] == "2"


def test_a_later_stage_opens_the_same_run(tmp_path):
    first = open_training_run(tmp_path)
    run = workflow.common.tracked_run.open_run("evaluate", "quick", "nmr_srt", SETTINGS, tmp_path)
    assert json.loads((run.folder / "run.json").read_text()) == first


def test_a_run_that_version_0_2_0_began_is_opened_again(tmp_path):
    # Its configuration had the keys of all models, so its folder has another name.
    begun = tmp_path / "quick" / "nmr_srt" / fingerprint(old_config(SETTINGS))
    begun.mkdir(parents=True)
    save_state(begun, SavedState({"weight": torch.zeros(1)}, {"step": 1}), old_config(SETTINGS))
    for settings in (old_config(SETTINGS), SETTINGS):
        run = workflow.common.tracked_run.open_run("train", "quick", "nmr_srt", settings, tmp_path)
        assert run.folder == begun / "tracking"


def test_seeds_differ_in_the_fingerprint_alone(tmp_path):
    first, second = (open_training_run(tmp_path, seed=seed)["tags"] for seed in (0, 1))
    assert first["fingerprint"] != second["fingerprint"]
    assert first["but_for_seed"] == second["but_for_seed"]


def test_an_experiment_of_dvc_gives_its_name_and_its_commit_a_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "murky-tee")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0123456789abcdef")
    run = open_training_run(tmp_path)
    assert run["name"] == "nmr_srt (murky-tee)"
    assert run["parent"] == "nmr_srt: dvc exp from 0123456"


def test_a_queued_experiment_of_dvc_uses_the_main_repository(tmp_path):
    assert (
        workflow.common.tracked_run.main_repository(tmp_path / ".dvc/tmp/exps/tmp_a1b2") == tmp_path
    )
    assert workflow.common.tracked_run.main_repository(tmp_path) == tmp_path
