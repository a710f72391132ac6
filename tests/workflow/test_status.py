"""The table of `workflow.tools.status` has every state that an experiment can be in, and why."""

import dataclasses
import time

import pytest
import torch
from support.old_form import rewrite_in_old_form
from support.small_runs import COUNTED, metrics_of, training_of
from support.tiny_training import change_train, tiny_experiment

import workflow.common.tracked_run
from srt.common.files import sha256_of
from srt.model.weights import save_weights, training_config
from srt.results.record_files import write_record
from srt.results.records import Metrics
from srt.training.states import SavedState, lock_states, save_state, state_folder
from workflow.common.lpips_weights import LPIPS
from workflow.common.metrics_header import metrics_header
from workflow.tools.experiment_status import (
    ExperimentFiles,
    ExperimentStatus,
    experiment_statuses,
)
from workflow.tools.pending_stages import dvc_reasons
from workflow.tools.status import format_table

NOW = time.time()
TENSORS = {"weight": torch.zeros(2)}


class Lab:
    """A tiny experiment and its files, which the tests write as the stages do."""

    def __init__(self, folder):
        self.experiment = tiny_experiment(folder)
        self.states = folder / "ckpt"
        self.files = ExperimentFiles(
            states=self.states / "quick" / "nmr_srt",
            data=folder / "packed",
            out=folder / "outputs",
            weights=folder / "weights",
        )

        # Its data is packed and the weights of LPIPS are fetched; only their manifests are read.
        self.files.data.mkdir()
        self.files.out.mkdir()
        (self.files.data / "manifest.json").write_text("{}")
        for name in LPIPS.values():
            (self.files.weights / name).mkdir(parents=True)
            (self.files.weights / name / "manifest.json").write_text("{}")

    def config(self, experiment=None):
        digest = sha256_of(self.files.data / "manifest.json")
        return training_config(experiment or self.experiment, digest)

    def folder(self, experiment=None):
        """Return the folder of the experiment's resume states."""
        experiment = experiment or self.experiment
        return state_folder(self.states, experiment, self.config(experiment))

    def save(self, step, seconds, best_step=0, best_psnr=-float("inf")):
        """Save a resume state."""
        progress = {"step": step, "seconds": seconds, "best_step": best_step}
        state = SavedState(TENSORS, {**progress, "best_psnr": best_psnr})
        self.folder().mkdir(parents=True, exist_ok=True)
        save_state(self.folder(), state, self.config())

    def run(self, experiment=None):
        """Open the run that a training logs to."""
        settings = self.config(experiment)
        return workflow.common.tracked_run.open_run(
            "train", "quick", "nmr_srt", settings, self.states
        )

    def train(self, experiment=None):
        """Write what a finished training writes."""
        save_weights(self.files.out / "model.safetensors", TENSORS, self.config(experiment))
        record = training_of("nmr_srt", steps=8, validation_psnr=18.5)
        write_record(self.files.out / "training.json", record)

    def evaluate(self):
        """Write metrics.json as an evaluation with the weights that are there writes it."""
        files = {"model": self.files.out / "model.safetensors"}
        files["data"] = self.files.data / "manifest.json"
        for key in LPIPS:
            manifest = self.files.weights / LPIPS[key] / "manifest.json"
            files[key] = manifest if manifest.is_file() else None
        header = metrics_header(self.experiment, "test", files)
        protocols = metrics_of("nmr_srt", "quick", True, {"stelzner": 8}).protocols
        scores = dataclasses.replace(protocols["stelzner"], psnr=17.25)
        protocols = {"stelzner": scores, "pixelnerf": dataclasses.replace(scores, psnr=3.0)}
        metrics = Metrics(**vars(header), costs=COUNTED, protocols=protocols)
        write_record(self.files.out / "metrics.json", metrics)

    def rows(self, experiment=None):
        return list(experiment_statuses(experiment or self.experiment, self.files, NOW))

    def row(self, experiment=None):
        """Return the only row of the table, with single spaces between the cells."""
        lines = format_table(self.rows(experiment))
        assert len(lines) == 2
        return " ".join(lines[1].split())


