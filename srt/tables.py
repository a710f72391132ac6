"""Measured runs -> what the result tables say.

A row is one run under one protocol. What is deterministic comes first in it; what the machine
decides, time and hardware, is last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from srt.published import PROTOCOLS, Result, published_result
from srt.typesetting import Table

Row = dict[str, Any]
Curve = list[tuple[float, float]]

NONE = "–"
NOT_MEASURED = "not measured"
MEASURES = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 3), "lpips": ("LPIPS", 3)}  # title, digits


@dataclass(frozen=True)
class Run:
    """What train and evaluate wrote of an experiment."""

    metrics: dict[str, Any]
    training: dict[str, Any]
    history: dict[str, Curve]

    @property
    def name(self) -> str:
        return str(self.metrics["experiment"])

    @property
    def data(self) -> str:
        return f"{self.metrics['dataset']}{' (synthetic)' if self.metrics['synthetic'] else ''}"

    @property
    def label(self) -> str:
        return f"{self.name}: {self.data}"


def result_rows(runs: Sequence[Run]) -> list[Row]:
    """Returns the raw figures, a row for each run and protocol; None is not measured or absent."""
    return [result_row(run, protocol) for run in runs for protocol in run.metrics["protocols"]]


def result_row(run: Run, protocol: str) -> Row:
    """Returns a row: no published figure for synthetic scenes, no difference on another test set.

    The published test set is told by its number of items.
    """
    figures = run.metrics["protocols"][protocol]
    published = None if run.metrics["synthetic"] else published_result(run.name, protocol)
    baselines = [figures["baselines"][name]["psnr"] for name in ("mean_colour", "input_view")]
    return {
        "run": run.name,
        "dataset": run.metrics["dataset"],
        "synthetic": "yes" if run.metrics["synthetic"] else "no",
        "steps": run.training["steps"],
        "best_step": run.training["best_step"],
        "protocol": protocol,
        "split": run.metrics["split"],
        "items": figures["items"],
        "items_of": figures["of"],
        **{name: figures[name] for name in MEASURES},
        **{f"published_{name}": getattr(published, name, None) for name in MEASURES},
        "published_method": published and published.method,
        "published_source": published and published.source,
        "published_mark": published and published.mark,
        "difference_psnr": round(figures["psnr"] - published.psnr, 6)
        if published and is_of(published, run)
        else None,
        "mean_colour_psnr": baselines[0],
        "input_view_psnr": baselines[1],
        "gain_psnr": round(figures["psnr"] - max(baselines), 6),
        "training_seconds": run.training["seconds"],
        "hardware": run.training["hardware"],
    }


def is_of(published: Result, run: Run) -> bool:
    """Says whether a published figure was measured on the test set that a run was measured on."""
    metrics = run.metrics
    whole = metrics["protocols"][published.protocol]["of"]
    return not metrics["synthetic"] and metrics["split"] == "test" and whole == published.items


def results_table(rows: Sequence[Row], profile: str) -> Table:
    """Returns the main table, with notes that say how to read it and where figures are from."""
    sources = list(dict.fromkeys(_source(row) for row in rows if row["published_psnr"]))

    def published(row: Row) -> str:
        if row["published_psnr"] is None:
            return NONE
        return f"{row['published_psnr']:.2f} [{sources.index(_source(row)) + 1}]"

    columns: list[tuple[str, str, Callable[[Row], str]]] = [
        ("run", "l", lambda row: row["run"]),
        ("dataset", "l", lambda row: row["dataset"] + " (synthetic)" * (row["synthetic"] == "yes")),
        ("iterations", "r", lambda row: _count(row["steps"])),
        ("selected", "r", lambda row: _count(row["best_step"])),
        ("protocol", "l", lambda row: row["protocol"]),
        ("items measured", "r", _items),
        *((title, "r", _measure(name)) for name, (title, _) in MEASURES.items()),
        ("published PSNR", "r", published),
        ("difference", "r", lambda row: _signed(row["difference_psnr"])),
        ("mean colour PSNR", "r", lambda row: f"{row['mean_colour_psnr']:.2f}"),
        ("input copied PSNR", "r", lambda row: f"{row['input_view_psnr']:.2f}"),
        ("gain", "r", lambda row: _signed(row["gain_psnr"])),
        ("training time", "r", lambda row: duration(row["training_seconds"])),
        ("hardware", "l", lambda row: row["hardware"]),
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
        " the nearest input view as the prediction. Gain: PSNR over the better of the two.",
        *(
            f"Protocol {p}: {PROTOCOLS[p].text}."
            for p in dict.fromkeys(r["protocol"] for r in rows)
        ),
    ]
    if any(row["items"] < row["items_of"] for row in rows):
        notes.append("Items measured: where not all were, they are spread evenly over all.")
    if any(row["synthetic"] == "yes" for row in rows):
        notes.append(
            "Synthetic scenes are not the published data: no published figure can be compared with"
            " theirs, so none is shown."
        )
    if any(r["published_psnr"] and r["difference_psnr"] is None for r in rows):
        notes.append(
            f"Difference {NONE}: the published figure is of another test set, as the number of"
            " items tells."
        )
    if NOT_MEASURED in (_measure("lpips")(row) for row in rows):
        notes.append(f"LPIPS {NOT_MEASURED}: the profile names no weights of its backbone.")
    return notes


def class_tables(runs: Sequence[Run]) -> list[Table]:
    """Returns a table for each dataset and protocol: a row a class, a column a run and measure.

    Published columns stand beside runs that were measured on the published test set.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for protocol in run.metrics["protocols"]:
            groups.setdefault((run.data, protocol), []).append(run)
    return [_class_table(*key, group) for key, group in groups.items()]


