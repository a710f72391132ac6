"""The raw figures of the runs, a row for each run and protocol, which are published as CSV.

The tables of results, trainings and baselines are made from these rows. A row ends with what
depends on the machine: times and hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srt.results.curves import value_at
from srt.results.published_figures import Result, published_result
from srt.results.runs import EqualCost, Run, equal_cost, group_by_dataset

Row = dict[str, Any]

# The title of each measure, and its number of decimals.
MEASURES = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "lpips_alex": ("LPIPS (AlexNet)", 3),
}

# Predictions that need no training (srt/evaluation/scores.py). `gain_psnr` is over the better of
# the baselines. The peer stands apart, because it knows the cameras, as a model does.
BASELINES = {"mean_colour": "mean colour", "input_view": "input copied"}
PEER = "warped_input"

# What a model costs: counts are in metrics.json, times in costs.json.
COST_COUNTS = ("parameters", "encode_flops", "frame_flops")
COST_TIMES = ("encode_seconds", "frame_seconds")


def result_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the raw figures, a row for each run and protocol. None is what was not measured."""
    # Where a dataset's trainings are compared depends on all of its runs.
    equal = {data: equal_cost(group) for data, group in group_by_dataset(runs).items()}
    return [
        result_row(run, protocol, equal[run.data])
        for run in runs
        for protocol in run.metrics["protocols"]
    ]


def result_row(run: Run, protocol: str, equal: EqualCost) -> Row:
    """Return the raw figures of a run by one protocol, in the order of the CSV's columns.

    Args:
        equal: the steps and the seconds at which the runs of this dataset are compared.
    """
    figures = run.metrics["protocols"][protocol]
    return {
        "run": run.name,
        "dataset": run.metrics["dataset"],
        "synthetic": "yes" if run.metrics["synthetic"] else "no",
        "steps": run.training["steps"],
        "best_step": run.training["best_step"],
        "protocol": protocol,
        "departure": run.departure,
        "split": run.metrics["split"],
        "items": figures["items"],
        "items_of": figures["of"],
        **{name: figures[name] for name in MEASURES},
        **_published_values(run, protocol, figures),
        **_baseline_values(figures),
        **_seed_values(run, protocol),
        **{name: run.metrics["costs"][name] for name in COST_COUNTS},
        "equal_steps": equal.steps and int(equal.steps),
        "equal_steps_psnr": value_at(run.psnr_by_step, equal.steps),
        **_machine_values(run, equal),
    }


def _published_values(run: Run, protocol: str, figures: Row) -> Row:
    """Return the published result that a run reproduces, and the run's difference from it.

    Synthetic scenes have no published result, nor has an evaluation that departs from its protocol.
    The difference is None if the result was published for another test set.
    """
    # Only an unchanged evaluation on the published data reproduces a result.
    reproduces = not run.metrics["synthetic"] and not run.departure
    published = published_result(run.name, protocol) if reproduces else None

    # Even then, part of the data may have been evaluated: a difference would mislead.
    difference = None
    if published and is_comparable(published, run):
        difference = round(figures["psnr"] - published.psnr, 6)
    return {
        **{f"published_{name}": getattr(published, name, None) for name in MEASURES},
        "published_method": published and published.method,
        "published_source": published and published.source,
        "published_mark": published and published.mark,
        "difference_psnr": difference,
    }


def _baseline_values(figures: Row) -> Row:
    """Return the PSNR of the baselines, and the gains over the better one and over the peer."""
    baselines = {name: figures["baselines"][name]["psnr"] for name in BASELINES}
    gain = round(figures["psnr"] - max(baselines.values()), 6)

    # Evaluations from before the peer was added have no figure of it.
    peer = figures["baselines"].get(PEER, {}).get("psnr")
    gain_over_peer = None if peer is None else round(figures["psnr"] - peer, 6)
    return {
        **{f"{name}_psnr": psnr for name, psnr in baselines.items()},
        "gain_psnr": gain,
        f"{PEER}_psnr": peer,
        "gain_over_peer_psnr": gain_over_peer,
    }


def _seed_values(run: Run, protocol: str) -> Row:
    """Return the number of seeds, and the mean and standard deviation of each measure over them."""
    # A single seed has neither mean nor spread.
    statistics = {name: run.mean_and_deviation(protocol, name) or (None, None) for name in MEASURES}
    return {
        "seeds": len(run.seeds),
        **{f"{name}_mean": mean for name, (mean, _) in statistics.items()},
        **{f"{name}_spread": spread for name, (_, spread) in statistics.items()},
    }


def _machine_values(run: Run, equal: EqualCost) -> Row:
    """Return the figures that depend on the machine."""
    return {
        "equal_seconds": equal.seconds and round(equal.seconds, 6),
        "equal_seconds_psnr": value_at(run.psnr_by_time, equal.seconds),
        **{name: run.costs[name] for name in COST_TIMES},
        "gpu_hours": run.gpu_hours,
        "joules": run.training.get("joules"),
        "training_peak_gigabytes": run.training.get("peak_gigabytes"),
        "training_seconds": run.training["seconds"],
        "hardware": run.training["hardware"],
    }


def is_comparable(published: Result, run: Run) -> bool:
    """Return True if a run was measured on the test set of a published result.

    Test sets of the same dataset are the same if they have the same number of items.
    """
    metrics = run.metrics
    same_size = metrics["protocols"][published.protocol]["of"] == published.items
    reproduces = not metrics["synthetic"] and not run.departure
    return reproduces and metrics["split"] == "test" and same_size
