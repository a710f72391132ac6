"""The table of what each run's model costs, from metrics.json and costs.json."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH, count, format_threads, format_three_digits
from srt.report.format.table import Table
from srt.report.tables.results import COUNTED, TIMED
from srt.results.runs import Run

TRAINING_NOTE = (
    "To train: GPUs times hours of training, validation included, and, where it was measured, the"
    " energy that their boards used meanwhile and the most memory taken on one of them."
)


def costs_table(runs: Sequence[Run]) -> Table:
    """Returns what each model costs, a row a run; what its training cost where one had a GPU."""
    header = ["run", "dataset", "parameters", "encode a scene", "render a frame"]
    header += ["encode time", "render time", "hardware"]
    on_gpu = any(run.gpu_hours is not None for run in runs)
    return Table(
        title="Costs",
        align="llrrrrrl" + "r" * on_gpu,
        header=[*header, *["to train"] * on_gpu],
        rows=[
            [
                run.name,
                run.data,
                count(run.metrics["costs"]["parameters"]),
                *(
                    f"{format_three_digits(run.metrics['costs'][name] / 1e9)} GFLOP"
                    for name in COUNTED[1:]
                ),
                *(f"{format_three_digits(1000 * run.costs[name])} ms" for name in TIMED),
                format_threads(run.costs["hardware"]),
                *[_training(run)] * on_gpu,
            ]
            for run in runs
        ],
        notes=[
            "Of one scene with its input views, and of one frame of the dataset's size, in float32."
            " Operations of matrix products, convolutions and attention, counted; a multiplication"
            " and an addition are two. Times are medians of the evaluation's machine.",
            *[TRAINING_NOTE] * on_gpu,
        ],
    )


def _training(run: Run) -> str:
    """Returns e.g. `0.15 GPU hours, 96 Wh, 6.7 GB`."""
    hours, joules = run.gpu_hours, run.training.get("joules")
    peak = run.training.get("peak_gigabytes")
    if hours is None:
        return EN_DASH
    energy = "" if joules is None else f", {count(round(joules / 3600))} Wh"
    memory = "" if peak is None else f", {peak:.1f} GB"
    return f"{hours:.2f} GPU hours{energy}{memory}"
