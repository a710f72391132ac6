"""The table of runs that were trained from several seeds: mean and spread of each measure."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import Table
from srt.report.tables.result_rows import MEASURES
from srt.results.published_figures import PROTOCOLS
from srt.results.records import Measure
from srt.results.runs import Run

# The note below the table.
NOTE = (
    "Mean ± standard deviation of trainings that differ in nothing but their seed: the"
    " first weights, and the order of scenes, views and rays. The data are the same. The"
    " other tables show the seed of params.yaml."
)


def seeds_table(runs: Sequence[Run], profile: str) -> Table | None:
    """Return a row for each protocol of a run with several seeds; None if there is no such run."""
    # A single seed has no spread, and its figures are in the table of results.
    repeated = [
        (run, protocol) for run in runs if run.repeats for protocol in run.metrics.protocols
    ]
    if not repeated:
        return None

    # A measure has a column if any of these runs has it.
    measures = [
        name
        for name in MEASURES
        if any(run.mean_and_deviation(protocol, name) is not None for run, protocol in repeated)
    ]

    # Each run is measured by several protocols, which have different measures.
    rows = []
    for run, protocol in repeated:
        cells = [_mean_and_spread(run, protocol, name) for name in measures]
        rows.append([run.name, run.data, protocol, str(len(run.seeds)), *cells])
    return Table(
        title=f"Over seeds, profile {profile}",
        align="lllr" + "r" * len(measures),
        header=["run", "dataset", "protocol", "seeds", *(MEASURES[name][0] for name in measures)],
        rows=rows,
        notes=[NOTE],
    )


def _mean_and_spread(run: Run, protocol: str, name: Measure) -> str:
    """Return e.g. `23.39 ± 0.05`, or a dash if the protocol does not define the measure."""
    statistics = run.mean_and_deviation(protocol, name)
    if statistics is None or name not in PROTOCOLS[protocol].measures:
        return EN_DASH
    mean, spread = statistics
    digits = MEASURES[name][1]
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"
