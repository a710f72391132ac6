"""A table's cells -> Markdown; raw rows -> CSV. The same input, the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from srt.report.format.numbers import EN_DASH

NOT_MEASURED = "not measured"

NOT_RUN = "not run"


@dataclass(frozen=True)
class Table:
    """Cells as they are read; `align` has an l or r for each column."""

    title: str
    align: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Returns raw figures under one header line; an empty cell is what was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Returns the table under its title, its notes as a list."""
    rules = [{"l": "---", "r": "---:"}[side] for side in table.align]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], rules, *cells[1:])]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *lines, "", *notes, *[""] * bool(notes)])


def drop_empty_columns(table: Table) -> Table:
    """Returns a table without the columns that have no figure in any row."""
    columns, silent = range(len(table.header)), {EN_DASH, NOT_MEASURED}
    told = [i for i in columns if not {row[i] for row in table.rows} <= silent]
    return Table(
        title=table.title,
        align="".join(table.align[i] for i in told),
        header=[table.header[i] for i in told],
        rows=[[row[i] for i in told] for row in table.rows],
        notes=table.notes,
    )
