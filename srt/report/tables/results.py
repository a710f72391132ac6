"""The table of results: one row for each run and protocol.

`result_rows` makes the raw figures, which are published as CSV. `results_table` formats them and
says in notes how to read them.

A row ends with what depends on the machine: times and hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from srt.report.format.numbers import (
    EN_DASH,
    format_count,
    format_decibels,
    format_duration,
    format_signed,
    format_threads,
)
from srt.report.format.table import NOT_MEASURED, Table
from srt.results.curves import value_at
from srt.results.published_figures import PROTOCOLS, Result, published_result
from srt.results.runs import EqualCost, Run, equal_cost, group_by_dataset

Row = dict[str, Any]

# The title of each measure, and its number of decimals.
MEASURES = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "lpips_alex": ("LPIPS (AlexNet)", 3),
}

# Predictions that need no training (srt/evaluation/scores.py). The gain is over the better of the
# baselines. The peer stands apart, because it knows the cameras, as a model does.
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


def results_table(rows: Sequence[Row], profile: str) -> Table:
    """Return the main table. Its notes say how to read it and where published figures are from."""
    # The sources of published figures are numbered in the order of the rows.
    sources = list(dict.fromkeys(_source_note(row) for row in rows if row["published_psnr"]))

    def published_cell(row: Row) -> str:
        if row["published_psnr"] is None:
            return EN_DASH
        return f"{row['published_psnr']:.2f} [{sources.index(_source_note(row)) + 1}]"

    # Each column is its title, its alignment and the text of its cell in a row.
    columns: list[tuple[str, str, Callable[[Row], str]]] = [
        ("run", "l", lambda row: row["run"]),
        ("dataset", "l", _dataset_cell),
        ("iterations", "r", lambda row: format_count(row["steps"])),
        ("selected", "r", lambda row: format_count(row["best_step"])),
        ("protocol", "l", _protocol_cell),
        ("items measured", "r", _items_cell),
        *((MEASURES[name][0], "r", _measure_cell(name)) for name in _defined_measures(rows)),
        ("published PSNR", "r", published_cell),
        ("difference", "r", lambda row: format_signed(row["difference_psnr"])),
        *((f"{title} PSNR", "r", _baseline_cell(name)) for name, title in BASELINES.items()),
        ("gain", "r", lambda row: format_signed(row["gain_psnr"])),
        ("input warped PSNR", "r", _baseline_cell(PEER)),
        ("gain over it", "r", lambda row: format_signed(row["gain_over_peer_psnr"])),
        ("training time", "r", lambda row: format_duration(row["training_seconds"])),
        ("hardware", "l", lambda row: format_threads(row["hardware"])),
    ]
    return Table(
        title=f"Results of profile {profile}",
        align="".join(align for _, align, _ in columns),
        header=[title for title, _, _ in columns],
        rows=[[cell(row) for _, _, cell in columns] for row in rows],
        notes=_notes(rows) + [f"[{number}] {text}" for number, text in enumerate(sources, start=1)],
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    """Return the notes of the table: those on every table, then those that these rows need."""
    protocols = dict.fromkeys(row["protocol"] for row in rows)
    notes = [
        "Selected: the step of the weights that are measured, the best by PSNR on the validation"
        " scenes. PSNR, differences and gains are in dB.",
        "Mean colour and input copied are baselines: the training set's mean colour everywhere, and"
        " the nearest input view as the prediction. Gain: PSNR over the better of them. Input"
        " warped is a classic that learns nothing but knows the cameras: the nearest input view as"
        " if it were painted on a plane through the world's origin that faces its camera, the mean"
        " colour of its edge around it.",
        *(f"Protocol {name}: {PROTOCOLS[name].text}." for name in protocols),
    ]

    # A note on a special case stands there only if a row is such a case.
    if any(row["items"] < row["items_of"] for row in rows):
        notes.append("Items measured: where not all were, they are spread evenly over all.")
    if any(row["warped_input_psnr"] is None for row in rows):
        notes.append(f"Input warped {EN_DASH}: evaluated before this was measured.")
    if any(row["departure"] for row in rows):
        notes.append(
            "What is said after a protocol departs from it, and no published figure is compared"
            " with it. Fewer input views: the first ones, and the targets stay. Pose noise: the"
            " deviation of the input cameras' poses, the first one's apart, from the true ones, in"
            " radians and in units of the world."
        )
    if any(row["synthetic"] == "yes" for row in rows):
        notes.append(
            "Synthetic scenes are not the published data: no published figure can be compared with"
            " theirs, so none is shown."
        )
    if any(row["published_psnr"] and row["difference_psnr"] is None for row in rows):
        notes.append(
            f"Difference {EN_DASH}: the published figure is of another test set, as the number of"
            " items tells."
        )
    cells = (_measure_cell(name)(row) for row in rows for name in _defined_measures(rows))
    if NOT_MEASURED in cells:
        notes.append(f"LPIPS {NOT_MEASURED}: the profile names no weights of its backbone.")
    return notes


def _source_note(row: Row) -> str:
    """Return the published figures of a row, their protocol and where they were read."""
    measures = [
        f"{title} {row[f'published_{name}']:.{digits}f}"
        for name, (title, digits) in MEASURES.items()
        if row[f"published_{name}"] is not None
    ]
    return (
        f"{row['published_method']}: {', '.join(measures)}; protocol {row['protocol']};"
        f" {row['published_source']} ({row['published_mark']})."
    )


def _dataset_cell(row: Row) -> str:
    suffix = " (synthetic)" if row["synthetic"] == "yes" else ""
    return f"{row['dataset']}{suffix}"


def _items_cell(row: Row) -> str:
    """Return how many items were measured, and of which split if it is not the test split."""
    measured = format_count(row["items"])
    total = format_count(row["items_of"])
    text = f"all {total}" if measured == total else f"{measured} of {total}"
    return text if row["split"] == "test" else f"{text}, {row['split']}"


def _protocol_cell(row: Row) -> str:
    return f"{row['protocol']}, {row['departure']}" if row["departure"] else str(row["protocol"])


def _defined_measures(rows: Sequence[Row]) -> list[str]:
    """Return the measures that the protocol of any row defines."""
    # They stay in the order of MEASURES, which is the order of the columns.
    protocols = {row["protocol"] for row in rows}
    defined = {name for protocol in protocols for name in PROTOCOLS[protocol].measures}
    return [name for name in MEASURES if name in defined]


def _baseline_cell(name: str) -> Callable[[Row], str]:
    """Return the function that formats a baseline's PSNR."""
    return lambda row: format_decibels(row[f"{name}_psnr"])


def _measure_cell(name: str) -> Callable[[Row], str]:
    """Return the function that formats a measure, as a dash if the protocol does not define it."""

    def cell(row: Row) -> str:
        defined = name in PROTOCOLS[row["protocol"]].measures
        return format_measure(row, name) if defined else EN_DASH

    return cell


def format_measure(figures: dict[str, Any], name: str) -> str:
    """Return a measure with its number of decimals, or that it was not measured."""
    value = figures[name]
    return NOT_MEASURED if value is None else f"{value:.{MEASURES[name][1]}f}"
