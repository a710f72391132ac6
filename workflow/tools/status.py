"""Print how far every experiment is: its state, its figures, the time left, and why it is not done.

The table is made from files alone. With `--tool`, DVC or Snakemake is asked as well which stages it
would run: the tools also notice changes of the code.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from srt.config.load import load_experiments
from srt.config.schema import Experiment
from srt.report.format.numbers import EN_DASH, format_duration
from workflow.common.cli import run
from workflow.common.default_paths import DefaultPaths, load_default_paths
from workflow.common.tracked_run import ROOT
from workflow.tools.experiment_status import (
    ExperimentFiles,
    ExperimentStatus,
    experiment_statuses,
)
from workflow.tools.pending_stages import pending_lines

HEADER = ("experiment", "state", "step", "train", "validation", "test", "left", "why")


def status(
    *,
    profile: str | None = None,
    tool: Literal["dvc", "snakemake"] | None = None,
    params: Path = Path("params.yaml"),
    states: Path = ROOT / "ckpt",
) -> None:
    """Print a table of all experiments (PSNR in dB), and below it what a tool would make.

        python -m workflow.tools.status --tool dvc

    Args:
        profile: of params.yaml; the default is the one that the file names.
        tool: that is asked what it would make, and why, for the profile that params.yaml names.
        params: the configuration.
        states: the folder of resume states.
    """
    paths = load_default_paths(profile, params)
    rows: list[ExperimentStatus] = []
    for experiment in load_experiments(params, paths.profile):
        rows += experiment_statuses(experiment, experiment_files(experiment, states), time.time())

    lines = format_table(rows)
    if tool:
        lines += pending_lines(tool)
    print("\n".join(lines))


def experiment_files(experiment: Experiment, states: Path) -> ExperimentFiles:
    """Return the folders of an experiment's files, which are as in dvc.yaml and the Snakefile."""
    paths = DefaultPaths(experiment.profile)
    return ExperimentFiles(
        states=states / paths.profile / experiment.name,
        data=paths.packed(experiment.dataset_name),
        out=paths.experiment(experiment.name),
        weights=paths.weights,
    )


def format_table(rows: Sequence[ExperimentStatus]) -> list[str]:
    """Return the lines of a table for a terminal."""
    cells: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        cells.append(format_cells(row))

    # Each column is as wide as its longest cell.
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    ]


def format_cells(row: ExperimentStatus) -> tuple[str, ...]:
    """Return what the table says about an experiment, one text for each column."""
    progress = row.progress
    step = f"{progress.step} of {row.steps}" if progress.step else EN_DASH
    figures = (progress.train_psnr, progress.best_psnr, row.test_psnr)
    psnrs = [EN_DASH if figure is None else f"{figure:.2f}" for figure in figures]

    # The time left is only of interest while there is some.
    time_left = EN_DASH
    if row.state in ("running", "stopped", "failed") and progress.step_seconds is not None:
        time_left = format_duration((row.steps - progress.step) * progress.step_seconds)
    return (row.name, row.state, step, *psnrs, time_left, row.why)


if __name__ == "__main__":
    run(status)
