"""The table of costs: what each run's model needs to run, and what its training needed."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH, format_count, format_threads, format_three_digits
from srt.report.format.table import Table
from srt.report.tables.results import COST_COUNTS, COST_TIMES
from srt.results.runs import Run

# Notes on the costs of a trained model, and on those of its training.
INFERENCE_NOTE = (
    "Of one scene with its input views, and of one frame of the dataset's size, in float32."
    " Operations of matrix products, convolutions and attention, counted; a multiplication"
    " and an addition are two. Times are medians of the evaluation's machine."
)
TRAINING_NOTE = (
    "To train: GPUs times hours of training, validation included, and, where it was measured, the"
    " energy that their boards used meanwhile and the most memory taken on one of them."
)


def costs_table(runs: Sequence[Run]) -> Table:
    """Return the costs, a row for each run."""
    header = ["run", "dataset", "parameters", "encode a scene", "render a frame"]
    header += ["encode time", "render time", "hardware"]
    align = "llrrrrrl"
    rows = [_inference_cells(run) for run in runs]
    notes = [INFERENCE_NOTE]

    # GPU hours exist only for trainings on GPUs, so the column is left out if there is none.
    if any(run.gpu_hours is not None for run in runs):
        header.append("to train")
        align += "r"
        rows = [[*cells, _training_cell(run)] for run, cells in zip(runs, rows, strict=True)]
        notes.append(TRAINING_NOTE)
    return Table(title="Costs", align=align, header=header, rows=rows, notes=notes)


def _inference_cells(run: Run) -> list[str]:
    """Return the cells of what a trained model needs: operations and times of the evaluation."""
    # Operations are those of a scene and of a frame, in the order of the header.
    counts = run.metrics["costs"]
    operations = [counts[name] for name in COST_COUNTS if name != "parameters"]
    return [
        run.name,
        run.data,
        format_count(counts["parameters"]),
        *(f"{format_three_digits(number / 1e9)} GFLOP" for number in operations),
        *(f"{format_three_digits(1000 * run.costs[name])} ms" for name in COST_TIMES),
        format_threads(run.costs["hardware"]),
    ]


def _training_cell(run: Run) -> str:
    """Return e.g. `0.15 GPU hours, 96 Wh, 6.7 GB`, without what was not measured."""
    if run.gpu_hours is None:
        return EN_DASH

    # Runs from before energy and memory were measured have only their hours. 1 Wh is 3600 J.
    costs = [f"{run.gpu_hours:.2f} GPU hours"]
    if (joules := run.training.get("joules")) is not None:
        watt_hours = format_count(round(joules / 3600))
        costs.append(f"{watt_hours} Wh")
    if (peak := run.training.get("peak_gigabytes")) is not None:
        costs.append(f"{peak:.1f} GB")
    return ", ".join(costs)
