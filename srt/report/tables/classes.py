"""The tables by class: the runs of a dataset, and published figures that are comparable."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import MOST_COLUMNS, NOT_MEASURED, Table
from srt.report.tables.cells import format_measure
from srt.report.tables.result_rows import MEASURES, is_comparable
from srt.results.published_figures import PROTOCOLS, Result, published_result
from srt.results.records import Measure, Measures, ProtocolScores
from srt.results.runs import Run

# The measures of each class, by the name of the class. `all` is the whole dataset.
ClassFigures = dict[str, Measures]


def class_tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of each dataset and protocol: one for each measure, or for a single run.

    A dataset whose scenes are all of one class has no table.
    """
    # Evaluations that depart from a protocol in the same way are compared with one another only.
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        for protocol, scores in run.metrics.protocols.items():
            if len(scores.classes) > 1:
                groups.setdefault((run.data, protocol, run.departure), []).append(run)
    return [table for key, group in groups.items() for table in _class_tables(*key, group)]


def _class_tables(data: str, protocol: str, departure: str, runs: Sequence[Run]) -> list[Table]:
    """Return the tables of the runs of one dataset, measured by one protocol.

    Args:
        departure: what these evaluations changed in the protocol; empty if nothing.
    """
    # Measures that no run has get no table, but a note.
    all_scores = [run.metrics.protocols[protocol] for run in runs]
    defined = PROTOCOLS[protocol].measures
    measures = [name for name in defined if any(s.value(name) is not None for s in all_scores)]
    notes = [f"{MEASURES[name][0]} {NOT_MEASURED}." for name in defined if name not in measures]

    # Published results come first, and a note names the source of each. Then come the runs.
    columns = {}
    for result in comparable_results(runs, protocol):
        columns[f"{result.method}, published"] = published_classes(result)
        notes.append(f"{result.method}, published: {result.source} ({result.mark}).")
    columns |= {
        run.name: _run_classes(scores) for run, scores in zip(runs, all_scores, strict=True)
    }

    # Evaluations with changed conditions say so in the title.
    conditions = f"{protocol}, {departure}" if departure else protocol
    classes = {name for scores in all_scores for name in scores.classes}
    return tables_by_measure(
        title=f"by class: {data}, protocol {conditions}",
        classes=[*sorted(classes, key=_natural_order), "all"],
        methods=list(columns),
        measures=measures,
        cell=lambda method, class_name, measure: _class_cell(columns[method], class_name, measure),
        notes=notes,
    )


def tables_by_measure(
    *,
    title: str,
    classes: Sequence[str],
    methods: Sequence[str],
    measures: Sequence[Measure],
    cell: Callable[[str, str, Measure], str],
    notes: list[str],
) -> list[Table]:
    """Return a table for each measure: a row a class, a column a method.

    A single method has one table, in which each measure is a column.

    Args:
        title: of each table, behind the name of its measure or of the single method.
        cell: returns the text of a method's measure of a class.
    """

    def make_table(subject: str, columns: dict[str, tuple[str, Measure]]) -> Table:
        # Each column is a method and a measure, by the title of the column.
        return Table(
            title=f"{subject} {title}",
            align="l" + "r" * len(columns),
            header=["class", *columns],
            rows=[
                [name, *(cell(method, name, measure) for method, measure in columns.values())]
                for name in classes
            ],
            notes=notes,
        )

    if len(methods) == 1:
        (method,) = methods
        return [make_table(method, {MEASURES[name][0]: (method, name) for name in measures})]

    # Many methods have several tables, none of which is wider than a page.
    tables = []
    for measure in measures:
        for start in range(0, len(methods), MOST_COLUMNS - 1):
            columns = {name: (name, measure) for name in methods[start : start + MOST_COLUMNS - 1]}
            table = make_table(MEASURES[measure][0], columns)
            suffix = f", from {methods[start]} on" if start else ""
            tables.append(dataclasses.replace(table, title=f"{table.title}{suffix}"))
    return tables


def _run_classes(scores: ProtocolScores) -> ClassFigures:
    """Return what a run measured of each class, and of all classes together."""
    return {**scores.classes, "all": scores}


def comparable_results(runs: Sequence[Run], protocol: str) -> list[Result]:
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
    classes = {
        name: Measures(psnr=psnr, ssim=ssim, lpips=lpips)
        for name, (psnr, ssim, lpips) in result.classes.items()
    }
    return {**classes, "all": Measures(psnr=result.psnr, ssim=result.ssim, lpips=result.lpips)}


def published_class(result: Result, name: str) -> Measures | None:
    """Return the published measures of one class, or None if the result has no such class.

    Args:
        name: of the class in the dataset, which may list synonyms: `vessel,watercraft`.
    """
    return _find_class(published_classes(result), name)


def _find_class(figures: ClassFigures, name: str) -> Measures | None:
    """Return the measures of a class, by its whole name or by the first synonym that matches."""
    for synonym in (name, *name.split(",")):
        if synonym in figures:
            return figures[synonym]
    return None


def _natural_order(name: str) -> list[str | int]:
    """Return a key that sorts `10 objects` after `9 objects`."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", name)]


def _class_cell(column: ClassFigures, name: str, measure: Measure) -> str:
    """Return a measure of a class, or a dash if the column does not have the class."""
    measures = _find_class(column, name)
    return EN_DASH if measures is None else format_measure(measures.value(measure), measure)
