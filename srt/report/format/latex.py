"""A table -> LaTeX to paste into a paper: the same figures in less width than in Markdown.

Letters of a column are l or r; `[b]` and `[t]` say which of its lines a cell stands on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from textwrap import wrap

from srt.report.format.numbers import EN_DASH
from srt.report.format.table import NOT_MEASURED, NOT_RUN, Table, drop_empty_columns

PREAMBLE = (
    "% Needs booktabs and adjustbox. In a document of two columns, table* is as wide as both.\n\n"
)
ABOVE = "dataset"  # the column whose cells stand above their rows
CITED = "source"  # the column whose cells are numbered, and said below
CONDITIONS = {"iterations", "selected", "protocol", "items measured", "seeds"}  # said once where
CONDITIONS |= {"training time", "hardware"}  # all rows are alike
LAST = "all"  # a row that is ruled off
COLUMN = 56  # characters that fit beside one another in one of two columns
WIDTH = {"b": 10, "t": 36}  # characters of a line, in the header and below it
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
        "[": "{[}",  # at the start of a line it would be an argument of the line's end
        **{character: f"${character}$" for character in "<>|"},
        **{character: f"\\{character}" for character in "_%&#${}"},
    }
)


def to_latex(table: Table) -> str:
    """Returns a table environment no wider than the line; needs booktabs and adjustbox."""
    told = _cited(_without_conditions(drop_empty_columns(table)))
    spans = list(_spans([title for title in told.header if title != ABOVE]))
    align = "".join(
        side for side, title in zip(told.align, told.header, strict=True) if title != ABOVE
    )
    environment = "table*" if _characters(told) > COLUMN else "table"
    return "\n".join(
        [
            rf"\begin{{{environment}}}",
            rf"\caption{{{escape_latex(told.title)}}}",
            rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', told.title.lower())}}}",
            r"\par\smallskip",
            r"\begin{adjustbox}{max width=\linewidth, center}",
            r"\footnotesize\setlength{\tabcolsep}{4pt}%",
            rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
            r"\toprule",
            *_head(spans, align),
            r"\midrule",
            *_body(told, [above for above, below in spans for _ in below]),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            *(
                [rf"\par\smallskip\footnotesize {escape_latex(' '.join(told.notes))}"]
                * bool(told.notes)
            ),
            rf"\end{{{environment}}}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Returns text as LaTeX that prints it."""
    return text.translate(ESCAPES)


def _without_conditions(table: Table) -> Table:
    """Returns a table whose notes say under which conditions all rows are."""
    columns = list(zip(*table.rows, strict=True))
    several = len(table.rows) > 1
    alike = [several and len(set(cells)) == 1 for cells in columns]
    same = [i for i, title in enumerate(table.header) if alike[i] and title in CONDITIONS]
    if not same:
        return table
    said = "; ".join(f"{table.header[i]} {columns[i][0]}" for i in same)
    kept = [i for i in range(len(columns)) if i not in same]
    return Table(
        title=table.title,
        align="".join(table.align[i] for i in kept),
        header=[table.header[i] for i in kept],
        rows=[[row[i] for i in kept] for row in table.rows],
        notes=[f"In all rows: {said}.", *table.notes],
    )


def _cited(table: Table) -> Table:
    """Returns a table with the number of each source in its place, and a note that has them all."""
    if CITED not in table.header:
        return table
    place = table.header.index(CITED)
    sources = list(dict.fromkeys(row[place] for row in table.rows if row[place] != EN_DASH))
    number = {EN_DASH: EN_DASH} | {text: f"[{i}]" for i, text in enumerate(sources, start=1)}
    rows = [[*row[:place], number[row[place]], *row[place + 1 :]] for row in table.rows]
    said = "; ".join(f"{number[text]} {text}" for text in sources)
    return Table(table.title, table.align, table.header, rows, [*table.notes, f"{said}."])


def _spans(header: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields what neighbouring titles begin with alike, and what is left of each below it."""
    for _, alike in groupby(header, key=lambda title: title.split(" ")[0]):
        words = [title.split(" ") for title in alike]
        heads = zip(*(title[:-1] for title in words), strict=False)
        shared = sum(1 for _ in takewhile(lambda head: len(set(head)) == 1, heads))
        shared *= len(words) > 1
        yield " ".join(words[0][:shared]), [" ".join(title[shared:]) for title in words]


def _head(spans: Sequence[tuple[str, list[str]]], align: str) -> list[str]:
    titles = [title for _, below in spans for title in below]
    lower = [_lines(title, "b", side) for title, side in zip(titles, align, strict=True)]
    if not any(above for above, _ in spans):
        return [_row(lower)]
    upper, rules, first = [], "", 1
    for above, below in spans:
        if above:
            upper.append(_over(len(below), "c", escape_latex(above)))
            rules += rf"\cmidrule(lr){{{first}-{first + len(below) - 1}}}"
        else:
            upper += [""] * len(below)
        first += len(below)
    return [_row(upper), rules, _row(lower)]


def _body(table: Table, above: Sequence[str]) -> Iterator[str]:
    place = table.header.index(ABOVE) if ABOVE in table.header else None
    sides = [table.align[i] for i in range(len(table.align)) if i != place]
    for name, rows in groupby(table.rows, key=lambda row: "" if place is None else row[place]):
        if place is not None:
            yield r"\addlinespace" * (name != table.rows[0][place]) + _row(
                [_over(len(sides), "@{}l", rf"\itshape {escape_latex(name)}")]
            )
        for row in rows:
            if row[0] == LAST:
                yield r"\midrule"
            yield _row(_merged([row[i] for i in range(len(row)) if i != place], sides, above))


def _merged(cells: Sequence[str], sides: Sequence[str], above: Sequence[str]) -> Iterator[str]:
    """Yields the cells; neighbours that have no figure for the same reason are one."""
    start = 0
    while start < len(cells):
        end = start + 1
        if cells[start] in (NOT_RUN, NOT_MEASURED):
            while end < len(cells) and cells[end] == cells[start]:
                if above[end] and above[end - 1] and above[end] != above[end - 1]:
                    break
                end += 1
        if end - start > 1:
            yield _over(end - start, "c", escape_latex(cells[start]))
        else:
            yield _lines(cells[start], "t", sides[start])
        start = end


def _characters(table: Table) -> int:
    """Returns about how wide a table is."""
    width = 0
    for i, title in enumerate(table.header):
        lines = _wrapped(title, "b")
        for row in table.rows:
            lines += _wrapped(row[i], "t")
        width += (max(map(len, lines)) + 2) * (title != ABOVE)
    return width


def _lines(text: str, place: str, side: str) -> str:
    """Returns a cell, in several lines where it is long."""
    lines = _wrapped(text, place)
    if len(lines) == 1:
        return escape_latex(text)
    inside = r" \\ ".join(map(escape_latex, lines))
    return rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}{inside}\end{{tabular}}"


def _wrapped(text: str, place: str) -> list[str]:
    return wrap(text, WIDTH[place], break_long_words=False, break_on_hyphens=False) or [""]


def _over(columns: int, side: str, text: str) -> str:
    return rf"\multicolumn{{{columns}}}{{{side}}}{{{text}}}"


def _row(cells: Sequence[str] | Iterator[str]) -> str:
    return " & ".join(cells) + r" \\"
