"""A table's cells -> Markdown and LaTeX; raw rows -> CSV. The same input, the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "−": "$-$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "\u00a0": "~",
        **{character: f"\\{character}" for character in "_%&#${}"},
    }
)


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


def to_latex(table: Table) -> str:
    """Returns a table environment no wider than the line; needs booktabs and adjustbox."""
    lines = [r" & ".join(map(_latex, row)) + r" \\" for row in (table.header, *table.rows)]
    notes = [rf"\par\smallskip\footnotesize {_latex(note)}" for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(table.title)}}}",
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\begin{{tabular}}{{{table.align}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return text.translate(LATEX)
