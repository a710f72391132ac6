"""Reads what stages wrote of runs and datasets; refuses what is not theirs, and names the stage."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srt.common.errors import UserError
from srt.config.schema import Experiment
from srt.report.figures import CURVES
from srt.results.curves import Curve
from srt.results.runs import Run

FIGURES = ("metrics.json", "costs.json", "training.json", "history.csv")
VIDEO = "video.mp4"
KEPT = (*FIGURES, "comparison.png", "extremes.png", VIDEO)  # of a run, beside the report
BY_ANGLE = "psnr_by_angle.png"
PICTURES = ("comparison.png", "extremes.png", "scenes.png", "cameras.png")
STAGES = {  # that write a file; the others are train's
    "metrics.json": "evaluate",
    "comparison.png": "evaluate",
    "extremes.png": "evaluate",
    "costs.json": "evaluate",
    VIDEO: "render",
    "statistics.json": "survey",
    "scenes.png": "survey",
    "cameras.png": "survey",
}


def was_measured(folder: Path) -> bool:
    """Says whether an experiment has been trained and evaluated."""
    return (folder / "metrics.json").is_file()


def read_run(folder: Path, plan: Experiment, partial: bool = False) -> Run:
    """Returns what train and evaluate wrote; raises UserError for a file that is not theirs.

    Args:
        partial: its video may be missing.
        folder: named as the experiment; `seeds/1` in it has what was trained from seed 1.
        plan: what params.yaml says of it.
    """
    for name in KEPT:
        if partial and name == VIDEO:
            continue
        check_picture(folder / name) if name in PICTURES else existing(folder / name)
    repeats = tuple(read_repeat(path, folder, plan) for path in repeats_of(folder))
    return dataclasses.replace(read_figures(folder, plan), repeats=repeats)


def repeats_of(folder: Path) -> list[Path]:
    """Returns the folders of a run's other seeds."""
    return sorted((folder / "seeds").glob("*"), key=lambda path: (len(path.name), path.name))


def read_repeat(folder: Path, run: Path, plan: Experiment) -> Run:
    """Returns the figures of another seed; raises UserError where more differs from the run."""
    repeat, first = read_figures(folder, plan), read_figures(run, plan)
    seed = repeat.training.get("seed")
    if str(seed) != folder.name or seed == plan.seed:
        raise UserError(
            f"{folder}: trained from seed {seed}, and {run} from {plan.seed}; train it with"
            f" `--seed {folder.name} --out {folder}`, where the folder names another seed"
        )
    for key in ("steps", "but_for_seed"):
        if repeat.training.get(key) != first.training.get(key):
            raise UserError(f"{folder}: its {key} is not that of {run}; train both alike")
    if measured(repeat) != measured(first):
        raise UserError(f"{folder}: not measured as {run} was; evaluate both alike")
    return repeat


def measured(run: Run) -> dict[str, Any]:
    """Returns what a run was measured on."""
    items = {
        protocol: (figures["items"], figures["of"])
        for protocol, figures in run.metrics["protocols"].items()
    }
    return {key: run.metrics[key] for key in ("split", "conditions")} | items


def read_figures(folder: Path, plan: Experiment) -> Run:
    """Returns what train and evaluate wrote, without the pictures."""
    path = folder / "metrics.json"
    keys = ("experiment", "profile", "dataset", "synthetic", "split", "conditions", "costs")
    metrics = read_json(path, (*keys, "protocols"))
    for key, expected in (("experiment", plan.name), ("profile", plan.profile)):
        if metrics[key] != expected:
            raise UserError(f"{path}: {key} is {metrics[key]}, not {expected}; {remedy(path)}")
    costs = read_json(folder / "costs.json", ("encode_seconds", "frame_seconds", "hardware"))
    training = read_json(folder / "training.json", ("steps", "best_step", "seconds", "hardware"))
    history = read_history(folder / "history.csv")
    if training["best_step"] not in dict(history["validation_psnr"]):
        path = folder / "history.csv"
        raise UserError(
            f"{path}: no validation at best_step {training['best_step']}; {remedy(path)}"
        )
    return Run(metrics, training, history, costs, plan.model.name, plan.train.validation_items)


def read_survey(folder: Path) -> dict[str, Any]:
    """Returns what survey wrote of a dataset."""
    for name in ("scenes.png", "cameras.png"):
        check_picture(folder / name)
    return read_json(folder / "statistics.json", ("dataset", "synthetic", "splits"))


def read_few_cameras(folder: Path) -> dict[str, Any]:
    """Returns what `benchmarks.camera_overfitting` wrote; its figure is there too."""
    check_picture(folder / BY_ANGLE)
    return read_json(folder / "results.json", ("angle_edges", "runs", "baselines"))


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Returns a stage's file, which must have these keys."""
    try:
        values: dict[str, Any] = json.loads(existing(path).read_text())
        return values | {key: values[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


def read_history(path: Path) -> dict[str, Curve]:
    """Returns each PSNR column's steps and values, where it has a value."""
    rows = list(csv.DictReader(existing(path).read_text().splitlines()))
    try:
        return {key: [(float(r["step"]), float(r[key])) for r in rows if r[key]] for key in CURVES}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


def check_picture(path: Path) -> None:
    """Raises UserError that names the stage, where a PNG is missing or cannot be read."""
    from PIL import Image

    try:
        Image.open(existing(path)).load()
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not readable ({error}); {remedy(path)}") from error


def existing(path: Path) -> Path:
    """Returns the path; raises UserError that names the stage that makes it."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {remedy(path)}")
    return path


def remedy(path: Path) -> str:
    """Returns what to run for an input of this stage."""
    if path.parent.name == "performance":
        return f"run `python -m benchmarks.training --out {path}` on a GPU first"
    if path.parent.name == "camera_overfitting":
        return f"run `python -m benchmarks.camera_overfitting --out {path.parent}` on a GPU first"
    stage = STAGES.get(path.name, "train")
    seed = path.parents[1].name == "seeds"
    name = f"{path.parents[2].name}, seed {path.parent.name}," if seed else path.parent.name
    return f"run `python -m workflow.{stage}` for {name} first"
