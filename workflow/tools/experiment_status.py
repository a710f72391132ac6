"""How far an experiment is, from its files alone: its state, its figures and why it is not done.

The states are: not begun, running, stopped, failed, trained, done and stale. Stale means that the
model or its figures were made with other settings or data than those of now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors

from srt.common.files import sha256_of
from srt.common.fingerprint import differences
from srt.config.schema import Experiment
from srt.model.weights import config_differences, read_weights_header, training_config
from srt.report.format.numbers import format_duration
from srt.results.records import Training
from srt.tracking.outbox import flatten, read_events
from srt.training.states import is_locked, latest_progress, state_folder
from workflow.common.lpips_weights import lpips_manifests
from workflow.common.metrics_header import metrics_header
from workflow.common.stage_files import read_metrics, read_result

RECENT = 200_000  # bytes of a run's log: its last few hundred events, which give its speed of now
MOST_DIFFERENCES = 3  # that the table names
RESULTS = ("metrics.json", "video.mp4")


@dataclass(frozen=True)
class Progress:
    """How far a training is; None where no file says it."""

    step: int = 0  # the last step that was saved or logged
    saved: int = 0  # the last step that was saved
    train_psnr: float | None = None
    best_psnr: float | None = None  # on the validation set, at the last saved step
    step_seconds: float | None = None
    logged: float | None = None  # when the last step was logged, in seconds since 1970
    failed: bool = False


@dataclass(frozen=True)
class ExperimentStatus:
    """One row of the table: an experiment, or a training of it that runs with other settings."""

    name: str
    state: str
    steps: int  # of the whole training
    progress: Progress = Progress()
    test_psnr: float | None = None  # by the first protocol
    why: str = ""


@dataclass(frozen=True)
class ExperimentFiles:
    """The folders of an experiment's files."""

    states: Path
    data: Path
    out: Path
    weights: Path  # of LPIPS


def experiment_statuses(
    experiment: Experiment, files: ExperimentFiles, now: float
) -> Iterator[ExperimentStatus]:
    """Yield the status of an experiment, and one more for each training with other settings.

    Such trainings are those of a queue of `dvc exp run`. They are listed while they run.

    Args:
        now: in seconds since 1970.
    """
    # Until the data is packed, no training can have its settings.
    settings = current_settings(experiment, files)
    folder = state_folder(files.states.parents[1], experiment, settings) if settings else None

    # A training that runs holds the lock of its resume states.
    if folder and is_locked(folder):
        yield running_status(experiment, folder, now)
    else:
        yield idle_status(experiment, files, settings, folder)

    # Every other folder of states that is locked belongs to another training.
    for path in sorted(files.states.glob("*/")):
        if path != folder and is_locked(path):
            yield other_training_status(path, flatten(settings or {}), now)


def running_status(experiment: Experiment, folder: Path, now: float) -> ExperimentStatus:
    """Return the status of an experiment whose training runs with this folder of states."""
    progress = read_progress(folder)
    why = time_since_log(progress, now)
    return ExperimentStatus(experiment.name, "running", experiment.train.steps, progress, why=why)


def current_settings(experiment: Experiment, files: ExperimentFiles) -> dict[str, Any] | None:
    """Return the settings that a training would have now; None if its data is not packed."""
    # The settings include the digest of the data.
    manifest = files.data / "manifest.json"
    return training_config(experiment, sha256_of(manifest)) if manifest.is_file() else None


def idle_status(
    experiment: Experiment,
    files: ExperimentFiles,
    settings: dict[str, Any] | None,
    folder: Path | None,
) -> ExperimentStatus:
    """Return the status of an experiment whose training does not run.

    Args:
        settings: of the training; None if its data is not packed.
        folder: of the resume states; None if its data is not packed.
    """
    # A model of these settings needs no training.
    progress = read_progress(folder) if folder else Progress()
    status = ExperimentStatus(experiment.name, "not begun", experiment.train.steps, progress)
    obsolete = why_obsolete(files.out / "model.safetensors", settings)
    if obsolete == "":
        return trained_status(experiment, files, status)

    # There is no such model. A training that has begun goes on from its last saved state.
    if progress.step:
        why = f"goes on after step {progress.saved}"
        if obsolete:
            why += f"; {obsolete}"
        return replace(status, state="failed" if progress.failed else "stopped", why=why)
    if obsolete:
        return replace(status, state="stale", why=obsolete)
    return status if settings else replace(status, why="its data is not packed")


def why_obsolete(weights: Path, settings: dict[str, Any] | None) -> str | None:
    """Return why a model is not of these settings; "" if it is, None if there is no model."""
    try:
        model_settings = read_weights_header(weights)["config"]
    except FileNotFoundError:
        return None
    except (safetensors.SafetensorError, KeyError, TypeError):
        return f"{weights} is not readable: delete it"
    if settings is None:
        return "its data is not packed"
    changes = config_differences(settings, model_settings)
    return f"its model is of other settings: {shorten_list(changes)}" if changes else ""


