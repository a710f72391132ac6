"""The cells that several tables have: dataset, protocol, items and measures of a row."""

from __future__ import annotations

from srt.report.format.numbers import EN_DASH, format_count
from srt.report.format.table import NOT_MEASURED
from srt.report.tables.result_rows import MEASURES, ResultRow
from srt.results.published_figures import PROTOCOLS
from srt.results.records import Measure


def format_measure(value: float | None, name: Measure) -> str:
    """Return a measure with its number of decimals, or that it was not measured."""
    return NOT_MEASURED if value is None else f"{value:.{MEASURES[name][1]}f}"


def measure_cell(row: ResultRow, name: Measure) -> str:
    """Return a measure of a row, or a dash if the row's protocol does not define it."""
    defined = name in PROTOCOLS[row.protocol].measures
    return format_measure(row.value(name), name) if defined else EN_DASH


def dataset_cell(row: ResultRow) -> str:
    """Return the dataset's name, and that it is synthetic if it is."""
    suffix = " (synthetic)" if row.synthetic else ""
    return f"{row.dataset}{suffix}"


def protocol_cell(row: ResultRow) -> str:
    """Return the protocol and what the evaluation changed in it."""
    return f"{row.protocol}, {row.departure}" if row.departure else row.protocol


def items_cell(row: ResultRow) -> str:
    """Return how many items were measured, and of which split if it is not the test split."""
    measured = format_count(row.items)
    total = format_count(row.items_of)
    text = f"all {total}" if measured == total else f"{measured} of {total}"
    return text if row.split == "test" else f"{text}, {row.split}"
