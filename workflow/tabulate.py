"""Results of all stages -> tables, figures and a page.

The small files that a report is made of are copied to `runs` and `seeds` beside it. `make reports`
makes the report again from there, byte for byte.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from srt.common.errors import UserError
from srt.common.files import write_atomically
from srt.config.load import load_experiments, load_params
from srt.config.schema import SPLITS, Experiment
from srt.data.raw.layouts import LAYOUTS, check_layouts
from srt.model.weights import load_weights
from srt.rendering.teaser import write_teaser
from srt.report.figures import class_bars, learning_curves, quality_by_compute
from srt.report.format.latex import PREAMBLE, to_latex
from srt.report.format.table import Table, to_csv
from srt.report.page import Report, report_page, results_markdown
from srt.report.tables.baseline_psnr import baselines_table
from srt.report.tables.classes import class_tables
from srt.report.tables.costs import costs_table
from srt.report.tables.equal_cost import equal_cost_table
from srt.report.tables.few_cameras import few_cameras_table
from srt.report.tables.reproduction import (
    reproduction_class_tables,
    reproduction_costs_table,
    reproduction_page,
    reproduction_table,
)
from srt.report.tables.reproduction_rows import ReproductionRow, reproduction_rows
from srt.report.tables.result_rows import ResultRow, result_rows
from srt.report.tables.results import results_table
from srt.report.tables.seeds import seeds_table
from srt.report.tables.trainings import trainings_table
from srt.results.records import Survey
from srt.results.runs import Run
from srt.visualization.pictures import write_picture
from workflow.common.cli import run
from workflow.common.default_paths import FEW_CAMERAS, PERFORMANCE, load_default_paths
from workflow.common.jobs import PUBLISHED_SCALE
from workflow.common.report_archive import archive_inputs, read_remarks
from workflow.common.stage_files import (
    BY_ANGLE,
    VIDEO,
    read_few_cameras,
    read_json,
    read_run,
    read_survey,
    seed_folders,
    was_measured,
)
from workflow.common.tracked_run import open_run

TEASERS = 2  # videos in the teaser, of different datasets
TIMEOUT = 60  # seconds that a tracking server may take for all runs together

log = logging.getLogger(__name__)


def tabulate(
    *,
    profile: str | None = None,
    outputs: Path | None = None,
    surveys: Path | None = None,
    performance: Path = PERFORMANCE,
    few_cameras: Path = FEW_CAMERAS,
    out: Path | None = None,
    params: Path = Path("params.yaml"),
    partial: bool = False,
) -> None:
    """Write the tables and figures of all experiments of params.yaml, in its order.

        python -m workflow.tabulate --partial

    Args:
        profile: of params.yaml; by default the one that the file names.
        outputs: the folder that has a folder for each experiment, by default outputs/<profile>; the
            folder `runs` of a report is one too. The lines of remarks.txt in it are printed below
            the results.
        surveys: the folder that has a folder for each dataset, by default
            reports/<profile>/datasets.
        performance: the time of a step at the published scale, from `benchmarks.training`.
        few_cameras: the folder that `benchmarks.camera_overfitting` wrote.
        out: the report's folder, by default reports/<profile>.
        params: the configuration.
        partial: leave out experiments that were not measured, and videos that are missing.
    """
    check_layouts(params)
    paths = load_default_paths(profile, params)
    profile, out = paths.profile, out or paths.report
    outputs, surveys = outputs or paths.outputs, surveys or paths.surveys
    experiments, skipped = choose_experiments(params, profile, outputs, partial)

    # Read everything first, so that a missing or damaged file stops the stage before it writes.
    for one in experiments:
        seeds = seed_folders(outputs / one.name / "seeds")
        read_run(outputs / one.name, one, seeds, partial)
    datasets = choose_datasets(params, experiments, partial)
    surveyed = [read_survey(surveys / name) for name in datasets]
    steps = read_json(performance, ("device", "rows"))

    # The report is made of copies of these files, and of repeats that earlier reports had.
    archive_inputs(outputs, out, experiments)
    runs = [
        read_run(outputs / one.name, one, seed_folders(out / "seeds" / one.name), partial)
        for one in experiments
    ]

    # Compare the runs with each other and with the published ones.
    rows = result_rows(runs)
    published = load_experiments(params, choose_scale(runs, profile))
    reproduced = reproduction_rows(runs, published, steps)
    data = [*describe_data(experiments), *describe_missing(skipped)]
    remarks = read_remarks(outputs)
    report = make_report(profile, runs, rows, reproduced, remarks, data, surveyed, few_cameras)
    write_report(report, rows, reproduced, out)
    write_best_videos(out, rows, experiments[0].render.frames)
    log.info("wrote %s", out / "index.html")

    # Each run in MLflow gets the table too.
    for one in experiments:
        model = outputs / one.name / "model.safetensors"
        log_table(profile, one.name, model, out / "results.md", TIMEOUT / len(experiments))


def choose_experiments(
    params: Path, profile: str, outputs: Path, partial: bool
) -> tuple[list[Experiment], list[str]]:
    """Return the experiments that the report has, and the names of those that it leaves out."""
    # Only a partial report leaves out what was not measured.
    experiments, skipped = load_experiments(params, profile), []
    if partial:
        skipped = [one.name for one in experiments if not was_measured(outputs / one.name)]
        experiments = [one for one in experiments if one.name not in skipped]
    if not experiments:
        raise UserError(f"{outputs}: no experiment of profile {profile} has been measured")
    return experiments, skipped


def choose_datasets(params: Path, experiments: Sequence[Experiment], partial: bool) -> list[str]:
    """Return the datasets that the report describes: all, or in a partial one those in use."""
    used = {one.dataset_name for one in experiments}
    return [name for name in load_params(params).datasets if name in used or not partial]


def choose_scale(runs: Sequence[Run], profile: str) -> str:
    """Return the profile whose experiments the reproduction table compares with the runs."""
    # Published figures stand beside runs of published data. Synthetic runs stand alone, and the
    # table then says what the published scale would cost.
    only_synthetic = all(run.metrics.synthetic for run in runs)
    return PUBLISHED_SCALE if only_synthetic else profile


def make_report(
    profile: str,
    runs: list[Run],
    rows: Sequence[ResultRow],
    reproduced: Sequence[ReproductionRow],
    remarks: Sequence[str],
    data: list[str],
    surveys: list[Survey],
    few_cameras: Path,
) -> Report:
    """Return the report with all its tables. The remarks stand below the results."""
    equal_cost = equal_cost_table(runs, profile)
    return Report(
        profile=profile,
        data=data,
        results=with_notes(results_table(rows, profile), remarks),
        details=[baselines_table(rows, profile), trainings_table(rows, profile)],
        equal_cost=with_notes(equal_cost, remarks) if equal_cost else None,
        seeds=seeds_table(runs, profile),
        costs=costs_table(runs),
        classes=class_tables(runs),
        few_cameras=few_cameras_table(read_few_cameras(few_cameras)),
        angle_figure=few_cameras / BY_ANGLE,
        reproduction=[
            reproduction_table(reproduced),
            reproduction_costs_table(reproduced),
            *reproduction_class_tables(reproduced),
        ],
        surveys=surveys,
        runs=runs,
    )


def write_report(
    report: Report, rows: Sequence[ResultRow], reproduced: Sequence[ReproductionRow], out: Path
) -> None:
    """Write the figures and the texts; the page comes last, because it contains the figures."""
    runs, profile = report.runs, report.profile
    write_picture(out / "curves.png", learning_curves(runs, profile))
    write_picture(out / "compute.png", quality_by_compute(runs, profile))
    write_picture(out / "classes.png", class_bars(runs, profile))
    texts = {
        "results.csv": to_csv(rows),
        "results.md": results_markdown(report),
        "results.tex": PREAMBLE + "\n".join(map(to_latex, report.tables)),
        "reproduction.csv": to_csv(reproduced),
        "reproduction.md": reproduction_page(report.reproduction),
        "reproduction.tex": PREAMBLE + "\n".join(map(to_latex, report.reproduction)),
        "index.html": report_page(report, out),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())


def with_notes(table: Table, notes: Sequence[str]) -> Table:
    """Return a table with more notes below it."""
    return dataclasses.replace(table, notes=[*table.notes, *notes])


def write_best_videos(out: Path, rows: Sequence[ResultRow], frames: int) -> None:
    """Write the teaser from the videos of the runs that gain most, if there are any videos."""
    videos = [out / "runs" / name / VIDEO for name in best_runs(rows)]
    if videos := [video for video in videos if video.is_file()]:
        write_teaser(out / "teaser.gif", videos, frames)


def best_runs(rows: Sequence[ResultRow]) -> list[str]:
    """Return the runs of the teaser: the one of each dataset that gains most, the best first."""
    best: dict[str, ResultRow] = {}
    for row in sorted(rows, key=lambda row: -row.gain_psnr):
        best.setdefault(row.dataset, row)
    return [row.run for row in best.values()][:TEASERS]


def log_table(profile: str, experiment: str, model: Path, table: Path, timeout: float) -> None:
    """Add the table to a model's run of MLflow, if the model is here; wait `timeout` s at most."""
    if model.exists():
        tracker = open_run("tabulate", profile, experiment, load_weights(model)[1])
        tracker.log_artifact(table, "report")
        tracker.close("FINISHED", timeout)


def describe_missing(names: Sequence[str]) -> list[str]:
    """Return a sentence on the experiments that a partial report lacks; nothing if it has all."""
    return [f"Not run yet, or not measured: {', '.join(names)}."] if names else []


def describe_data(experiments: Sequence[Experiment]) -> list[str]:
    """Return a sentence for each dataset. It says whether the scenes are synthetic."""
    sentences = {}
    for experiment in experiments:
        dataset = experiment.dataset
        if experiment.synthetic and dataset.synthetic:
            counts = [f"{getattr(dataset.synthetic, split)} {split}" for split in SPLITS]
            rendered = LAYOUTS[dataset.layout].renders_when_packed
            form = "" if rendered else " in the published layout"
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
