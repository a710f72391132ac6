"""The table of trainings: how long and on what each run was trained, and what was measured then."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import (
    EN_DASH,
    format_count,
    format_precise_duration,
    format_threads,
)
from srt.report.format.table import Table, drop_empty_columns, move_conditions_to_notes
from srt.report.tables.cells import items_cell, measure_cell
from srt.report.tables.result_rows import MEASURES, ResultRow

# Notes that every table has, and that only trainings on GPUs have.
NOTE = (
    "Selected step: of the weights that are measured, the best by PSNR on the validation scenes."
    " Items measured: by each protocol; where not all were, they are spread evenly over all."
    " Training time: validation included."
)
GPU_NOTE = (
    "GPU use: GPUs times hours of training, validation included, and, where it was measured, the"
    " energy that their boards used meanwhile and the most memory taken on one of them."
)


def trainings_table(rows: Sequence[ResultRow], profile: str) -> Table:
    """Return a row for each run. What is equal in all rows is a note."""
    # The rows of a run differ in their protocol alone.
    runs: dict[str, list[ResultRow]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)

    # This measure has no room in the table of results, and one protocol alone defines it.
    header = ["run", "iterations", "selected step", "items measured", MEASURES["lpips_alex"][0]]
    header += ["training time", "GPU use", "hardware"]
    table = Table(
        title=f"Trainings of profile {profile}",
        align="lrrlrrrl",
        header=header,
        rows=[_cells(group) for group in runs.values()],
        notes=[NOTE, GPU_NOTE] if any(row.gpu_hours is not None for row in rows) else [NOTE],
    )
    return drop_empty_columns(move_conditions_to_notes(table))


def _cells(rows: Sequence[ResultRow]) -> list[str]:
    """Return the cells of a run, which has a row for each protocol."""
    first = rows[0]
    measured = [measure_cell(row, "lpips_alex") for row in rows]
    return [
        first.run,
        format_count(first.steps),
        format_count(first.best_step),
        ", ".join(f"{row.protocol}: {items_cell(row)}" for row in rows),
        next((cell for cell in measured if cell != EN_DASH), EN_DASH),
        format_precise_duration(first.training_seconds),
        _gpu_cell(first),
        format_threads(first.hardware),
    ]


def _gpu_cell(row: ResultRow) -> str:
    """Return e.g. `0.15 GPU hours, 96 Wh, 6.7 GB`, without what was not measured."""
    if row.gpu_hours is None:
        return EN_DASH

    # Runs from before energy and memory were measured have only their hours. 1 Wh is 3600 J.
    costs = [f"{row.gpu_hours:.2f} GPU hours"]
    if row.joules is not None:
        watt_hours = format_count(round(row.joules / 3600))
        costs.append(f"{watt_hours} Wh")
    if row.training_peak_gigabytes is not None:
        costs.append(f"{row.training_peak_gigabytes:.1f} GB")
    return ", ".join(costs)
