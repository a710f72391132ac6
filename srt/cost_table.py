"""The table of what each run's model costs, from metrics.json and costs.json."""

from __future__ import annotations

from collections.abc import Sequence

from srt.numerals import count, threads
from srt.tables import COUNTED, TIMED, Run
from srt.typesetting import Table


def costs_table(runs: Sequence[Run]) -> Table:
    """Returns what each model costs, a row a run."""

    header = ["run", "dataset", "parameters", "encode a scene", "render a frame"]
    return Table(
        title="Costs",
        align="llrrrrrl",
        header=[*header, "encode time", "render time", "hardware"],
        rows=[
            [
                run.name,
                run.data,
                count(run.metrics["costs"]["parameters"]),
                *(f"{run.metrics['costs'][name] / 1e9:.3g} GFLOP" for name in COUNTED[1:]),
                *(f"{1000 * run.costs[name]:.3g} ms" for name in TIMED),
                threads(run.costs["hardware"]),
            ]
            for run in runs
        ],
        notes=[
            "Of one scene with its input views, and of one frame of the dataset's size, in float32."
            " Operations of matrix products, convolutions and attention, counted; a multiplication"
            " and an addition are two. Times are medians of the evaluation's machine."
        ],
    )
