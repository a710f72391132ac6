"""How far every experiment is: done, running, stopped, stale and why; its figures and time left.

From files alone. `--tool` also asks DVC or Snakemake what it would make: they know changes of code.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors

from srt.common.files import sha256_of
from srt.common.fingerprint import differences
from srt.config.load import load_experiments, load_params
from srt.config.schema import Experiment
from srt.model.weights import read_weights_header, training_config
from srt.report.format.numbers import EN_DASH, format_duration
from srt.tracking.outbox import flatten, read_events
from srt.training.states import is_locked, latest_progress, state_folder
from workflow.common.cli import run
from workflow.common.tracked_run import ROOT
from workflow.evaluate import metrics_header
from workflow.tools.adopt import Stages, stages_of, summary

RECENT = 200_000  # bytes of a run's log: some hundred lines, which tell its speed
NAMED = 3  # differences of a stale model
LPIPS = {"lpips": "lpips_vgg", "lpips_alex": "lpips_alex"}
RESULTS = ("metrics.json", "video.mp4")
AFTER = "what it is made of"
HEADER = ("experiment", "state", "step", "train", "validation", "test", "left", "why")


@dataclass(frozen=True)
class Progress:
    """How far a training came; None is what nothing tells."""

    step: int = 0  # the last that was saved or logged
    saved: int = 0
    train_psnr: float | None = None
    best_psnr: float | None = None  # of the validation set, at the last saved step
    step_seconds: float | None = None
    logged: float | None = None  # when, in seconds since 1970
    failed: bool = False


@dataclass(frozen=True)
class ExperimentStatus:
    """A line of the table: an experiment, or a training of it with other settings that runs."""

    name: str
    state: str
    steps: int  # of the whole training
    progress: Progress = Progress()
    test_psnr: float | None = None  # of the first protocol
    why: str = ""


@dataclass(frozen=True)
class Place:
    """An experiment's files."""

    states: Path
    data: Path
    out: Path
    weights: Path  # of LPIPS


def status(
    *,
    profile: str | None = None,
    tool: Literal["dvc", "snakemake"] | None = None,
    params: Path = Path("params.yaml"),
    states: Path = ROOT / "ckpt",
) -> None:
    """Prints a table of all experiments (PSNR in dB), and below it what a tool would make.

    Args:
        profile: of params.yaml; without, the one that it names.
        tool: to be asked what it would make, of its profile, and why.
        params: the configuration.
        states: the folder of resume states.
    """
    profile = profile or load_params(params).profile
    rows: list[ExperimentStatus] = []
    for experiment in load_experiments(params, profile):
        place = Place(
            states / profile / experiment.name,
            Path("data", profile, "packed", experiment.dataset_name),
            Path("outputs", profile, experiment.name),
            Path("data", profile, "weights"),
        )
        rows += experiment_statuses(experiment, place, time.time())
    print("\n".join([*table(rows), *(asked(tool) if tool else ())]))


def experiment_statuses(
    experiment: Experiment, place: Place, now: float
) -> Iterator[ExperimentStatus]:
    """Yields how an experiment stands, and what of it runs with other settings, as a queue's does.

    Args:
        now: in seconds since 1970.
    """
    manifest = place.data / "manifest.json"
    wanted = training_config(experiment, sha256_of(manifest)) if manifest.is_file() else None
    folder = state_folder(place.states.parents[1], experiment, wanted) if wanted else None
    if folder and is_locked(folder):
        progress = read_progress(folder)
        yield ExperimentStatus(
            experiment.name, "running", experiment.train.steps, progress, why=age(progress, now)
        )
    else:
        yield experiment_status(experiment, place, wanted, folder)
    for other in sorted(place.states.glob("*/")):
        if other != folder and is_locked(other):
            yield other_settings(other, flatten(wanted or {}), now)


def experiment_status(
    experiment: Experiment, place: Place, wanted: dict[str, Any] | None, folder: Path | None
) -> ExperimentStatus:
    """Returns how an experiment that does not run stands.

    Args:
        wanted: what a training would depend on, if its data is there.
        folder: of its resume states.
    """
    progress = read_progress(folder) if folder else Progress()
    line = ExperimentStatus(experiment.name, "not begun", experiment.train.steps, progress)
    obsolete = why_obsolete(place.out / "model.safetensors", wanted)
    if obsolete == "":
        return measured(experiment, place, line)
    if progress.step:
        again = "failed" if progress.failed else "stopped"
        why = f"goes on after step {progress.saved}" + (f"; {obsolete}" if obsolete else "")
        return replace(line, state=again, why=why)
    if obsolete:
        return replace(line, state="stale", why=obsolete)
    return line if wanted else replace(line, why="its data is not packed")


def why_obsolete(weights: Path, wanted: dict[str, Any] | None) -> str | None:
    """Returns why a model is not that of these settings: "" if it is, None if there is no model."""
    try:
        there = read_weights_header(weights)["config"]
    except FileNotFoundError:
        return None
    except (safetensors.SafetensorError, KeyError, TypeError):
        return f"{weights} is not readable: delete it"
    if wanted is None:
        return "its data is not packed"
    found = differences(wanted, there)
    return f"its model is of other settings: {few(found)}" if found else ""