def shorten_list(texts: Sequence[str]) -> str:
    """Return the first texts of a list in one line, and how many more there are."""
    # The digests of data say nothing to a person.
    words = [
        "other data" if text.startswith("data:") else text for text in texts[:MOST_DIFFERENCES]
    ]
    if len(texts) > MOST_DIFFERENCES:
        words.append(f"{len(texts) - MOST_DIFFERENCES} more")
    return "; ".join(words).replace("'", "")


def trained_status(
    experiment: Experiment, files: ExperimentFiles, status: ExperimentStatus
) -> ExperimentStatus:
    """Return the status of an experiment whose model is up to date: trained, done or stale."""
    training = read_result(files.out / "training.json", Training)
    progress = replace(status.progress, step=training.steps, best_psnr=training.validation_psnr)
    status = replace(status, state="trained", progress=progress)

    # It is done when it was evaluated and rendered.
    missing = [name for name in RESULTS if not (files.out / name).is_file()]
    if missing:
        status = replace(status, why=f"no {' and no '.join(missing)} yet")
    if "metrics.json" in missing:
        return status
    metrics = read_metrics(files.out / "metrics.json", experiment)
    status = replace(status, test_psnr=metrics.protocols[metrics.first_protocol].psnr)
    if evaluation_fingerprint(experiment, files) != metrics.fingerprint:
        return replace(status, state="stale", why="metrics.json is of another model or evaluation")
    return status if missing else replace(status, state="done")


def evaluation_fingerprint(experiment: Experiment, files: ExperimentFiles) -> str:
    """Return the fingerprint that metrics.json would have if the evaluation ran now."""
    # Without the weights of a network, its distance would not be measured.
    inputs = lpips_manifests(files.weights)
    inputs["model"] = files.out / "model.safetensors"
    inputs["data"] = files.data / "manifest.json"
    return metrics_header(experiment, "test", inputs).fingerprint


def read_progress(folder: Path) -> Progress:
    """Return how far the training with this folder of resume states is."""
    # The end of the log says more than the last saved state: how the last run ended, and the
    # newest steps.
    progress = saved_progress(folder)
    log = folder / "tracking"
    if not (log / "events.jsonl").is_file():
        return progress
    start = max(0, (log / "events.jsonl").stat().st_size - RECENT)
    events = [event for _, _, event in read_events(log, start)]
    endings = [event["status"] for event in events if "status" in event]
    progress = replace(progress, failed=endings[-1:] == ["FAILED"])
    steps = [event for event in events if "train/seconds" in event.get("metrics", {})]
    return add_logged_steps(progress, steps) if steps else progress


def saved_progress(folder: Path) -> Progress:
    """Return the progress at the last saved state; its speed is the mean of the whole training."""
    saved = latest_progress(folder)
    if not saved:
        return Progress()
    best = saved["best_psnr"] if saved["best_step"] else None
    speed = saved["seconds"] / saved["step"]
    return Progress(saved["step"], saved["step"], best_psnr=best, step_seconds=speed)


def add_logged_steps(progress: Progress, steps: Sequence[dict[str, Any]]) -> Progress:
    """Return the progress with the newest figures and the speed of now.

    Args:
        steps: the newest events of the run's log that have the figures of a step.
    """
    # A training that moved to another machine has another speed there than on the whole.
    first = steps[0]
    last = steps[-1]
    if first["step"] < last["step"]:
        seconds = last["metrics"]["train/seconds"] - first["metrics"]["train/seconds"]
        progress = replace(progress, step_seconds=seconds / (last["step"] - first["step"]))

    return replace(
        progress,
        step=max(progress.step, last["step"]),
        train_psnr=last["metrics"]["train/psnr"],
        logged=last["time"] / 1000,
    )


def other_training_status(folder: Path, settings: dict[str, str], now: float) -> ExperimentStatus:
    """Return the status of a training that runs with other settings than the experiment's.

    Args:
        folder: of its resume states.
        settings: the experiment's, by dotted name; empty if its data is not packed.
    """
    # A training that just began has not described its run yet.
    run_file = folder / "tracking" / "run.json"
    if not run_file.is_file():
        why = "with other settings; it just began"
        return ExperimentStatus(folder.parent.name, "running", 0, why=why)

    description = json.loads(run_file.read_text())
    parameters = description["parameters"]
    changes = shorten_list(differences(settings, parameters)) if settings else "unknown"
    progress = read_progress(folder)
    why = f"{time_since_log(progress, now)}; other settings: {changes}"
    steps = int(parameters["train.steps"])
    return ExperimentStatus(description["name"], "running", steps, progress, why=why)


def time_since_log(progress: Progress, now: float) -> str:
    """Return how long ago a running training logged a step: a long time means that it hangs."""
    if progress.logged is None:
        return "nothing logged yet"
    return f"logged {format_duration(max(0.0, now - progress.logged))} ago"
