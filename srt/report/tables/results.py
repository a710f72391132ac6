"""Measured runs -> what the result tables say.

A row is one run under one protocol. What is deterministic comes first in it; what the machine
decides, time and hardware, is last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from srt.report.format.numbers import (
    EN_DASH,
    count,
    format_decibels,
    format_duration,
    format_signed,
    format_threads,
)
from srt.report.format.table import NOT_MEASURED, Table
from srt.results.curves import value_at
from srt.results.published_figures import PROTOCOLS, Result, published_result
from srt.results.runs import Equal, Run, by_dataset, equal_cost

Row = dict[str, Any]

MEASURES = {  # title, digits
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "lpips_alex": ("LPIPS (AlexNet)", 3),
}
BASELINES = {
    "mean_colour": "mean colour",
    "input_view": "input copied",
}  # of srt/evaluation/scores.py
PEER = "warped_input"  # another of them, which knows where the cameras are
COUNTED = ("parameters", "encode_flops", "frame_flops")
TIMED = ("encode_seconds", "frame_seconds")


def result_rows(runs: Sequence[Run]) -> list[Row]:
    """Returns the raw figures, a row for each run and protocol; None is not measured or absent."""
    equal = {data: equal_cost(group) for data, group in by_dataset(runs).items()}
    return [
        result_row(run, protocol, equal[run.data])
        for run in runs
        for protocol in run.metrics["protocols"]
    ]


def result_row(run: Run, protocol: str, equal: Equal) -> Row:
    """Returns a row: no published figure for synthetic scenes, no difference on another test set.

    The published test set is told by its number of items. Nor is there a published figure for an
    evaluation that departs from its protocol.
    """
    figures = run.metrics["protocols"][protocol]
    alike = not run.metrics["synthetic"] and not run.departure
    published = published_result(run.name, protocol) if alike else None
    baselines = {name: figures["baselines"][name]["psnr"] for name in BASELINES}
    best, peer = max(baselines.values()), figures["baselines"].get(PEER, {}).get("psnr")
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
        **{f"published_{name}": getattr(published, name, None) for name in MEASURES},
        "published_method": published and published.method,
        "published_source": published and published.source,
        "published_mark": published and published.mark,
        "difference_psnr": round(figures["psnr"] - published.psnr, 6)
        if published and applies_to(published, run)
        else None,
        **{f"{name}_psnr": psnr for name, psnr in baselines.items()},
        "gain_psnr": round(figures["psnr"] - best, 6),
        f"{PEER}_psnr": peer,
        "gain_over_peer_psnr": None if peer is None else round(figures["psnr"] - peer, 6),
        "seeds": len(run.seeds),
        **_over_seeds(run, protocol),
        **{name: run.metrics["costs"][name] for name in COUNTED},
        "equal_steps": equal.steps and int(equal.steps),
        "equal_steps_psnr": value_at(run.by_step, equal.steps),
        **_timed(run, equal),
    }


def _timed(run: Run, equal: Equal) -> Row:
    """Returns what the machine decides."""
    return {
        "equal_seconds": equal.seconds and round(equal.seconds, 6),
        "equal_seconds_psnr": value_at(run.by_time, equal.seconds),
        **{name: run.costs[name] for name in TIMED},
        "gpu_hours": run.gpu_hours,
        "joules": run.training.get("joules"),
        "training_peak_gigabytes": run.training.get("peak_gigabytes"),
        "training_seconds": run.training["seconds"],
        "hardware": run.training["hardware"],
    }


def _over_seeds(run: Run, protocol: str) -> Row:
    figures = {name: run.over_seeds(protocol, name) or (None, None) for name in MEASURES}
    means = {f"{name}_mean": mean for name, (mean, _) in figures.items()}
    return means | {f"{name}_spread": spread for name, (_, spread) in figures.items()}


def applies_to(published: Result, run: Run) -> bool:
    """Says whether a published figure was measured on the test set that a run was measured on."""
    metrics = run.metrics
    whole = metrics["protocols"][published.protocol]["of"]
    alike = not metrics["synthetic"] and not run.departure
    return alike and metrics["split"] == "test" and whole == published.items


def results_table(rows: Sequence[Row], profile: str) -> Table:
    """Returns the main table, with notes that say how to read it and where figures are from."""
    sources = list(dict.fromkeys(_source(row) for row in rows if row["published_psnr"]))

    def published(row: Row) -> str:
        if row["published_psnr"] is None:
            return EN_DASH
        return f"{row['published_psnr']:.2f} [{sources.index(_source(row)) + 1}]"

    columns: list[tuple[str, str, Callable[[Row], str]]] = [
        ("run", "l", lambda row: row["run"]),
        ("dataset", "l", lambda row: row["dataset"] + " (synthetic)" * (row["synthetic"] == "yes")),
        ("iterations", "r", lambda row: count(row["steps"])),
        ("selected", "r", lambda row: count(row["best_step"])),
        ("protocol", "l", _protocol),
        ("items measured", "r", _items),
        *((MEASURES[name][0], "r", _measure(name)) for name in _defined(rows)),
        ("published PSNR", "r", published),
        ("difference", "r", lambda row: format_signed(row["difference_psnr"])),
        *((f"{title} PSNR", "r", _baseline(name)) for name, title in BASELINES.items()),
        ("gain", "r", lambda row: format_signed(row["gain_psnr"])),
        ("input warped PSNR", "r", _baseline(PEER)),
        ("gain over it", "r", lambda row: format_signed(row["gain_over_peer_psnr"])),
        ("training time", "r", lambda row: format_duration(row["training_seconds"])),
        ("hardware", "l", lambda row: format_threads(row["hardware"])),
    ]
    return Table(
        title=f"Results of profile {profile}",
        align="".join(align for _, align, _ in columns),
        header=[title for title, _, _ in columns],
        rows=[[cell(row) for _, _, cell in columns] for row in rows],
        notes=[
            *_notes(rows),
            *(f"[{number}] {text}" for number, text in enumerate(sources, start=1)),
        ],
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = [
        "Selected: the step of the weights that are measured, the best by PSNR on the validation"
        " scenes. PSNR, differences and gains are in dB.",
        "Mean colour and input copied are baselines: the training set's mean colour everywhere, and"
        " the nearest input view as the prediction. Gain: PSNR over the better of them. Input"
        " warped is a classic that learns nothing but knows the cameras: the nearest input view as"
        " if it were painted on a plane through the world's origin that faces its camera, the mean"
        " colour of its edge around it.",
        *(
            f"Protocol {p}: {PROTOCOLS[p].text}."
            for p in dict.fromkeys(r["protocol"] for r in rows)
        ),
    ]
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
    if any(r["published_psnr"] and r["difference_psnr"] is None for r in rows):
        notes.append(
            f"Difference {EN_DASH}: the published figure is of another test set, as the number of"
            " items tells."
        )
    if any(_measure(name)(row) == NOT_MEASURED for row in rows for name in _defined(rows)):
        notes.append(f"LPIPS {NOT_MEASURED}: the profile names no weights of its backbone.")
    return notes


def _source(row: Row) -> str:
    measures = [
        f"{title} {row[f'published_{name}']:.{digits}f}"
        for name, (title, digits) in MEASURES.items()
        if row[f"published_{name}"] is not None
    ]
    return (
        f"{row['published_method']}: {', '.join(measures)}; protocol {row['protocol']};"
        f" {row['published_source']} ({row['published_mark']})."
    )


def _items(row: Row) -> str:
    whole = count(row["items_of"])
    part = (
        f"all {whole}" if row["items"] == row["items_of"] else f"{count(row['items'])} of {whole}"
    )
    return part if row["split"] == "test" else f"{part}, {row['split']}"


def _protocol(row: Row) -> str:
    return f"{row['protocol']}, {row['departure']}" if row["departure"] else str(row["protocol"])


def _defined(rows: Sequence[Row]) -> list[str]:
    """Returns the measures that any row's protocol defines."""
    return [
        name for name in MEASURES if any(name in PROTOCOLS[r["protocol"]].measures for r in rows)
    ]


def _baseline(name: str) -> Callable[[Row], str]:
    return lambda row: format_decibels(row[f"{name}_psnr"])


def _measure(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        return number(row, name) if name in PROTOCOLS[row["protocol"]].measures else EN_DASH

    return cell


def number(figures: dict[str, Any], name: str) -> str:
    """Returns a measure as the tables show it."""
    value = figures[name]
    return NOT_MEASURED if value is None else f"{value:.{MEASURES[name][1]}f}"
