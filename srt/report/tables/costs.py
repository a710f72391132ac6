"""The table of costs: what each run's trained model needs to encode a scene and render a frame."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import format_count, format_threads, format_three_digits
from srt.report.format.table import Table, move_conditions_to_notes
from srt.results.runs import Run

NOTE = (
    "Of one scene with its input views, and of one frame of the dataset's size, in float32."
    " Operations of matrix products, convolutions and attention, counted; a multiplication"
    " and an addition are two. Times are medians of the evaluation's machine. What the training"
    " took is in the table of trainings."
)


def costs_table(runs: Sequence[Run]) -> Table:
    """Return the costs, a row for each run. The hardware is a note if all ran on the same."""
    header = ["run", "dataset", "parameters", "encode a scene", "render a frame"]
    header += ["encode time", "render time", "hardware"]
    table = Table(
        title="Costs",
        align="llrrrrrl",
        header=header,
        rows=[_cells(run) for run in runs],
        notes=[NOTE],
    )
    return move_conditions_to_notes(table)


def _cells(run: Run) -> list[str]:
    """Return the cells of what a trained model needs: operations and times of the evaluation."""
    # Operations and times are those of a scene and of a frame, in the order of the header.
    counts = run.metrics.costs
    operations = (counts.encode_flops, counts.frame_flops)
    times = (run.costs.encode_seconds, run.costs.frame_seconds)
    return [
        run.name,
        run.data,
        format_count(counts.parameters),
        *(f"{format_three_digits(number / 1e9)} GFLOP" for number in operations),
        *(f"{format_three_digits(1000 * seconds)} ms" for seconds in times),
        format_threads(run.costs.hardware),
    ]
