"""A table as LaTeX to paste into a paper.

A paper's column is narrower than a web page, so the same figures take less width here:

    - columns without any figure are dropped;
    - conditions that are equal in all rows move into a note;
    - sources become numbers, which a note explains;
    - the dataset stands on a line of its own, above its rows;
    - words that neighbouring titles share stand once, above these columns.

A cell is aligned `l` or `r`. A long cell has several lines. LaTeX aligns them with the row by their
last line, `b`, in the header and by their first line, `t`, below it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap
from typing import NamedTuple

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import (
    NOT_MEASURED,
    NOT_RUN,
    Table,
    drop_empty_columns,
    move_conditions_to_notes,
    select_columns,
)

PREAMBLE = (
    "% Needs booktabs and adjustbox. In a document of two columns, table* is as wide as both.\n\n"
)

# The column whose cells stand above their rows, and the one whose cells become numbers.
GROUP_COLUMN = "dataset"
SOURCE_COLUMN = "source"

# A rule stands above the row of this name.
TOTAL_ROW = "all"

COLUMN_CHARACTERS = 56  # characters that fit side by side into one of two columns of a page
LINE_WIDTH = {"b": 10, "t": 36}  # characters of a cell's line in the header and below it
COLUMN_GAP = 2  # characters between two columns

ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "−": "$-$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "°": r"$^\circ$",
        "\u00a0": "~",
        "[": "{[}",  # directly after `\\`, a bracket would begin an argument
        **{character: f"${character}$" for character in "<>|"},
        **{character: f"\\{character}" for character in "_%&#${}"},
    }
)


class TitleSpan(NamedTuple):
    """Neighbouring columns: the words that their titles share, and what each title adds."""

    shared: str
    subtitles: list[str]


def to_latex(table: Table) -> str:
    """Return a table environment that is no wider than the line.

    It needs the packages booktabs and adjustbox.
    """
    # Make the table narrower before its width is estimated.
    table = number_sources(move_conditions_to_notes(drop_empty_columns(table)))
    environment = "table*" if estimate_width(table) > COLUMN_CHARACTERS else "table"

    # adjustbox shrinks the table if it is still wider than the line.
    lines = [
        rf"\begin{{{environment}}}",
        rf"\caption{{{escape_latex(table.title)}}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', table.title.lower())}}}",
        r"\par\smallskip",
        r"\begin{adjustbox}{max width=\linewidth, center}",
        r"\footnotesize\setlength{\tabcolsep}{4pt}%",
        *_tabular_lines(table),
        r"\end{adjustbox}",
    ]
    if table.notes:
        lines.append(rf"\par\smallskip\footnotesize {escape_latex(' '.join(table.notes))}")
    return "\n".join([*lines, rf"\end{{{environment}}}", ""])


def escape_latex(text: str) -> str:
    """Return LaTeX that prints the text as it is."""
    return text.translate(ESCAPES)


def number_sources(table: Table) -> Table:
    """Return the table with a number instead of each source, and a note that lists the sources."""
    if SOURCE_COLUMN not in table.header:
        return table

    # The sources are numbered in the order in which the rows name them.
    column = table.header.index(SOURCE_COLUMN)
    sources = list(dict.fromkeys(row[column] for row in table.rows if row[column] != EN_DASH))
    numbers = {source: f"[{number}]" for number, source in enumerate(sources, start=1)}
    listed = "; ".join(f"{number} {source}" for source, number in numbers.items())

    # A row without a source keeps its dash.
    rows = []
    for row in table.rows:
        cell = numbers.get(row[column], EN_DASH)
        rows.append([*row[:column], cell, *row[column + 1 :]])
    return dataclasses.replace(table, rows=rows, notes=[*table.notes, f"{listed}."])


def estimate_width(table: Table) -> int:
    """Return about how many characters wide the table will be."""
    width = 0
    for index, title in enumerate(table.header):
        # The dataset takes no width: it stands above its rows.
        if title == GROUP_COLUMN:
            continue
        lines = _wrap_cell(title, "b")
        for row in table.rows:
            lines += _wrap_cell(row[index], "t")
        width += max(map(len, lines)) + COLUMN_GAP
    return width


def _tabular_lines(table: Table) -> list[str]:
    """Return the lines of the tabular environment."""
    # The dataset has no column: its name stands above its rows.
    columns = [index for index, title in enumerate(table.header) if title != GROUP_COLUMN]
    body = select_columns(table, columns)
    groups = [""] * len(table.rows)
    if GROUP_COLUMN in table.header:
        groups = [row[table.header.index(GROUP_COLUMN)] for row in table.rows]

    # Cells of the body stay apart where the titles above them differ.
    spans = _title_spans(body.header)
    shared_titles = [span.shared for span in spans for _ in span.subtitles]
    return [
        rf"\begin{{tabular}}{{@{{}}{body.align}@{{}}}}",
        r"\toprule",
        *_header_lines(spans, body.align),
        r"\midrule",
        *_body_lines(body, groups, shared_titles),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _title_spans(titles: Sequence[str]) -> list[TitleSpan]:
    """Return the columns, grouped by the first words that neighbouring titles share.

    `a PSNR` and `a SSIM` become `PSNR` and `SSIM` below `a`. The shared words of a title that has
    no such neighbour are empty.
    """
    spans = []
    for _, group in groupby(titles, key=lambda title: title.split(" ")[0]):
        words = [title.split(" ") for title in group]

        # The last word of a title is never shared: every column has a title of its own.
        shared = 0
        if len(words) > 1:
            for same_position in zip(*(title[:-1] for title in words), strict=False):
                if len(set(same_position)) > 1:
                    break
                shared += 1
        subtitles = [" ".join(title[shared:]) for title in words]
        spans.append(TitleSpan(" ".join(words[0][:shared]), subtitles))
    return spans


def _header_lines(spans: Sequence[TitleSpan], align: str) -> list[str]:
    """Return the header: one line of titles, or the shared words and rules above it."""
    titles = [title for span in spans for title in span.subtitles]
    lower = [_cell(title, "b", side) for title, side in zip(titles, align, strict=True)]
    if not any(span.shared for span in spans):
        return [_row(lower)]

    # A rule below the shared words shows which columns they are about. LaTeX counts from 1.
    upper, rules, first = [], "", 1
    for span in spans:
        columns = len(span.subtitles)
        if span.shared:
            upper.append(_merged_cell(columns, "c", escape_latex(span.shared)))
            rules += rf"\cmidrule(lr){{{first}-{first + columns - 1}}}"
        else:
            upper += [""] * columns
        first += columns
    return [_row(upper), rules, _row(lower)]


def _body_lines(table: Table, groups: Sequence[str], shared_titles: Sequence[str]) -> list[str]:
    """Return the rows, each dataset's below a line with its name.

    Args:
        groups: the name of each row's dataset; empty where the table names none.
    """
    lines: list[str] = []
    for number, (group, row) in enumerate(zip(groups, table.rows, strict=True)):
        # The name stands across all columns, with space above it except at the table's top.
        if group and (number == 0 or group != groups[number - 1]):
            name = _merged_cell(len(table.align), "@{}l", rf"\itshape {escape_latex(group)}")
            space = r"\addlinespace" if number else ""
            lines.append(space + _row([name]))

        if row[0] == TOTAL_ROW:
            lines.append(r"\midrule")
        bold = {column for bold_row, column in table.bold if bold_row == number}
        lines.append(_row(_body_cells(row, bold, table.align, shared_titles)))
    return lines


def _body_cells(
    cells: Sequence[str], bold: set[int], align: str, shared_titles: Sequence[str]
) -> list[str]:
    """Return a row's cells as LaTeX; neighbours that lack a figure for one reason are one cell.

    Args:
        bold: the indices of the cells in bold type.
    """
    merged = []
    start = 0
    while start < len(cells):
        end = _end_of_merged_cell(cells, shared_titles, start)
        if end - start > 1:
            merged.append(_merged_cell(end - start, "c", escape_latex(cells[start])))
        else:
            cell = _cell(cells[start], "t", align[start])
            merged.append(rf"\textbf{{{cell}}}" if start in bold else cell)
        start = end
    return merged


def _end_of_merged_cell(cells: Sequence[str], shared_titles: Sequence[str], start: int) -> int:
    """Return the index after the last cell that is merged with the one at `start`."""
    end = start + 1
    if cells[start] not in (NOT_RUN, NOT_MEASURED):
        return end

    # Cells below different shared words are about different things, so they stay apart.
    while end < len(cells) and cells[end] == cells[start]:
        titles = {title for title in shared_titles[end - 1 : end + 1] if title}
        if len(titles) > 1:
            break
        end += 1
    return end


def _cell(text: str, level: str, side: str) -> str:
    """Return a cell, as a small tabular of several lines if its text is long.

    Args:
        level: `b` or `t`, the line that is level with the row.
        side: `l` or `r`, how its lines are aligned.
    """
    lines = _wrap_cell(text, level)
    if len(lines) == 1:
        return escape_latex(text)
    content = r" \\ ".join(map(escape_latex, lines))
    return rf"\begin{{tabular}}[{level}]{{@{{}}{side}@{{}}}}{content}\end{{tabular}}"


def _wrap_cell(text: str, level: str) -> list[str]:
    """Return the lines of a cell in the header, `b`, or below it, `t`."""
    return wrap(text, LINE_WIDTH[level], break_long_words=False, break_on_hyphens=False) or [""]


def _merged_cell(columns: int, side: str, latex: str) -> str:
    """Return one cell across several columns."""
    return rf"\multicolumn{{{columns}}}{{{side}}}{{{latex}}}"


def _row(cells: Sequence[str]) -> str:
    """Return one line of a tabular."""
    return " & ".join(cells) + r" \\"