def few(found: Sequence[str]) -> str:
    """Returns some differences from the settings of now, in a line."""
    shown = ["other data" if line.startswith("data:") else line for line in found[:NAMED]]
    shown += [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
    return "; ".join(shown).replace("'", "")


def measured(experiment: Experiment, place: Place, line: ExperimentStatus) -> ExperimentStatus:
    """Returns the line of an experiment whose model is as it should be."""
    training = json.loads((place.out / "training.json").read_text())
    progress = replace(line.progress, step=training["steps"], best_psnr=training["validation_psnr"])
    line = replace(line, state="trained", progress=progress)
    if missing := [name for name in RESULTS if not (place.out / name).is_file()]:
        line = replace(line, why=f"no {' and no '.join(missing)} yet")
    if "metrics.json" in missing:
        return line
    metrics = json.loads((place.out / "metrics.json").read_text())
    line = replace(line, test_psnr=next(iter(metrics["protocols"].values()))["psnr"])
    manifests = {name: place.weights / LPIPS[name] / "manifest.json" for name in LPIPS}
    files = {name: path if path.is_file() else None for name, path in manifests.items()}
    files |= {"model": place.out / "model.safetensors", "data": place.data / "manifest.json"}
    if metrics_header(experiment, "test", files)["fingerprint"] != metrics["fingerprint"]:
        return replace(line, state="stale", why="metrics.json is of another model or evaluation")
    return line if missing else replace(line, state="done")


def read_progress(folder: Path) -> Progress:
    """Returns how far a training came that has this folder of states: as it saved and logged."""
    saved = latest_progress(folder)
    progress = Progress()
    if saved:
        best = saved["best_psnr"] if saved["best_step"] else None
        speed = saved["seconds"] / saved["step"]
        progress = Progress(saved["step"], saved["step"], best_psnr=best, step_seconds=speed)
    log = folder / "tracking"
    if not (log / "events.jsonl").is_file():
        return progress
    recent = max(0, (log / "events.jsonl").stat().st_size - RECENT)
    events = [event for _, _, event in read_events(log, recent)]
    endings = [event["status"] for event in events if "status" in event]
    progress = replace(progress, failed=endings[-1:] == ["FAILED"])
    steps = [event for event in events if "train/seconds" in event.get("metrics", {})]
    if not steps:
        return progress
    first, last = steps[0], steps[-1]
    if first["step"] < last["step"]:
        seconds = last["metrics"]["train/seconds"] - first["metrics"]["train/seconds"]
        progress = replace(progress, step_seconds=seconds / (last["step"] - first["step"]))
    return replace(
        progress,
        step=max(progress.step, last["step"]),
        train_psnr=last["metrics"]["train/psnr"],
        logged=last["time"] / 1000,
    )


def other_settings(folder: Path, wanted: dict[str, str], now: float) -> ExperimentStatus:
    """Returns the line of a training that runs in this folder, with other settings than wanted."""
    log = folder / "tracking" / "run.json"
    if not log.is_file():
        return ExperimentStatus(
            folder.parent.name, "running", 0, why="with other settings; it just began"
        )
    described, progress = json.loads(log.read_text()), read_progress(folder)
    steps = int(described["parameters"]["train.steps"])
    other = few(differences(wanted, described["parameters"])) if wanted else "unknown"
    why = f"{age(progress, now)}; other settings: {other}"
    return ExperimentStatus(described["name"], "running", steps, progress, why=why)


def age(progress: Progress, now: float) -> str:
    """Returns when a running training was last heard of: one that hangs shows here."""
    if progress.logged is None:
        return "nothing logged yet"
    return f"logged {format_duration(max(0.0, now - progress.logged))} ago"


def table(rows: Sequence[ExperimentStatus]) -> list[str]:
    """Returns the lines of a table for a terminal."""
    cells = [HEADER, *(cells_of(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    ]


def cells_of(row: ExperimentStatus) -> tuple[str, ...]:
    """Returns what the table says of an experiment."""
    progress = row.progress
    figures = (progress.train_psnr, progress.best_psnr, row.test_psnr)
    step = f"{progress.step} of {row.steps}" if progress.step else EN_DASH
    left = EN_DASH
    if row.state in ("running", "stopped", "failed") and progress.step_seconds is not None:
        left = format_duration((row.steps - progress.step) * progress.step_seconds)
    psnrs = (EN_DASH if figure is None else f"{figure:.2f}" for figure in figures)
    return (row.name, row.state, step, *psnrs, left, row.why)


def asked(tool: Literal["dvc", "snakemake"]) -> list[str]:
    """Returns a line for each stage that a tool would make, and why."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo(".") as repo:
        stages = stages_of(repo)
        why = why_dvc(repo.status()) if tool == "dvc" else why_snakemake(stages)
    for name in sorted(stages.outputs, key=lambda name: len(stages.ancestors[name])):
        if name not in why and stages.ancestors[name].intersection(why):
            why[name] = [AFTER]
    lines = [f"  {name}: {few(reasons)}" for name, reasons in why.items()]
    return ["", f"{tool} would make" if lines else f"{tool} has nothing to make", *lines]


def why_dvc(status: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Returns why DVC would make each stage, in its own words.

    Args:
        status: by stage, its reasons: a text, or `{"changed deps": {path: "modified"}}`.
    """
    why: dict[str, list[str]] = {}
    for name, reasons in status.items():
        why[name] = [reason for reason in reasons if isinstance(reason, str)]
        for reason in reasons:
            if isinstance(reason, Mapping):
                parts = flatten(
                    {path: how for part in reason.values() for path, how in part.items()}
                )
                why[name] += [f"{path} {how}" for path, how in parts.items()]
    return why


def why_snakemake(stages: Stages) -> dict[str, list[str]]:
    """Returns the same of Snakemake."""
    pending = {row["output_file"]: row for row in summary() if row["plan"] != "no update"}
    why = {}
    for name, files in stages.outputs.items():
        said = {pending[file]["status"] for file in files if file in pending}
        if said:
            why[name] = sorted(said - {"ok"}) or [AFTER]
    return why


if __name__ == "__main__":
    run(status)
