"""The tables of the reproduction: published figures beside ours, and the cost of their scale."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH, format_count
from srt.report.format.table import NOT_MEASURED, NOT_RUN, Table, to_markdown
from srt.report.tables.cells import format_measure
from srt.report.tables.classes import tables_by_measure
from srt.report.tables.reproduction_rows import REPORTED, ReproductionRow
from srt.report.tables.result_rows import MEASURES
from srt.results.published_figures import PROTOCOLS, UNKNOWN
from srt.results.records import Measure


def reproduction_table(rows: Sequence[ReproductionRow]) -> Table:
    """Return the figures of whole datasets, without those of single classes."""
    header = ["dataset", "protocol", "method", *(MEASURES[name][0] for name in REPORTED), "source"]
    return Table(
        title="Reproduction: published figures and ours",
        align="lllrrrl",
        header=header,
        rows=[_total_cells(row) for row in rows if row.class_name == "all"],
        notes=[
            f"{NOT_RUN.capitalize()}: this experiment was not run on the published data. Only rows"
            " of one dataset and one protocol can be compared. The protocols are defined below the"
            f" table of results; {UNKNOWN}: the text that a figure is from could not be opened.",
            "Read: in a text that was read. Second-hand: in somebody's note of the paper."
            " Unconfirmed: in no text that could be opened; to be checked before it is quoted.",
        ],
    )


def _total_cells(row: ReproductionRow) -> list[str]:
    """Return the cells of a row: what was measured by whom, and where it was read."""
    source = row.source or EN_DASH
    return [
        row.dataset,
        row.protocol,
        row.method,
        *(_measure_cell(row, name) for name in REPORTED),
        f"{source} ({row.mark})" if row.mark else source,
    ]


def _measure_cell(row: ReproductionRow, name: Measure) -> str:
    """Return a measure, or the reason why the row has none."""
    value = row.value(name)
    if value is not None:
        return NOT_RUN if row.psnr is None else format_measure(value, name)

    # A protocol may not define the measure, and others may not have reported it.
    protocol = PROTOCOLS.get(row.protocol)
    if protocol and name not in protocol.measures:
        return EN_DASH
    if row.psnr is None:
        return NOT_RUN
    return NOT_MEASURED if row.ours else EN_DASH


def reproduction_costs_table(rows: Sequence[ReproductionRow]) -> Table:
    """Return what a training at the published scale costs, a row for each experiment."""
    # An experiment has a row for each protocol and class, all with the same cost.
    experiments = {row.ours: row for row in rows if row.ours}
    hardware = dict.fromkeys(row.hardware for row in rows if row.hardware)
    return Table(
        title="Cost of a reproduction",
        align="llrrrr",
        header=["experiment", "dataset", "iterations", "a step", "GPU hours", "GPU memory"],
        rows=[[name, row.dataset, *_cost_cells(row)] for name, row in experiments.items()],
        notes=[
            "GPU hours are the measured time of a step, times the iterations of profile paper; with"
            f" memory, on one {' or '.join(hardware) or 'GPU'}. {NOT_MEASURED.capitalize()}: no"
            " step at this size was timed."
        ],
    )


def _cost_cells(row: ReproductionRow) -> list[str]:
    """Return iterations, time of a step, GPU hours and memory of an experiment."""
    iterations = EN_DASH if row.steps is None else format_count(row.steps)
    if row.step_seconds is None or row.gpu_hours is None or row.peak_gigabytes is None:
        return [iterations, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED]
    return [
        iterations,
        f"{1000 * row.step_seconds:.1f} ms",
        f"{row.gpu_hours:.0f}",
        f"{row.peak_gigabytes:.1f} GB",
    ]


def reproduction_class_tables(rows: Sequence[ReproductionRow]) -> list[Table]:
    """Return the published figures of each class beside ours: a row a class."""
    # Published classes exist for some datasets and protocols only; ours are those of the same.
    published = [row for row in rows if row.class_name != "all" and not row.ours]
    keys = dict.fromkeys((row.dataset, row.protocol) for row in published)
    tables = []
    for dataset, protocol in keys:
        same = [row for row in rows if (row.dataset, row.protocol) == (dataset, protocol)]
        tables += _class_tables(same, f"{dataset}, protocol {protocol}")
    return tables


def _class_tables(rows: Sequence[ReproductionRow], subject: str) -> list[Table]:
    """Return the tables by class of one dataset and protocol, which are the subject."""
    # Published methods come first. Of ours, those that were not run are in a note.
    by_class = [row for row in rows if row.class_name != "all"]
    methods = list(dict.fromkeys(row.method for row in by_class))
    missing = [row.ours for row in rows if row.ours and row.psnr is None]
    notes = [
        f"{row.method}: {row.source} ({row.mark})."
        for row in rows
        if row.mark and row.class_name == "all" and row.method in methods
    ]
    if missing:
        notes.append(f"{NOT_RUN.capitalize()} on the published data: {', '.join(missing)}.")

    # A dataset may name a class by several synonyms, so each of them leads to its row.
    figures: dict[tuple[str, str], ReproductionRow] = {}
    for row in rows:
        for synonym in row.class_name.split(","):
            figures[_short_name(row.method), synonym] = row

    def cell(method: str, class_name: str, measure: Measure) -> str:
        row = figures.get((method, class_name))
        return NOT_RUN if row is None else _measure_cell(row, measure)

    # The classes have the names and the order of the publication.
    classes = dict.fromkeys(row.class_name for row in by_class if not row.ours)
    return tables_by_measure(
        title=f"by class, published and ours: {subject}",
        classes=[*classes, "all"],
        methods=[_short_name(method) for method in methods],
        measures=REPORTED,
        cell=cell,
        notes=notes,
    )


def _short_name(method: str) -> str:
    """Return a method's name without its details, which follow a comma."""
    return method.split(",")[0]


def reproduction_page(tables: Sequence[Table]) -> str:
    """Return the Markdown of reproduction.md: the tables and the protocols' definitions."""
    lines = ["# Published figures and their reproduction", "", *map(to_markdown, tables)]

    # The tables name the protocols; their definitions stand below.
    lines += ["## Protocols", ""]
    lines += [f"- Protocol {name}: {protocol.text}." for name, protocol in PROTOCOLS.items()]
    return "\n".join([*lines, ""])