@pytest.fixture
def lab(tmp_path, monkeypatch):
    for name in ("DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    return Lab(tmp_path)


def test_an_experiment_that_has_only_data_is_not_begun(lab):
    assert lab.row() == "nmr_srt not begun – – – – –"


def test_an_experiment_without_data_says_so(lab):
    (lab.files.data / "manifest.json").unlink()
    assert lab.row() == "nmr_srt not begun – – – – – its data is not packed"


def test_a_running_training_shows_its_figures_and_the_time_left_at_its_current_speed(lab):
    run = lab.run()
    lab.save(4, seconds=4000.0, best_step=4, best_psnr=16.5)
    for step, seconds in ((4, 4000.0), (6, 4100.0)):  # its first steps took longer
        run.log_metrics({"train/psnr": 10.0 + step, "train/seconds": seconds}, step)
    with lock_states(lab.folder()):
        assert lab.row().startswith("nmr_srt running 6 of 8 16.00 16.50 – 2 min logged ")
    assert "running" not in lab.row()


def test_a_training_that_logged_nothing_yet_is_running(lab):
    with lock_states(lab.folder()):
        assert lab.row() == "nmr_srt running – – – – – nothing logged yet"


def test_a_killed_training_says_after_which_step_it_goes_on(lab):
    run = lab.run()
    lab.save(4, seconds=400.0)
    run.log_metrics({"train/psnr": 15.0, "train/seconds": 500.0}, 5)  # not saved
    assert lab.row() == "nmr_srt stopped 5 of 8 15.00 – – 5 min goes on after step 4"


def test_a_failed_training_differs_from_a_stopped_one(lab):
    run = lab.run()
    lab.save(4, seconds=400.0)
    run.close("KILLED", timeout=0)
    assert lab.row().startswith("nmr_srt stopped 4 of 8")
    lab.run().close("FAILED", timeout=0)
    assert lab.row().startswith("nmr_srt failed 4 of 8")


def test_a_model_without_figures_or_video_is_trained(lab):
    lab.train()
    assert lab.row() == "nmr_srt trained 8 of 8 – 18.50 – – no metrics.json and no video.mp4 yet"


def test_a_model_with_figures_and_video_is_done(lab):
    lab.train()
    lab.evaluate()
    assert lab.row() == "nmr_srt trained 8 of 8 – 18.50 17.25 – no video.mp4 yet"
    (lab.files.out / "video.mp4").touch()
    assert lab.row() == "nmr_srt done 8 of 8 – 18.50 17.25 –"


def test_a_model_of_other_parameters_is_stale_and_the_parameters_are_named(lab):
    lab.train()
    row = lab.row(change_train(lab.experiment, learning_rate=0.5))
    why = "its model is of other settings: train.learning_rate: 0.5 here, 0.01 there"
    assert row == f"nmr_srt stale – – – – – {why}"
    many = change_train(lab.experiment, learning_rate=0.5, steps=10, batch_size=3, decay_steps=7)
    assert lab.row(many).endswith("; 1 more")


def test_a_model_of_version_0_2_0_is_of_the_same_parameters(lab):
    lab.train()
    rewrite_in_old_form(lab.files.out / "model.safetensors")
    assert lab.row().startswith("nmr_srt trained 8 of 8")


def test_a_model_of_other_data_is_stale(lab):
    lab.train()
    (lab.files.data / "manifest.json").write_text('{"scenes": 1}')
    assert lab.row().endswith("its model is of other settings: other data")


def test_figures_of_another_model_or_evaluation_are_stale(lab):
    lab.train()
    lab.evaluate()
    (lab.files.out / "video.mp4").touch()
    fewer = dataclasses.replace(lab.experiment.evaluate, max_items=1)
    row = lab.row(dataclasses.replace(lab.experiment, evaluate=fewer))
    assert row.startswith("nmr_srt stale 8 of 8")
    assert row.endswith("metrics.json is of another model or evaluation")


def test_figures_that_were_measured_without_a_distance_are_up_to_date(lab):
    lab.train()
    (lab.files.weights / "lpips_alex" / "manifest.json").unlink()
    lab.evaluate()
    assert [row.why for row in lab.rows()] == ["no video.mp4 yet"]


def test_a_damaged_model_is_named(lab):
    lab.train()
    weights = lab.files.out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    assert lab.row().endswith(f"{weights} is not readable: delete it")


def test_a_queued_training_with_other_settings_has_a_row_while_it_runs(lab, monkeypatch):
    lab.train()
    experiment = change_train(lab.experiment, learning_rate=0.5)
    monkeypatch.setenv("DVC_EXP_NAME", "murky-tee")
    with lock_states(lab.folder(experiment)):
        assert lab.rows()[1].why.endswith("it just began")
        lab.run(experiment)
        first, second = lab.rows()
    assert first.state == "trained"
    assert (second.name, second.state, second.steps) == ("nmr_srt (murky-tee)", "running", 8)
    assert second.why.endswith("other settings: train.learning_rate: 0.01 here, 0.5 there")
    assert len(lab.rows()) == 1


def test_the_cells_of_a_column_are_below_each_other():
    lines = format_table(
        [
            ExperimentStatus("a", "done", 1),
            ExperimentStatus("longer", "not begun", 1, why="no data"),
        ]
    )
    assert lines[0].index("state") == lines[1].index("done") == lines[2].index("not begun")


def test_dvcs_reasons_are_given_in_its_own_words():
    deps = {"srt/a.py": "modified", "params.yaml": {"train.steps": "deleted"}}
    status = {
        "train@a": ["changed command", {"changed deps": deps}, {"changed outs": {"b": "new"}}]
    }
    reasons = ["changed command", "srt/a.py modified", "params.yaml.train.steps deleted", "b new"]
    assert dvc_reasons(status) == {"train@a": reasons}
