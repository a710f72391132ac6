"""What train, evaluate and render wrote of every run -> tables, figures and a page.

The small files that these are made of are kept beside them, in `runs`, and are committed with them:
`make reports` makes the report again from there, byte for byte.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from srt.common.errors import UserError
from srt.common.files import write_atomically
from srt.config.load import load_experiments, load_params
from srt.config.schema import SPLITS, Experiment
from srt.model.weights import load_weights
from srt.rendering.teaser import write_teaser
from srt.report.figures import class_bars, learning_curves, quality_by_compute
from srt.report.format.latex import PREAMBLE, to_latex
from srt.report.format.table import Table, to_csv
from srt.report.page import Report, markdown, page
from srt.report.tables.classes import class_tables
from srt.report.tables.costs import costs_table
from srt.report.tables.equal_cost import equal_cost_table
from srt.report.tables.few_cameras import few_cameras_table
from srt.report.tables.reproduction import (
    class_table,
    reproduction_page,
    reproduction_rows,
    reproduction_table,
)
from srt.report.tables.results import Row, result_rows, results_table
from srt.report.tables.seeds import seeds_table
from srt.visualization.pictures import write_picture
from workflow.common.cli import run
from workflow.common.stage_files import (
    BY_ANGLE,
    FIGURES,
    KEPT,
    VIDEO,
    read_few_cameras,
    read_json,
    read_run,
    read_survey,
    repeats_of,
    was_measured,
)
from workflow.common.tracked_run import open_run

PUBLISHED_SCALE = "paper"  # the profile that the cost of a reproduction is reckoned of
TEASERS = 2  # videos in the teaser, of different datasets
TIMEOUT = 60  # seconds in all that a tracking server may take
REMARKS = "remarks.txt"  # on runs, beside them

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
    partial: bool = False,
) -> None:
    """Writes the tables and figures of all experiments of params.yaml, in its order.

    Args:
        profile: of params.yaml.
        outputs: the folder that has a folder for each experiment: `runs` of a report too. What a
            reader must know of these runs stands in remarks.txt there, a line each, if anything.
        surveys: the folder that has a folder for each dataset, in the report's.
        performance: what a step takes at the published scale, from `benchmarks.training`.
        few_cameras: the folder that `benchmarks.camera_overfitting` wrote.
        out: the report's folder.
        params: the configuration.
        partial: leave out experiments that have not been measured, and videos that are not there.
    """
    planned, left_out = load_experiments(params, profile), []
    if partial:
        left_out = [plan.name for plan in planned if not was_measured(outputs / plan.name)]
        planned = [plan for plan in planned if plan.name not in left_out]
    if not planned:
        raise UserError(f"{outputs}: no experiment of profile {profile} has been measured")
    names = [plan.name for plan in planned]
    runs = [read_run(outputs / plan.name, plan, partial) for plan in planned]
    shown = {plan.dataset_name for plan in planned}
    datasets = [name for name in load_params(params).datasets if name in shown or not partial]
    surveyed = [read_survey(surveys / name) for name in datasets]
    scale = profile if not all(run.metrics["synthetic"] for run in runs) else PUBLISHED_SCALE
    rows, plans = result_rows(runs), load_experiments(params, scale)
    reproduced = reproduction_rows(runs, plans, read_json(performance, ("device", "rows")))
    equal, told = equal_cost_table(runs, profile), remarks(outputs)
    report = Report(
        profile=profile,
        data=[*describe_data(planned), *describe_missing(left_out)],
        results=with_notes(results_table(rows, profile), told),
        equal=with_notes(equal, told) if equal else None,
        seeds=seeds_table(runs, profile),
        costs=costs_table(runs),
        classes=class_tables(runs),
        few_cameras=few_cameras_table(read_few_cameras(few_cameras)),
        by_angle=few_cameras / BY_ANGLE,
        reproduction=[reproduction_table(reproduced), class_table(reproduced)],
        surveys=surveyed,
        runs=runs,
    )
    archive_inputs(outputs, out / "runs", names)
    write(report, rows, reproduced, out)
    videos = [out / "runs" / name / VIDEO for name in telling(rows)]
    if videos := [video for video in videos if video.is_file()]:
        write_teaser(out / "teaser.gif", videos, planned[0].render.frames)
    log.info("wrote %s", out / "index.html")
    for name in names:
        model = outputs / name / "model.safetensors"
        log_table(profile, name, model, out / "results.md", TIMEOUT / len(names))


def write(report: Report, rows: Sequence[Row], reproduced: Sequence[Row], out: Path) -> None:
    """Writes the figures and the texts, the page last: it holds the figures."""
    runs, profile = report.runs, report.profile
    write_picture(out / "curves.png", learning_curves(runs, profile))
    write_picture(out / "compute.png", quality_by_compute(runs, profile))
    write_picture(out / "classes.png", class_bars(runs, profile))
    texts = {
        "results.csv": to_csv(rows),
        "results.md": markdown(report),
        "results.tex": PREAMBLE + "\n".join(map(to_latex, report.tables)),
        "reproduction.csv": to_csv(reproduced),
        "reproduction.md": reproduction_page(report.reproduction),
        "reproduction.tex": PREAMBLE + "\n".join(map(to_latex, report.reproduction)),
        "index.html": page(report, out),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())


def archive_inputs(outputs: Path, runs: Path, names: Sequence[str]) -> None:
    """Copies what a report is made of to beside it."""
    if not (outputs / REMARKS).is_file():  # those on earlier runs are not of these
        (runs / REMARKS).unlink(missing_ok=True)
    copy(outputs, runs, (REMARKS,))
    for name in names:
        copy(outputs / name, runs / name, KEPT)
        seeds = {each.relative_to(outputs / name) for each in repeats_of(outputs / name)}
        for seed in seeds:
            copy(outputs / name / seed, runs / name / seed, FIGURES)
        for earlier in repeats_of(runs / name):
            if earlier.relative_to(runs / name) not in seeds:
                shutil.rmtree(earlier)


def remarks(outputs: Path) -> list[str]:
    """Returns what is to be said of runs, beside what their figures say."""
    path = outputs / REMARKS
    return path.read_text().splitlines() if path.is_file() else []


def with_notes(table: Table, notes: Sequence[str]) -> Table:
    """Returns a table with more notes below it."""
    return dataclasses.replace(table, notes=[*table.notes, *notes])


def copy(source: Path, target: Path, files: Sequence[str]) -> None:
    """Copies these files of a folder, also where both are the same."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if (source / file).is_file():
            write_atomically(target / file, (source / file).read_bytes())


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


def describe_missing(names: Sequence[str]) -> list[str]:
    """Returns which experiments a partial report does not have."""
    return [f"Not run yet, or not measured: {', '.join(names)}."] if names else []


def describe_data(experiments: Sequence[Experiment]) -> list[str]:
    """Returns a sentence for each dataset, so that nobody takes synthetic scenes for others."""
    sentences = {}
    for experiment in experiments:
        dataset = experiment.dataset
        if experiment.synthetic and dataset.synthetic:
            counts = [f"{getattr(dataset.synthetic, split)} {split}" for split in SPLITS]
            form = "" if dataset.layout == "generated" else " in the published layout"
            source = f"synthetic scenes{form} ({', '.join(counts)})"
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
