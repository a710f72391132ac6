"""The raw figures of the reproduction: what was published, what we measured, and what a step costs.

Only figures of one dataset and one protocol can be compared, so a row is about one of each. A mark
says how well the source of a figure was read:

    read            in a text that was read
    second-hand     in somebody's note of the paper
    unconfirmed     in no text that could be opened; to be checked before it is quoted
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srt.config.schema import Experiment
from srt.report.tables.classes import published_classes
from srt.results.published_figures import PROTOCOLS, QUOTED, RESULTS, UNKNOWN
from srt.results.records import Measure, Measures, ProtocolScores, renamed
from srt.results.runs import Run

# The measures that papers report.
REPORTED: tuple[Measure, ...] = ("psnr", "ssim", "lpips")


@dataclass(frozen=True, kw_only=True)
class ReproductionRow:
    """A figure of a dataset and protocol, published or ours. The fields are the CSV's columns."""

    dataset: str
    class_name: str = renamed("class")  # `all`: of all classes together
    protocol: str
    method: str
    ours: str = ""  # the name of our experiment; empty: published by others
    psnr: float | None = None  # dB; None: not run
    ssim: float | None = None
    lpips: float | None = None
    source: str | None = None
    mark: str | None = None  # how well the source was read
    steps: int | None = None  # of the whole training, and so on to the hardware
    step_seconds: float | None = None
    gpu_hours: float | None = None
    peak_gigabytes: float | None = None
    hardware: str | None = None

    def value(self, measure: Measure) -> float | None:
        """Return a measure by its name; only those of REPORTED exist."""
        return {"psnr": self.psnr, "ssim": self.ssim, "lpips": self.lpips}.get(measure)


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a training costs at the published scale; None: no step of this size was timed."""

    step_seconds: float | None = None
    gpu_hours: float | None = None
    peak_gigabytes: float | None = None
    hardware: str | None = None


def reproduction_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> list[ReproductionRow]:
    """Return a row for each figure, sorted by dataset and protocol, the published ones first.

    Args:
        runs: the measured runs. Those of synthetic scenes are left out.
        plans: the experiments at the published scale.
        performance: the times of training steps, as `benchmarks.training` writes them.
    """
    rows = [*_published_rows(plans), *_quoted_rows(), *_own_rows(runs, plans, performance)]
    datasets = list(dict.fromkeys(plan.dataset_name for plan in plans))
    protocols = [*PROTOCOLS, UNKNOWN]

    # Sorting is stable: within a dataset and protocol, the rows stay in the order of above.
    def sort_key(row: ReproductionRow) -> tuple[int, int]:
        return datasets.index(row.dataset), protocols.index(row.protocol)

    return sorted((row for row in rows if row.dataset in datasets), key=sort_key)


def _published_rows(plans: Sequence[Experiment]) -> Iterator[ReproductionRow]:
    """Yield the results that the experiments reproduce: of all classes together and of each."""
    for plan in plans:
        for result in RESULTS.get(plan.name, []):
            for name, measures in published_classes(result).items():
                yield ReproductionRow(
                    dataset=plan.dataset_name,
                    class_name=name,
                    protocol=result.protocol,
                    method=result.method,
                    psnr=measures.psnr,
                    ssim=measures.ssim,
                    lpips=measures.lpips,
                    source=result.source,
                    mark=result.mark,
                )


def _quoted_rows() -> Iterator[ReproductionRow]:
    """Yield figures from papers that no experiment reproduces."""
    for quoted in QUOTED:
        psnr, ssim, lpips = quoted.figures
        yield ReproductionRow(
            dataset=quoted.dataset,
            class_name="all",
            protocol=quoted.protocol,
            method=quoted.method,
            psnr=psnr,
            ssim=ssim,
            lpips=lpips,
            source=quoted.source,
            mark=quoted.mark,
        )


def _own_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> Iterator[ReproductionRow]:
    """Yield the cost and the figures of each experiment; without figures if it was not run."""
    # Neither synthetic scenes nor changed protocols compare with published figures.
    comparable = {run.name: run for run in runs if not run.metrics.synthetic and not run.departure}
    for plan in plans:
        cost = _step_cost(plan, performance)
        for protocol in plan.evaluate.protocols:
            row = ReproductionRow(
                dataset=plan.dataset_name,
                class_name="all",
                protocol=protocol,
                method=f"{plan.name}, this repository",
                ours=plan.name,
                steps=plan.train.steps,
                **vars(cost),
            )
            run = comparable.get(plan.name)
            scores = run.metrics.protocols.get(protocol) if run else None
            if run is None or scores is None:
                yield row
            else:
                yield from _measured_rows(row, run, scores)


def _measured_rows(
    row: ReproductionRow, run: Run, scores: ProtocolScores
) -> Iterator[ReproductionRow]:
    """Yield the row with the figures of each class, and of all classes together."""
    # The source says how far the run is from the published scale.
    source = f"profile {run.metrics.profile}, {run.training.steps} steps"
    if scores.items < scores.total_items:
        source += f", {scores.items} of {scores.total_items} items"
    classes: dict[str, Measures] = {**scores.classes, "all": scores}
    for name, measures in classes.items():
        yield dataclasses.replace(
            row,
            class_name=name,
            source=source,
            psnr=measures.psnr,
            ssim=measures.ssim,
            lpips=measures.lpips,
        )


def _step_cost(plan: Experiment, performance: Mapping[str, Any]) -> StepCost:
    """Return what a step and the whole training cost, if a step of this size was timed."""
    # The benchmark also times plain PyTorch, and other batch sizes. Neither is how we train.
    steps = [
        row
        for row in performance["rows"]
        if (row["setting"], row["scenes"]) == (plan.name, plan.train.batch_size)
        and row["way"].startswith("ours")
    ]
    if not steps:
        return StepCost()

    # The training takes as many of the fastest steps as the experiment has.
    fastest = min(steps, key=lambda row: row["median_ms"])
    return StepCost(
        step_seconds=round(fastest["median_ms"] / 1000, 6),
        gpu_hours=round(fastest["median_ms"] / 1000 * plan.train.steps / 3600, 1),
        peak_gigabytes=fastest["peak_gb"],
        hardware=performance["device"],
    )
