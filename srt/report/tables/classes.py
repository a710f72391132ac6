"""The tables by class, which published figures may stand beside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import NOT_MEASURED, Table
from srt.report.tables.results import MEASURES, applies_to, number
from srt.results.published_figures import PROTOCOLS, Result, published_result
from srt.results.runs import Run


def class_tables(runs: Sequence[Run]) -> list[Table]:
    """Returns a table for each dataset and protocol: a row a class, a column a run and measure.

    There is none where all scenes are of one class. Published columns stand beside runs that were
    measured on the published test set.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        for protocol, figures in run.metrics["protocols"].items():
            if len(figures["classes"]) > 1:
                groups.setdefault((run.data, protocol, run.departure), []).append(run)
    return [_class_table(*key, group) for key, group in groups.items()]


def _class_table(data: str, protocol: str, departure: str, runs: Sequence[Run]) -> Table:
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
        if result and result.classes and applies_to(result, run) and title not in dict(columns):
            columns.append((title, published_classes(result)))
            notes.append(f"{result.method}, published: {result.source} ({result.mark}).")
    classes = {name for figure in figures for name in figure["classes"]}
    return Table(
        title=f"By class: {data}, protocol {', '.join(filter(None, (protocol, departure)))}",
        align="l" + "r" * len(columns) * len(measures),
        header=["class", *(f"{title} {MEASURES[m][0]}" for title, _ in columns for m in measures)],
        rows=[
            [
                name,
                *(_class_cell(column, name, m) for _, column in columns for m in measures),
            ]
            for name in (*sorted(classes, key=_natural), "all")
        ],
        notes=notes,
    )


def published_classes(result: Result) -> dict[str, dict[str, Any]]:
    """Returns the measures of each class that a result has, and of all together."""
    measures = ("psnr", "ssim", "lpips")
    classes = {
        name: dict(zip(measures, values, strict=True)) for name, values in result.classes.items()
    }
    return {**classes, "all": {name: getattr(result, name) for name in measures}}


def published_class(result: Result, name: str) -> dict[str, Any] | None:
    """Returns the same of one class; a dataset's name of it may list synonyms."""
    return _known(published_classes(result), name)


def _known(column: dict[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((column[word] for word in (name, *name.split(",")) if word in column), None)


def _natural(name: str) -> list[str | int]:
    """Returns what sorts `10 objects` behind `9 objects`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _class_cell(column: dict[str, dict[str, Any]], name: str, measure: str) -> str:
    """Returns a class's figure; a dataset's name of it may list synonyms: `vessel,watercraft`."""
    found = _known(column, name)
    return EN_DASH if found is None else number(found, measure)
