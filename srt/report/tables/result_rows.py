"""The raw figures of the runs, a row for each run and protocol, which are published as CSV.

The tables of results, trainings and baselines are made from these rows. A row ends with what
depends on the machine: times and hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srt.results.curves import value_at
from srt.results.published_figures import Result, published_result
from srt.results.records import Measure, Measures, ModelCosts, ProtocolScores
from srt.results.runs import EqualCost, Run, equal_cost, group_by_dataset

# The title of each measure, and its number of decimals.
MEASURES: dict[Measure, tuple[str, int]] = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "lpips_alex": ("LPIPS (AlexNet)", 3),
}


@dataclass(frozen=True, kw_only=True)
class RunColumns:
    """What was measured, on how much."""

    run: str
    dataset: str
    synthetic: bool
    steps: int
    best_step: int
    protocol: str
    departure: str  # what the evaluation changed in the protocol; empty: nothing
    split: str
    items: int
    items_of: int  # how many items the protocol has


@dataclass(frozen=True, kw_only=True)
class PublishedColumns:
    """The published result that the run reproduces, and how much better the run is, in dB."""

    published_psnr: float | None
    published_ssim: float | None
    published_lpips: float | None
    published_lpips_alex: float | None
    published_method: str | None
    published_source: str | None
    published_mark: str | None
    difference_psnr: float | None


@dataclass(frozen=True, kw_only=True)
class BaselineColumns:
    """The PSNR of predictions that need no training, and how much better the run is, in dB.

    `gain_psnr` is over the better of mean colour and input view. The warped input stands apart,
    because it knows the cameras, as a model does. It is the run's peer.
    """

    mean_colour_psnr: float
    input_view_psnr: float
    gain_psnr: float
    warped_input_psnr: float | None
    gain_over_peer_psnr: float | None


@dataclass(frozen=True, kw_only=True)
class SeedColumns:
    """Mean and standard deviation of each measure over the seeds; None for a single seed."""

    seeds: int
    psnr_mean: float | None
    ssim_mean: float | None
    lpips_mean: float | None
    lpips_alex_mean: float | None
    psnr_spread: float | None
    ssim_spread: float | None
    lpips_spread: float | None
    lpips_alex_spread: float | None


@dataclass(frozen=True, kw_only=True)
class EqualStepsColumns:
    """The steps at which the runs of a dataset are compared, and the validation PSNR there."""

    equal_steps: int | None
    equal_steps_psnr: float | None


@dataclass(frozen=True, kw_only=True)
class MachineColumns:
    """The figures that depend on the machine. The validation PSNR is that after equal seconds."""

    equal_seconds: float | None
    equal_seconds_psnr: float | None
    encode_seconds: float
    frame_seconds: float
    gpu_hours: float | None
    joules: int | None
    training_peak_gigabytes: float | None
    training_seconds: float
    hardware: str


# The columns of the last base come first.
@dataclass(frozen=True, kw_only=True)
class ResultRow(
    MachineColumns,
    EqualStepsColumns,
    ModelCosts,
    SeedColumns,
    BaselineColumns,
    PublishedColumns,
    Measures,
    RunColumns,
):
    """The raw figures of a run by one protocol. The fields are the columns of the CSV."""


def result_rows(runs: Sequence[Run]) -> list[ResultRow]:
    """Return the raw figures, a row for each run and protocol. None is what was not measured."""
    # Where a dataset's trainings are compared depends on all of its runs.
    equal = {data: equal_cost(group) for data, group in group_by_dataset(runs).items()}
    return [
        result_row(run, protocol, equal[run.data])
        for run in runs
        for protocol in run.metrics.protocols
    ]


def result_row(run: Run, protocol: str, equal: EqualCost) -> ResultRow:
    """Return the raw figures of a run by one protocol.

    Args:
        equal: the steps and the seconds at which the runs of this dataset are compared.
    """
    scores = run.metrics.protocols[protocol]
    return ResultRow(
        **vars(_run_columns(run, protocol, scores)),
        psnr=scores.psnr,
        ssim=scores.ssim,
        lpips=scores.lpips,
        lpips_alex=scores.lpips_alex,
        **vars(_published_columns(run, protocol, scores)),
        **vars(_baseline_columns(scores)),
        **vars(_seed_columns(run, protocol)),
        **vars(run.metrics.costs),
        equal_steps=None if equal.steps is None else int(equal.steps),
        equal_steps_psnr=value_at(run.psnr_by_step, equal.steps),
        **vars(_machine_columns(run, equal)),
    )


def _run_columns(run: Run, protocol: str, scores: ProtocolScores) -> RunColumns:
    return RunColumns(
        run=run.name,
        dataset=run.metrics.dataset,
        synthetic=run.metrics.synthetic,
        steps=run.training.steps,
        best_step=run.training.best_step,
        protocol=protocol,
        departure=run.departure,
        split=run.metrics.split,
        items=scores.items,
        items_of=scores.total_items,
    )


def _published_columns(run: Run, protocol: str, scores: ProtocolScores) -> PublishedColumns:
    """Return the published result that a run reproduces, and the run's difference from it.

    Synthetic scenes have no published result, nor has an evaluation that departs from its protocol.
    The difference is None if the result was published for another test set.
    """
    # Only an unchanged evaluation on the published data reproduces a result.
    reproduces = not run.metrics.synthetic and not run.departure
    published = published_result(run.name, protocol) if reproduces else None

    # Even then, part of the data may have been evaluated: a difference would mislead.
    difference = None
    if published and is_comparable(published, run):
        difference = round(scores.psnr - published.psnr, 6)
    return PublishedColumns(
        published_psnr=published.psnr if published else None,
        published_ssim=published.ssim if published else None,
        published_lpips=published.lpips if published else None,
        published_lpips_alex=None,  # no publication that is compared with has it
        published_method=published.method if published else None,
        published_source=published.source if published else None,
        published_mark=published.mark if published else None,
        difference_psnr=difference,
    )


def _baseline_columns(scores: ProtocolScores) -> BaselineColumns:
    """Return the PSNR of the baselines, and the gains over the better one and over the peer."""
    mean_colour = scores.baselines.mean_colour.psnr
    input_view = scores.baselines.input_view.psnr

    # Evaluations from before the peer was added have no figure of it.
    warped_input = scores.baselines.warped_input
    peer = warped_input.psnr if warped_input else None
    return BaselineColumns(
        mean_colour_psnr=mean_colour,
        input_view_psnr=input_view,
        gain_psnr=round(scores.psnr - max(mean_colour, input_view), 6),
        warped_input_psnr=peer,
        gain_over_peer_psnr=None if peer is None else round(scores.psnr - peer, 6),
    )


def _seed_columns(run: Run, protocol: str) -> SeedColumns:
    """Return the number of seeds, and the mean and standard deviation of each measure over them."""
    # A single seed has neither mean nor spread.
    psnr = run.mean_and_deviation(protocol, "psnr") or (None, None)
    ssim = run.mean_and_deviation(protocol, "ssim") or (None, None)
    lpips = run.mean_and_deviation(protocol, "lpips") or (None, None)
    lpips_alex = run.mean_and_deviation(protocol, "lpips_alex") or (None, None)
    return SeedColumns(
        seeds=len(run.seeds),
        psnr_mean=psnr[0],
        ssim_mean=ssim[0],
        lpips_mean=lpips[0],
        lpips_alex_mean=lpips_alex[0],
        psnr_spread=psnr[1],
        ssim_spread=ssim[1],
        lpips_spread=lpips[1],
        lpips_alex_spread=lpips_alex[1],
    )


def _machine_columns(run: Run, equal: EqualCost) -> MachineColumns:
    return MachineColumns(
        equal_seconds=None if equal.seconds is None else round(equal.seconds, 6),
        equal_seconds_psnr=value_at(run.psnr_by_time, equal.seconds),
        encode_seconds=run.costs.encode_seconds,
        frame_seconds=run.costs.frame_seconds,
        gpu_hours=run.gpu_hours,
        joules=run.training.joules,
        training_peak_gigabytes=run.training.peak_gigabytes,
        training_seconds=run.training.seconds,
        hardware=run.training.hardware,
    )


def is_comparable(published: Result, run: Run) -> bool:
    """Return True if a run was measured on the test set of a published result.

    Test sets of the same dataset are the same if they have the same number of items.
    """
    metrics = run.metrics
    same_size = metrics.protocols[published.protocol].total_items == published.items
    reproduces = not metrics.synthetic and not run.departure
    return reproduces and metrics.split == "test" and same_size
