"""Read the files that stages wrote about runs and datasets, and check them.

A file that is missing, damaged or of another run is refused. The message says which stage to run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from srt.common.errors import DataError, UserError
from srt.config.schema import SPLITS, Experiment
from srt.results.record_files import NewerFormatError, read_record
from srt.results.record_tables import History, read_history
from srt.results.records import Metrics, ModelTimes, Survey, Training
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

Record = TypeVar("Record")


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
    seed = repeat.training.seed
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
        if getattr(repeat.training, key) != getattr(run.training, key):
            raise UserError(
                f"{where}: its {key} is not that of {run_where}; train both with the same settings"
            )
    if measurement(repeat) != measurement(run):
        raise UserError(
            f"{where}: not measured as {run_where} was; evaluate both with the same options"
        )


def measurement(run: Run) -> object:
    """Return on which items and under which conditions a run was measured."""
    # Two means compare only if they are over the same items.
    items = {
        protocol: (scores.items, scores.total_items)
        for protocol, scores in run.metrics.protocols.items()
    }
    return run.metrics.split, run.metrics.conditions, items


def read_figures(folder: Path, experiment: Experiment) -> Run:
    """Return what train and evaluate wrote, without the pictures."""
    metrics = read_metrics(folder / "metrics.json", experiment)

    costs = read_result(folder / "costs.json", ModelTimes)
    training = read_training(folder / "training.json")

    # The report marks the best step in the learning curve, so the curve must have it.
    path = folder / "history.csv"
    history = read_curve(path)
    if training.best_step not in dict(history.validation_psnr):
        raise UserError(f"{path}: no validation at best_step {training.best_step}; {remedy(path)}")

    validation_items = experiment.train.validation_items
    return Run(metrics, training, history, costs, experiment.model.name, validation_items)


def read_metrics(path: Path, experiment: Experiment) -> Metrics:
    """Return metrics.json, which must be of this experiment and profile."""
    metrics = read_result(path, Metrics)
    for key, value, expected in (
        ("experiment", metrics.experiment, experiment.name),
        ("profile", metrics.profile, experiment.profile),
    ):
        if value != expected:
            raise UserError(f"{path}: {key} is {value}, not {expected}; {remedy(path)}")
    if not metrics.protocols:
        raise UserError(f"{path}: protocols: nothing was measured; {remedy(path)}")
    return metrics


def read_training(path: Path) -> Training:
    """Return training.json. Tables divide by its steps and seconds, so neither may be 0."""
    training = read_result(path, Training)
    for key, value in (("steps", training.steps), ("seconds", training.seconds)):
        if value <= 0:
            raise UserError(f"{path}: {key}: {value} is not positive; {remedy(path)}")
    return training


def read_survey(folder: Path) -> Survey:
    """Return what survey wrote about a dataset."""
    for name in ("scenes.png", "cameras.png"):
        check_picture(folder / name)
    path = folder / "statistics.json"
    survey = read_result(path, Survey)
    if tuple(survey.splits) != SPLITS:
        splits = ", ".join(survey.splits)
        raise UserError(f"{path}: splits: {splits} are not {', '.join(SPLITS)}; {remedy(path)}")
    return survey


def read_result(path: Path, kind: type[Record]) -> Record:
    """Return a stage's JSON file as a record of this class.

    Raises:
        UserError: the file is missing or damaged; the text says which stage to run.
    """
    try:
        return read_record(path, kind)
    except NewerFormatError:
        raise
    except DataError as error:
        raise UserError(f"{error}; {remedy(path)}") from error


def read_curve(path: Path) -> History:
    """Return the content of history.csv; if it is missing or damaged, name the stage to run."""
    try:
        return read_history(path)
    except DataError as error:
        raise UserError(f"{error}; {remedy(path)}") from error


def read_few_cameras(folder: Path) -> dict[str, Any]:
    """Return what `benchmarks.camera_overfitting` wrote, and check that its figure is there."""
    check_picture(folder / BY_ANGLE)
    return read_json(folder / "results.json", ("angle_edges", "runs", "baselines"))


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return the content of a benchmark's file, which must have these keys."""
    check_exists(path)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        return values | {key: values[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


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
