"""The table of runs that were trained from several seeds: means and how far the seeds scatter."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import Table
from srt.report.tables.results import MEASURES
from srt.results.published_figures import PROTOCOLS
from srt.results.runs import Run


def seeds_table(runs: Sequence[Run], profile: str) -> Table | None:
    """Returns a row for each protocol of a run with several seeds; None where no run has them."""
    repeated = [
        (run, protocol) for run in runs if run.repeats for protocol in run.metrics["protocols"]
    ]
    if not repeated:
        return None
    measured = [
        name
        for name in MEASURES
        if any(run.over_seeds(protocol, name) is not None for run, protocol in repeated)
    ]
    return Table(
        title=f"Over seeds, profile {profile}",
        align="lllr" + "r" * len(measured),
        header=["run", "dataset", "protocol", "seeds", *(MEASURES[name][0] for name in measured)],
        rows=[
            [
                run.name,
                run.data,
                protocol,
                str(len(run.seeds)),
                *(_mean_and_spread(run, protocol, name) for name in measured),
            ]
            for run, protocol in repeated
        ],
        notes=[
            "Mean ± standard deviation of trainings that differ in nothing but their seed: the"
            " first weights, and the order of scenes, views and rays. The data are the same. The"
            " other tables show the seed of params.yaml."
        ],
    )


def _mean_and_spread(run: Run, protocol: str, name: str) -> str:
    found = run.over_seeds(protocol, name)
    if found is None or name not in PROTOCOLS[protocol].measures:
        return EN_DASH
    digits = MEASURES[name][1]
    return f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"
