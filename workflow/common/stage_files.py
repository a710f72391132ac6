"""Read the files that stages wrote about runs and datasets, and check them.

A file that is missing, damaged or of another run is refused. The message says which stage to run.
"""

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

# The small files of a run. A report keeps copies of all of them, and of a repeat with another seed
# only the figures.
FIGURES = ("metrics.json", "costs.json", "training.json", "history.csv")
VIDEO = "video.mp4"
RUN_FILES = (*FIGURES, "comparison.png", "extremes.png", VIDEO)
BY_ANGLE = "psnr_by_angle.png"
PICTURES = ("comparison.png", "extremes.png", "scenes.png", "cameras.png")

# The stage that writes a file. All other files are written by train.
STAGES = {
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
    """Return whether an experiment has been trained and evaluated."""
    return (folder / "metrics.json").is_file()


def read_run(
    folder: Path, experiment: Experiment, seeds: Sequence[Path] = (), partial: bool = False
) -> Run:
    """Return what train and evaluate wrote, with the repeats from other seeds.

    Args:
        folder: has the experiment's name.
        experiment: what params.yaml says about it.
        seeds: the folders of the repeats; each is named after its seed.
        partial: the video may be missing.

    Raises:
        UserError: a file is missing, cannot be read, or is of another experiment.
    """
    check_files(folder, partial)
    run = read_figures(folder, experiment)
    repeats = [read_repeat(path, folder, experiment) for path in seeds]
    return dataclasses.replace(run, repeats=tuple(repeats))


def check_files(folder: Path, partial: bool) -> None:
    """Check that all files of a run that the report copies are there and complete."""
    for name in RUN_FILES:
        if name in PICTURES:
            check_picture(folder / name)
        elif not (partial and name == VIDEO):
            check_exists(folder / name)


def seed_folders(folder: Path) -> list[Path]:
    """Return the folders of other seeds in a folder, in the order of the seeds."""
    # Shorter names first: 2 comes before 10.
    return sorted(folder.glob("*"), key=lambda path: (len(path.name), path.name))


def read_repeat(folder: Path, run_folder: Path, experiment: Experiment) -> Run:
    """Return the figures of another seed.

    Raises:
        UserError: more than the seed differs from the run, so the two cannot be compared.
    """
    repeat = read_figures(folder, experiment)
    run = read_figures(run_folder, experiment)

    # The folder's name is the seed.
    seed = repeat.training.get("seed")
    if str(seed) != folder.name or seed == experiment.seed:
        raise UserError(
            f"{folder}: trained from seed {seed}, and {run_folder} from {experiment.seed}; train it"
            f" with `--seed {folder.name} --out {folder}`, where the folder names another seed"
        )

    # Nothing else may differ.
    refuse_other_settings(repeat, run, f"{folder}", f"{run_folder}")
    return repeat


def refuse_other_settings(repeat: Run, run: Run, where: str, run_where: str) -> None:
    """Raise UserError if a repeat was trained or measured with other settings than its run.

    Args:
        where, run_where: the folders of the repeat and of the run.
    """
    # `but_for_seed` is the fingerprint of all settings but the seed.
    for key in ("steps", "but_for_seed"):
        if repeat.training.get(key) != run.training.get(key):
            raise UserError(
                f"{where}: its {key} is not that of {run_where}; train both with the same settings"
            )
    if measurement(repeat) != measurement(run):
        raise UserError(
            f"{where}: not measured as {run_where} was; evaluate both with the same options"
        )


def measurement(run: Run) -> dict[str, Any]:
    """Return on which items and under which conditions a run was measured."""
    # Two means compare only if they are over the same items.
    items = {
        protocol: (figures["items"], figures["of"])
        for protocol, figures in run.metrics["protocols"].items()
    }
    return {key: run.metrics[key] for key in ("split", "conditions")} | items


def read_figures(folder: Path, experiment: Experiment) -> Run:
    """Return what train and evaluate wrote, without the pictures."""
    metrics = read_metrics(folder / "metrics.json", experiment)

    # The report marks the best step in the learning curve, so the curve must have it.
    costs = read_json(folder / "costs.json", ("encode_seconds", "frame_seconds", "hardware"))
    training = read_json(folder / "training.json", ("steps", "best_step", "seconds", "hardware"))
    path = folder / "history.csv"
    history = read_history(path)
    if training["best_step"] not in dict(history["validation_psnr"]):
        raise UserError(
            f"{path}: no validation at best_step {training['best_step']}; {remedy(path)}"
        )

    validation_items = experiment.train.validation_items
    return Run(metrics, training, history, costs, experiment.model.name, validation_items)


def read_metrics(path: Path, experiment: Experiment) -> dict[str, Any]:
    """Return metrics.json, which must be of this experiment and profile."""
    keys = ("experiment", "profile", "dataset", "synthetic", "split", "conditions", "costs")
    metrics = read_json(path, (*keys, "protocols"))
    for key, expected in (("experiment", experiment.name), ("profile", experiment.profile)):
        if metrics[key] != expected:
            raise UserError(f"{path}: {key} is {metrics[key]}, not {expected}; {remedy(path)}")
    return metrics


def read_survey(folder: Path) -> dict[str, Any]:
    """Return what survey wrote about a dataset."""
    for name in ("scenes.png", "cameras.png"):
        check_picture(folder / name)
    return read_json(folder / "statistics.json", ("dataset", "synthetic", "splits"))


def read_few_cameras(folder: Path) -> dict[str, Any]:
    """Return what `benchmarks.camera_overfitting` wrote, and check that its figure is there."""
    check_picture(folder / BY_ANGLE)
    return read_json(folder / "results.json", ("angle_edges", "runs", "baselines"))


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return the content of a stage's file, which must have these keys."""
    check_exists(path)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        return values | {key: values[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


def read_history(path: Path) -> dict[str, Curve]:
    """Return the steps and values of each PSNR column, for the steps that have a value."""
    # Not every step has a validation; its cell is empty then.
    check_exists(path)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    curves = {}
    try:
        for key in CURVES:
            curves[key] = [(float(row["step"]), float(row[key])) for row in rows if row[key]]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error
    return curves


def check_picture(path: Path) -> None:
    """Raise UserError that names the stage, if a PNG is missing or cannot be read."""
    from PIL import Image

    # PIL reads the pixels only on `load`, and so finds a file that was cut off.
    check_exists(path)
    try:
        Image.open(path).load()
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not readable ({error}); {remedy(path)}") from error


def check_exists(path: Path) -> None:
    """Raise UserError that names the stage, if a file is missing."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {remedy(path)}")


def remedy(path: Path) -> str:
    """Return which command writes a file, as the end of an error message."""
    # Two inputs of the report come from benchmarks.
    if path.parent.name == "performance":
        return f"run `python -m benchmarks.training --out {path}` on a GPU first"
    if path.parent.name == "camera_overfitting":
        return f"run `python -m benchmarks.camera_overfitting --out {path.parent}` on a GPU first"

    # All others come from a stage, for a run, for one of its seeds, or for a dataset.
    stage = STAGES.get(path.name, "train")
    name = path.parent.name
    if path.parents[1].name == "seeds":
        name = f"{path.parents[2].name}, seed {path.parent.name},"
    return f"run `python -m workflow.{stage}` for {name} first"
