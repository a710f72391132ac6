"""The table that all formats are made from, and its Markdown; raw figures as CSV.

The cells of a `Table` are texts, already rounded. Equal tables give equal bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from srt.report.format.numbers import EN_DASH

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What a cell says if a figure could exist but does not. An en dash says that it cannot exist.
NOT_MEASURED = "not measured"
NOT_RUN = "not run"

# No table has more columns, but for that of eight angles: more do not fit into a page.
MOST_COLUMNS = 8

# Columns that a note replaces if all rows have the same cell.
CONDITIONS = {"iterations", "selected step", "protocol", "items measured", "seeds"}
CONDITIONS |= {"training time", "hardware"}


@dataclass(frozen=True)
class Table:
    """A table with its title above it and its notes, a sentence or more each, below it."""

    title: str
    align: str  # l or r for each column
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    bold: frozenset[tuple[int, int]] = frozenset()  # row and column of the cells in bold type


def to_csv(rows: Sequence[DataclassInstance]) -> str:
    """Return typed rows as CSV: a column for each field, and an empty cell for None.

    A column has the name of its field, or what the field's metadata say is its key.
    """
    fields = dataclasses.fields(rows[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.metadata.get("key", field.name) for field in fields])
    writer.writerows([_csv_cell(getattr(row, field.name)) for field in fields] for row in rows)
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    """Return a value as the module csv writes it, but yes and no for booleans."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def to_markdown(table: Table) -> str:
    """Return the table in Markdown, below its title and above its notes as a list."""
    # A bar inside a cell would begin another column.
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    for row, column in table.bold:
        cells[1 + row][column] = f"**{cells[1 + row][column]}**"
    rules = [{"l": "---", "r": "---:"}[side] for side in table.align]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], rules, *cells[1:])]

    # Every block ends with an empty line.
    blocks = [f"## {table.title}", "", *lines, ""]
    if table.notes:
        blocks += [*(f"- {note}" for note in table.notes), ""]
    return "\n".join(blocks)


def drop_empty_columns(table: Table) -> Table:
    """Return the table without the columns that have no figure in any row."""
    empty = {EN_DASH, NOT_MEASURED}
    columns = [
        index
        for index in range(len(table.header))
        if not {row[index] for row in table.rows} <= empty
    ]
    return select_columns(table, columns)


def move_conditions_to_notes(table: Table) -> Table:
    """Return the table with a note instead of each condition that is equal in all rows."""
    # In a table of one row, every column would be equal in all rows.
    if len(table.rows) < 2:
        return table
    columns = list(zip(*table.rows, strict=True))
    constant = [
        index
        for index, title in enumerate(table.header)
        if title in CONDITIONS and len(set(columns[index])) == 1
    ]
    if not constant:
        return table

    # The note comes first, because it says what the whole table is about.
    conditions = "; ".join(f"{table.header[index]} {columns[index][0]}" for index in constant)
    varying = [index for index in range(len(columns)) if index not in constant]
    notes = [f"In all rows: {conditions}.", *table.notes]
    return dataclasses.replace(select_columns(table, varying), notes=notes)


def select_columns(table: Table, columns: Sequence[int]) -> Table:
    """Return the table with only these columns, which are given by their indices."""
    # A bold cell stays bold where its column is now.
    bold = {(row, columns.index(column)) for row, column in table.bold if column in columns}
    return dataclasses.replace(
        table,
        align="".join(table.align[index] for index in columns),
        header=[table.header[index] for index in columns],
        rows=[[row[index] for index in columns] for row in table.rows],
        bold=frozenset(bold),
    )