def _class_table(data: str, protocol: str, runs: Sequence[Run]) -> Table:
    figures = [run.metrics["protocols"][protocol] for run in runs]
    defined = PROTOCOLS[protocol].measures
    measures = [name for name in defined if any(figure[name] is not None for figure in figures)]
    columns = [
        (run.name, {**figure["classes"], "all": figure})
        for run, figure in zip(runs, figures, strict=True)
    ]
    notes = [f"{MEASURES[m][0]} {NOT_MEASURED}." for m in defined if m not in measures]
    for run in runs:
        result = published_result(run.name, protocol)
        title = f"{result.method}, published" if result else ""
        if result and result.classes and is_of(result, run) and title not in dict(columns):
            columns.append((title, _published_classes(result)))
            notes.append(f"{result.method}, published: {result.source} ({result.mark}).")
    names = dict.fromkeys([name for figure in figures for name in figure["classes"]] + ["all"])
    return Table(
        title=f"By class: {data}, protocol {protocol}",
        align="l" + "r" * len(columns) * len(measures),
        header=["class", *(f"{title} {MEASURES[m][0]}" for title, _ in columns for m in measures)],
        rows=[
            [
                name,
                *(_class_cell(column, name, m) for _, column in columns for m in measures),
            ]
            for name in names
        ],
        notes=notes,
    )


def _published_classes(result: Result) -> dict[str, dict[str, float | None]]:
    classes = {
        name: dict(zip(MEASURES, values, strict=True)) for name, values in result.classes.items()
    }
    return {**classes, "all": {name: getattr(result, name) for name in MEASURES}}


def _class_cell(column: dict[str, dict[str, Any]], name: str, measure: str) -> str:
    """Returns a class's figure; a dataset's name of it may list synonyms: `vessel,watercraft`."""
    found = [column[word] for word in (name, *name.split(",")) if word in column]
    return _number(found[0], measure) if found else NONE


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
    whole = _count(row["items_of"])
    part = (
        f"all {whole}" if row["items"] == row["items_of"] else f"{_count(row['items'])} of {whole}"
    )
    return part if row["split"] == "test" else f"{part}, {row['split']}"


def _measure(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        return _number(row, name) if name in PROTOCOLS[row["protocol"]].measures else NONE

    return cell


def _number(figures: dict[str, Any], name: str) -> str:
    value = figures[name]
    return NOT_MEASURED if value is None else f"{value:.{MEASURES[name][1]}f}"


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+.2f}".replace("-", "−")


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u00a0")


def duration(seconds: float) -> str:
    """Returns a time to read: `40 s`, `2 min`, `3 h 10 min`, `12 d`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 60 / 24)} d"
