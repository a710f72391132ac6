"""The tables by class: the runs of a dataset, and published figures that are comparable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import NOT_MEASURED, Table
from srt.report.tables.results import MEASURES, format_measure, is_comparable
from srt.results.published_figures import PROTOCOLS, Result, published_result
from srt.results.runs import Run

# The measures of each class, by the name of the class. `all` is the whole dataset.
ClassFigures = dict[str, dict[str, Any]]


def class_tables(runs: Sequence[Run]) -> list[Table]:
    """Return a table for each dataset and protocol: a row a class, a column a run and measure.

    A dataset whose scenes are all of one class has no table.
    """
    # Evaluations that depart from a protocol in the same way are compared with one another only.
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        for protocol, figures in run.metrics["protocols"].items():
            if len(figures["classes"]) > 1:
                groups.setdefault((run.data, protocol, run.departure), []).append(run)
    return [_class_table(*key, group) for key, group in groups.items()]


def _class_table(data: str, protocol: str, departure: str, runs: Sequence[Run]) -> Table:
    """Return the table of the runs of one dataset, measured by one protocol.

    Args:
        departure: what these evaluations changed in the protocol; empty if nothing.
    """
    # Measures that no run has get no column, but a note.
    figures = [run.metrics["protocols"][protocol] for run in runs]
    defined = PROTOCOLS[protocol].measures
    measures = [name for name in defined if any(figure[name] is not None for figure in figures)]
    notes = [f"{MEASURES[name][0]} {NOT_MEASURED}." for name in defined if name not in measures]

    # The runs come first, then published results. A note names the source of each of these.
    columns = [(run.name, _run_classes(figure)) for run, figure in zip(runs, figures, strict=True)]
    for result in _comparable_results(runs, protocol):
        columns.append((f"{result.method}, published", published_classes(result)))
        notes.append(f"{result.method}, published: {result.source} ({result.mark}).")

    # Every measure of a run or result is a column, every class a row.
    header = ["class"]
    for title, _ in columns:
        header += [f"{title} {MEASURES[name][0]}" for name in measures]
    classes = {name for figure in figures for name in figure["classes"]}
    rows = []
    for class_name in (*sorted(classes, key=_natural_order), "all"):
        row = [class_name]
        for _, column in columns:
            row += [_class_cell(column, class_name, name) for name in measures]
        rows.append(row)

    # Evaluations with changed conditions say so in the title.
    conditions = f"{protocol}, {departure}" if departure else protocol
    return Table(
        title=f"By class: {data}, protocol {conditions}",
        align="l" + "r" * (len(header) - 1),
        header=header,
        rows=rows,
        notes=notes,
    )


def _run_classes(figures: dict[str, Any]) -> ClassFigures:
    """Return what a run measured of each class, and of all classes together."""
    return {**figures["classes"], "all": figures}


def _comparable_results(runs: Sequence[Run], protocol: str) -> list[Result]:
    """Return the published results by class that are comparable with these runs."""
    # Several runs may reproduce the same method, which is shown once.
    results: dict[str, Result] = {}
    for run in runs:
        result = published_result(run.name, protocol)
        if result and result.classes and is_comparable(result, run):
            results.setdefault(result.method, result)
    return list(results.values())


def published_classes(result: Result) -> ClassFigures:
    """Return the published measures of each class, and of all classes together."""
    measures = ("psnr", "ssim", "lpips")
    classes = {
        name: dict(zip(measures, values, strict=True)) for name, values in result.classes.items()
    }
    return {**classes, "all": {name: getattr(result, name) for name in measures}}


def published_class(result: Result, name: str) -> dict[str, Any] | None:
    """Return the published measures of one class, or None if the result has no such class.

    Args:
        name: of the class in the dataset, which may list synonyms: `vessel,watercraft`.
    """
    return _find_class(published_classes(result), name)


def _find_class(figures: ClassFigures, name: str) -> dict[str, Any] | None:
    """Return the measures of a class, by its whole name or by the first synonym that matches."""
    for synonym in (name, *name.split(",")):
        if synonym in figures:
            return figures[synonym]
    return None


def _natural_order(name: str) -> list[str | int]:
    """Return a key that sorts `10 objects` after `9 objects`."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", name)]


def _class_cell(column: ClassFigures, name: str, measure: str) -> str:
    """Return a measure of a class, or a dash if the column does not have the class."""
    figures = _find_class(column, name)
    return EN_DASH if figures is None else format_measure(figures, measure)
