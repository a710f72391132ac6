"""What train and evaluate wrote of every run -> result tables, figures, pages."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from os.path import relpath  # Path.relative_to goes up since Python 3.12 only
from pathlib import Path
from typing import Any

import numpy as np

from srt.checkpoint import load_weights
from srt.config import SPLITS, Experiment
from srt.cost_table import costs_table
from srt.errors import UserError
from srt.figures import PANELS, learning_curves, qualitative
from srt.files import write_atomically
from srt.params import load_experiment, load_params
from srt.pictures import write_picture
from srt.report import markdown, page, tables_page
from srt.shapes import UInt8
from srt.tables import Curve, Run, class_tables, result_rows, results_table
from srt.typesetting import to_csv, to_latex
from workflow.command import run
from workflow.runs import open_run

STAGES = {  # that write a file; the others are train's
    "metrics.json": "evaluate",
    "comparison.png": "evaluate",
    "costs.json": "evaluate",
    "statistics.json": "survey",
    "scenes.png": "survey",
    "cameras.png": "survey",
}
TIMEOUT = 60  # seconds in all that a tracking server may take

log = logging.getLogger(__name__)


def tabulate(
    *, profile: str, outputs: Path, surveys: Path, out: Path, params: Path = Path("params.yaml")
) -> None:
    """Writes the tables and figures of all experiments of params.yaml, in its order.

    Args:
        profile: of params.yaml.
        outputs: the folder that has a folder for each experiment.
        surveys: the folder that has a folder for each dataset, in the report's.
        out: the report's folder.
        params: the configuration.
    """
    known = load_params(params)
    names = list(known.experiments)
    runs = [read_run(outputs / name, profile) for name in names]
    pictures = [read_picture(outputs / name / "comparison.png") for name in names]
    rows = result_rows(runs)
    tables = [results_table(rows, profile), costs_table(runs), *class_tables(runs)]
    surveyed = [read_survey(surveys / name) for name in known.datasets]
    data = describe_data([load_experiment(params, name, profile) for name in names])
    folder = Path(relpath(outputs, out))

    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "curves.png", learning_curves(runs, profile))
    write_picture(out / "comparison.png", qualitative(runs, pictures, profile))
    texts = {
        "results.csv": to_csv(rows),
        "results.md": markdown(profile, data, tables, surveyed),
        "results.tex": "% Needs booktabs and adjustbox.\n" + "\n".join(map(to_latex, tables)),
        "index.html": page(profile, data, tables, surveyed, runs, folder),
        "tables.html": tables_page(profile, data, tables, surveyed),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    log.info("wrote %s", out / "index.html")
    for name in names:
        model = outputs / name / "model.safetensors"
        log_table(profile, name, model, out / "results.md", TIMEOUT / len(names))


def log_table(profile: str, experiment: str, model: Path, table: Path, timeout: float) -> None:
    """Adds the table to the run that trained a model; without the model here there is none.

    Args:
        timeout: seconds that are waited for a tracking server.
    """
    if model.exists():
        tracker = open_run("tabulate", profile, experiment, load_weights(model)[1])
        tracker.log_artifact(table, "report")
        tracker.close("FINISHED", timeout)


def read_run(folder: Path, profile: str) -> Run:
    """Returns what train and evaluate wrote; raises UserError for a file that is not theirs."""
    path = folder / "metrics.json"
    keys = ("experiment", "profile", "dataset", "synthetic", "split", "conditions", "costs")
    metrics = read_json(path, (*keys, "protocols"))
    for key, expected in (("experiment", folder.name), ("profile", profile)):
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
    return Run(metrics, training, history, costs)


def read_survey(folder: Path) -> dict[str, Any]:
    """Returns what survey wrote of a dataset."""
    for name in ("scenes.png", "cameras.png"):
        existing(folder / name)
    return read_json(folder / "statistics.json", ("dataset", "synthetic", "splits"))


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
        return {key: [(float(r["step"]), float(r[key])) for r in rows if r[key]] for key in PANELS}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


def read_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a PNG's pixels."""
    from PIL import Image

    try:
        return np.asarray(Image.open(existing(path)).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not readable ({error}); {remedy(path)}") from error


def existing(path: Path) -> Path:
    """Returns the path; raises UserError that names the stage that makes it."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {remedy(path)}")
    return path


def remedy(path: Path) -> str:
    """Returns what to run for an input of this stage."""
    stage = STAGES.get(path.name, "train")
    return f"run `python -m workflow.{stage}` for {path.parent.name} first"


def describe_data(experiments: Sequence[Experiment]) -> list[str]:
    """Returns a sentence for each dataset, so that nobody takes synthetic scenes for others."""
    sentences = {}
    for experiment in experiments:
        dataset = experiment.dataset
        if experiment.synthetic and dataset.synthetic:
            counts = [f"{getattr(dataset.synthetic, split)} {split}" for split in SPLITS]
            source = f"synthetic scenes in the published layout ({', '.join(counts)})"
        else:
            source = f"the data of {dataset.source}"
        size = " × ".join(map(str, dataset.image_size))
        sentences[experiment.dataset_name] = (
            f"{experiment.dataset_name}: {source}, {size} pixels, {dataset.views} views,"
            f" {dataset.input_views} of them given to the model."
        )
    return list(sentences.values())


if __name__ == "__main__":
    run(tabulate)
