"""What train, evaluate and render wrote of every run -> tables, figures and a page.

The small files that these are made of are kept beside them, in `runs`, and are committed with them:
`make reports` makes the report again from there, byte for byte.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srt.checkpoint import load_weights
from srt.class_tables import class_tables
from srt.config import SPLITS, Experiment
from srt.cost_table import costs_table
from srt.equal_cost_table import equal_cost_table
from srt.errors import UserError
from srt.few_cameras import few_cameras_table
from srt.files import write_atomically
from srt.learning import Curve
from srt.params import load_experiments, load_params
from srt.pictures import write_picture
from srt.report import Report, markdown, page
from srt.reproduction import (
    class_table,
    reproduction_page,
    reproduction_rows,
    reproduction_table,
)
from srt.run_figures import CURVES, class_bars, learning_curves, quality_by_compute
from srt.runs import Run
from srt.tables import Row, result_rows, results_table
from srt.teaser import write_teaser
from srt.typesetting import to_csv, to_latex
from workflow.command import run
from workflow.runs import open_run

KEPT = (  # of a run, beside the report
    "metrics.json",
    "costs.json",
    "training.json",
    "history.csv",
    "comparison.png",
    "extremes.png",
    "video.mp4",
)
PICTURES = ("comparison.png", "extremes.png", "scenes.png", "cameras.png")
STAGES = {  # that write a file; the others are train's
    "metrics.json": "evaluate",
    "comparison.png": "evaluate",
    "extremes.png": "evaluate",
    "costs.json": "evaluate",
    "video.mp4": "render",
    "statistics.json": "survey",
    "scenes.png": "survey",
    "cameras.png": "survey",
}
LATEX = "% Needs booktabs and adjustbox.\n"
PUBLISHED_SCALE = "paper"  # the profile that the cost of a reproduction is reckoned of
TEASERS = 2  # videos in the teaser, of different datasets
TIMEOUT = 60  # seconds in all that a tracking server may take

log = logging.getLogger(__name__)


def tabulate(
    *,
    profile: str,
    outputs: Path,
    surveys: Path,
    performance: Path,
    few_cameras: Path,
    out: Path,
    params: Path = Path("params.yaml"),
) -> None:
    """Writes the tables and figures of all experiments of params.yaml, in its order.

    Args:
        profile: of params.yaml.
        outputs: the folder that has a folder for each experiment: `runs` of a report too.
        surveys: the folder that has a folder for each dataset, in the report's.
        performance: what a step takes at the published scale, from `benchmarks.training`.
        few_cameras: the folder that `benchmarks.camera_overfitting` wrote.
        out: the report's folder.
        params: the configuration.
    """
    known = load_params(params)
    names = list(known.experiments)
    planned = load_experiments(params, profile)
    runs = [read_run(outputs / plan.name, plan) for plan in planned]
    surveyed = [read_survey(surveys / name) for name in known.datasets]
    scale = profile if not all(run.metrics["synthetic"] for run in runs) else PUBLISHED_SCALE
    rows, plans = result_rows(runs), load_experiments(params, scale)
    reproduced = reproduction_rows(runs, plans, read_json(performance, ("device", "rows")))
    limit = read_json(few_cameras / "results.json", ("angle_edges", "runs", "baselines"))
    check_picture(few_cameras / "psnr_by_angle.png")
    report = Report(
        profile=profile,
        data=describe_data(planned),
        results=results_table(rows, profile),
        equal=equal_cost_table(runs, profile),
        costs=costs_table(runs),
        classes=class_tables(runs),
        few_cameras=few_cameras_table(limit),
        reproduction=[reproduction_table(reproduced), class_table(reproduced)],
        surveys=surveyed,
        runs=runs,
    )
    keep(outputs, out / "runs", names)
    write(report, rows, reproduced, few_cameras / "psnr_by_angle.png", out)
    write_teaser(
        out / "teaser.gif",
        [out / "runs" / name / "video.mp4" for name in telling(rows)],
        planned[0].render.frames,
    )
    log.info("wrote %s", out / "index.html")
    for name in names:
        model = outputs / name / "model.safetensors"
        log_table(profile, name, model, out / "results.md", TIMEOUT / len(names))


def write(
    report: Report, rows: Sequence[Row], reproduced: Sequence[Row], by_angle: Path, out: Path
) -> None:
    """Writes the figures and the texts, the page last: it holds the figures."""
    runs, profile = report.runs, report.profile
    write_picture(out / "curves.png", learning_curves(runs, profile))
    write_picture(out / "compute.png", quality_by_compute(runs, profile))
    write_picture(out / "classes.png", class_bars(runs, profile))
    texts = {
        "results.csv": to_csv(rows),
        "results.md": markdown(report),
        "results.tex": LATEX + "\n".join(map(to_latex, report.tables)),
        "reproduction.csv": to_csv(reproduced),
        "reproduction.md": reproduction_page(report.reproduction),
        "reproduction.tex": LATEX + "\n".join(map(to_latex, report.reproduction)),
        "index.html": page(report, out, by_angle),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())


def keep(outputs: Path, runs: Path, names: Sequence[str]) -> None:
    """Copies what a report is made of to beside it."""
    for name in names:
        (runs / name).mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            write_atomically(runs / name / file, (outputs / name / file).read_bytes())


def telling(rows: Sequence[Row]) -> list[str]:
    """Returns the runs of the teaser: of each dataset the one that gains most, the best first."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row["gain_psnr"]):
        best.setdefault(row["dataset"], row)
    return [row["run"] for row in best.values()][:TEASERS]


def log_table(profile: str, experiment: str, model: Path, table: Path, timeout: float) -> None:
    """Adds the table to the run that trained a model; without the model here there is none.

    Args:
        timeout: seconds that are waited for a tracking server.
    """
    if model.exists():
        tracker = open_run("tabulate", profile, experiment, load_weights(model)[1])
        tracker.log_artifact(table, "report")
        tracker.close("FINISHED", timeout)


def read_run(folder: Path, plan: Experiment) -> Run:
    """Returns what train and evaluate wrote; raises UserError for a file that is not theirs.

    Args:
        plan: what params.yaml says of it.
    """
    for name in KEPT:
        check_picture(folder / name) if name in PICTURES else existing(folder / name)
    path = folder / "metrics.json"
    keys = ("experiment", "profile", "dataset", "synthetic", "split", "conditions", "costs")
    metrics = read_json(path, (*keys, "protocols"))
    for key, expected in (("experiment", folder.name), ("profile", plan.profile)):
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
