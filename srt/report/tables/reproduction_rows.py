"""The raw figures of the reproduction: what was published, what we measured, and what a step costs.

Only figures of one dataset and one protocol can be compared, so a row is about one of each. A mark
says how well the source of a figure was read:

    read            in a text that was read
    second-hand     in somebody's note of the paper
    unconfirmed     in no text that could be opened; to be checked before it is quoted
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srt.config.schema import Experiment
from srt.report.tables.classes import published_classes
from srt.report.tables.result_rows import Row
from srt.results.published_figures import PROTOCOLS, QUOTED, RESULTS, UNKNOWN
from srt.results.runs import Run

# The measures that papers report.
REPORTED = ("psnr", "ssim", "lpips")

# The columns that stay None where nothing was measured.
OPTIONAL_COLUMNS = [*REPORTED, "source", "mark", "steps", "step_seconds"]
OPTIONAL_COLUMNS += ["gpu_hours", "peak_gigabytes", "hardware"]


def reproduction_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> list[Row]:
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
    def sort_key(row: Row) -> tuple[int, int]:
        return datasets.index(row["dataset"]), protocols.index(row["protocol"])

    return sorted((row for row in rows if row["dataset"] in datasets), key=sort_key)


def _row(dataset: str, protocol: str, method: str, **values: Any) -> Row:
    """Return a row with these values; all others are None."""
    return {
        "dataset": dataset,
        "class": "all",
        "protocol": protocol,
        "method": method,
        "ours": "",
        **dict.fromkeys(OPTIONAL_COLUMNS),
        **values,
    }


def _published_rows(plans: Sequence[Experiment]) -> Iterator[Row]:
    """Yield the results that the experiments reproduce: of all classes together and of each."""
    for plan in plans:
        for result in RESULTS.get(plan.name, []):
            source = {"source": result.source, "mark": result.mark}
            for name, figures in published_classes(result).items():
                row = _row(plan.dataset_name, result.protocol, result.method, **figures, **source)
                yield row | {"class": name}


def _quoted_rows() -> Iterator[Row]:
    """Yield figures from papers that no experiment reproduces."""
    for quoted in QUOTED:
        figures = dict(zip(REPORTED, quoted.figures, strict=True))
        source = {"source": quoted.source, "mark": quoted.mark}
        yield _row(quoted.dataset, quoted.protocol, quoted.method, **figures, **source)


def _own_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> Iterator[Row]:
    """Yield the cost and the figures of each experiment; without figures if it was not run."""
    # Neither synthetic scenes nor changed protocols compare with published figures.
    comparable = {
        run.name: run for run in runs if not run.metrics["synthetic"] and not run.departure
    }
    for plan in plans:
        cost = {"ours": plan.name, "steps": plan.train.steps, **_step_cost(plan, performance)}
        for protocol in plan.evaluate.protocols:
            row = _row(plan.dataset_name, protocol, f"{plan.name}, this repository", **cost)
            run = comparable.get(plan.name)
            figures = run.metrics["protocols"].get(protocol) if run else None
            if run is None or figures is None:
                yield row
                continue

            # The source says how far the run is from the published scale.
            row["source"] = f"profile {run.metrics['profile']}, {run.training['steps']} steps"
            if figures["items"] < figures["of"]:
                row["source"] += f", {figures['items']} of {figures['of']} items"
            for name, values in {**figures["classes"], "all": figures}.items():
                yield row | {"class": name, **{measure: values[measure] for measure in REPORTED}}


def _step_cost(plan: Experiment, performance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step and the whole training cost; empty if no step of this size was timed."""
    # The benchmark also times plain PyTorch, and other batch sizes. Neither is how we train.
    steps = [
        row
        for row in performance["rows"]
        if (row["setting"], row["scenes"]) == (plan.name, plan.train.batch_size)
        and row["way"].startswith("ours")
    ]
    if not steps:
        return {}

    # The training takes as many of the fastest steps as the experiment has.
    fastest = min(steps, key=lambda row: row["median_ms"])
    return {
        "step_seconds": round(fastest["median_ms"] / 1000, 6),
        "gpu_hours": round(fastest["median_ms"] / 1000 * plan.train.steps / 3600, 1),
        "peak_gigabytes": fastest["peak_gb"],
        "hardware": performance["device"],
    }
