"""The table of results: one row for each run and protocol, with the best figures in bold type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from srt.report.format.numbers import EN_DASH, format_signed
from srt.report.format.table import NOT_MEASURED, Table, drop_empty_columns
from srt.report.tables.cells import (
    dataset_cell,
    format_measure,
    items_cell,
    measure_cell,
    protocol_cell,
)
from srt.report.tables.result_rows import MEASURES, ResultRow
from srt.results.published_figures import PROTOCOLS
from srt.results.records import Measure

# The measures of this table; the table of trainings has the others. Of LPIPS, less is better.
SHOWN_MEASURES: tuple[Measure, ...] = ("psnr", "ssim", "lpips")
LESS_IS_BETTER = {"lpips"}


def results_table(rows: Sequence[ResultRow], profile: str) -> Table:
    """Return the main table. Its notes say how to read it and where published figures are from."""
    # The sources of published figures are numbered in the order of the rows.
    sources = list(dict.fromkeys(_source_note(row) for row in rows if row.published_psnr))

    # Each column is its title, its alignment and the text of its cell in a row.
    columns: list[tuple[str, str, Callable[[ResultRow], str]]] = [
        ("run", "l", lambda row: row.run),
        ("dataset", "l", dataset_cell),
        ("protocol", "l", protocol_cell),
        *((MEASURES[name][0], "r", _measure_column(name)) for name in SHOWN_MEASURES),
        ("published PSNR", "r", lambda row: _published_cell(row, sources)),
        ("gain", "r", lambda row: format_signed(_gain(row))),
    ]
    titles = [title for title, _, _ in columns]
    best = {
        (row, titles.index(MEASURES[name][0]))
        for name in SHOWN_MEASURES
        for row in _best_rows(rows, name)
    }
    table = Table(
        title=f"Results of profile {profile}",
        align="".join(align for _, align, _ in columns),
        header=titles,
        rows=[[cell(row) for _, _, cell in columns] for row in rows],
        notes=_notes(rows, bool(best)) + [f"[{n}] {text}" for n, text in enumerate(sources, 1)],
        bold=frozenset(best),
    )
    return drop_empty_columns(table)


def _measure_column(name: Measure) -> Callable[[ResultRow], str]:
    """Return the function that formats a measure of a row."""
    return lambda row: measure_cell(row, name)


def _published_cell(row: ResultRow, sources: Sequence[str]) -> str:
    """Return e.g. `27.28 [1] (−0.41)`: the published figure, its source and our difference."""
    if row.published_psnr is None:
        return EN_DASH
    published = f"{row.published_psnr:.2f} [{sources.index(_source_note(row)) + 1}]"
    if row.difference_psnr is None:
        return published
    return f"{published} ({format_signed(row.difference_psnr)})"


def _gain(row: ResultRow) -> float:
    """Return the PSNR over the best of all baselines that were measured."""
    peer_gain = row.gain_over_peer_psnr
    return row.gain_psnr if peer_gain is None else min(row.gain_psnr, peer_gain)


def _best_rows(rows: Sequence[ResultRow], name: Measure) -> list[int]:
    """Return the indices of the rows with the best figure of each dataset and protocol."""
    # Only figures that were measured in the same way can be compared.
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((dataset_cell(row), protocol_cell(row)), []).append(index)

    # Runs on different items have no best one. Figures that look equal are equally good.
    best = []
    for group in groups.values():
        values = {
            n: float(measure_cell(rows[n], name)) for n in group if rows[n].value(name) is not None
        }
        same_items = len({items_cell(rows[index]) for index in group}) == 1
        if same_items and len(values) > 1:
            optimum = (min if name in LESS_IS_BETTER else max)(values.values())
            best += [index for index, value in values.items() if value == optimum]
    return best


def _notes(rows: Sequence[ResultRow], has_best: bool) -> list[str]:
    """Return the notes of the table: those on every table, then those that these rows need."""
    protocols = dict.fromkeys(row.protocol for row in rows)
    notes = [
        "PSNR, differences and gains are in dB. Gain: PSNR over the best of the baselines, which"
        " have a table of their own.",
        *(f"Protocol {name}: {PROTOCOLS[name].text}." for name in protocols),
    ]

    # A note on a special case stands there only if a row is such a case.
    if has_best:
        notes.insert(
            1,
            "Bold: the best run of a dataset and protocol, where all of its runs were measured on"
            " the same items.",
        )
    if any(row.departure for row in rows):
        notes.append(
            "What is said after a protocol departs from it, and no published figure is compared"
            " with it. Fewer input views: the first ones, and the targets stay. Pose noise: the"
            " deviation of the input cameras' poses, the first one's apart, from the true ones, in"
            " radians and in units of the world."
        )
    if any(row.synthetic for row in rows):
        notes.append(
            "Synthetic scenes are not the published data: no published figure can be compared with"
            " theirs, so none is shown."
        )
    if any(row.difference_psnr is not None for row in rows):
        notes.append("In brackets after a published PSNR: how much ours is above it.")
    if any(row.published_psnr and row.difference_psnr is None for row in rows):
        notes.append(
            "A published PSNR without a difference is of another test set, as the number of items"
            " tells."
        )
    if any(measure_cell(row, name) == NOT_MEASURED for row in rows for name in MEASURES):
        notes.append(f"LPIPS {NOT_MEASURED}: the profile names no weights of its backbone.")
    return notes


def _source_note(row: ResultRow) -> str:
    """Return the published figures of a row, their protocol and where they were read."""
    published: list[tuple[Measure, float | None]] = [
        ("psnr", row.published_psnr),
        ("ssim", row.published_ssim),
        ("lpips", row.published_lpips),
        ("lpips_alex", row.published_lpips_alex),
    ]
    measures = [
        f"{MEASURES[name][0]} {format_measure(figure, name)}"
        for name, figure in published
        if figure is not None
    ]
    return (
        f"{row.published_method}: {', '.join(measures)}; protocol {row.protocol};"
        f" {row.published_source} ({row.published_mark})."
    )
