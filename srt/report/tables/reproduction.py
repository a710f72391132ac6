"""The tables of the reproduction: published figures beside ours, and the cost of their scale.

Only figures of one dataset and one protocol can be compared, so a row is about one of each. A mark
says how well the source of a figure was read:

    read            in a text that was read
    second-hand     in somebody's note of the paper
    unconfirmed     in no text that could be opened; to be checked before it is quoted
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srt.config.schema import Experiment
from srt.report.format.numbers import EN_DASH, format_count
from srt.report.format.table import NOT_MEASURED, NOT_RUN, Table, to_markdown
from srt.report.tables.classes import published_classes
from srt.report.tables.results import MEASURES, Row, format_measure
from srt.results.published_figures import PROTOCOLS, QUOTED, RESULTS, UNKNOWN
from srt.results.runs import Run

# The measures that papers report.
REPORTED = ("psnr", "ssim", "lpips")

# The columns that stay None where nothing was measured.
OPTIONAL_COLUMNS = [*REPORTED, "source", "mark", "steps", "step_seconds"]
OPTIONAL_COLUMNS += ["gpu_hours", "peak_gigabytes", "hardware"]


def reproduction_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> list[Row]:
    """Return a row for each figure, sorted by dataset and protocol, the published ones first.

    Args:
        runs: the measured runs. Those of synthetic scenes are left out.
        plans: the experiments at the published scale.
        performance: the times of training steps, as `benchmarks.training` writes them.
    """
    rows = [*_published_rows(plans), *_quoted_rows(), *_own_rows(runs, plans, performance)]
    datasets = list(dict.fromkeys(plan.dataset_name for plan in plans))
    protocols = [*PROTOCOLS, UNKNOWN]

    # Sorting is stable: within a dataset and protocol, the rows stay in the order of above.
    def sort_key(row: Row) -> tuple[int, int]:
        return datasets.index(row["dataset"]), protocols.index(row["protocol"])

    return sorted((row for row in rows if row["dataset"] in datasets), key=sort_key)


def _row(dataset: str, protocol: str, method: str, **values: Any) -> Row:
    """Return a row with these values; all others are None."""
    return {
        "dataset": dataset,
        "class": "all",
        "protocol": protocol,
        "method": method,
        "ours": "",
        **dict.fromkeys(OPTIONAL_COLUMNS),
        **values,
    }


def _published_rows(plans: Sequence[Experiment]) -> Iterator[Row]:
    """Yield the results that the experiments reproduce: of all classes together and of each."""
    for plan in plans:
        for result in RESULTS.get(plan.name, []):
            source = {"source": result.source, "mark": result.mark}
            for name, figures in published_classes(result).items():
                row = _row(plan.dataset_name, result.protocol, result.method, **figures, **source)
                yield row | {"class": name}


def _quoted_rows() -> Iterator[Row]:
    """Yield figures from papers that no experiment reproduces."""
    for quoted in QUOTED:
        figures = dict(zip(REPORTED, quoted.figures, strict=True))
        source = {"source": quoted.source, "mark": quoted.mark}
        yield _row(quoted.dataset, quoted.protocol, quoted.method, **figures, **source)


def _own_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> Iterator[Row]:
    """Yield the cost and the figures of each experiment; without figures if it was not run."""
    # Neither synthetic scenes nor changed protocols compare with published figures.
    comparable = {
        run.name: run for run in runs if not run.metrics["synthetic"] and not run.departure
    }
    for plan in plans:
        cost = {"ours": plan.name, "steps": plan.train.steps, **_step_cost(plan, performance)}
        for protocol in plan.evaluate.protocols:
            row = _row(plan.dataset_name, protocol, f"{plan.name}, this repository", **cost)
            run = comparable.get(plan.name)
            figures = run.metrics["protocols"].get(protocol) if run else None
            if run is None or figures is None:
                yield row
                continue

            # The source says how far the run is from the published scale.
            row["source"] = f"profile {run.metrics['profile']}, {run.training['steps']} steps"
            if figures["items"] < figures["of"]:
                row["source"] += f", {figures['items']} of {figures['of']} items"
            for name, values in {**figures["classes"], "all": figures}.items():
                yield row | {"class": name, **{measure: values[measure] for measure in REPORTED}}


def _step_cost(plan: Experiment, performance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step and the whole training cost; empty if no step of this size was timed."""
    # The benchmark also times plain PyTorch, and other batch sizes. Neither is how we train.
    steps = [
        row
        for row in performance["rows"]
        if (row["setting"], row["scenes"]) == (plan.name, plan.train.batch_size)
        and row["way"].startswith("ours")
    ]
    if not steps:
        return {}

    # The training takes as many of the fastest steps as the experiment has.
    fastest = min(steps, key=lambda row: row["median_ms"])
    return {
        "step_seconds": round(fastest["median_ms"] / 1000, 6),
        "gpu_hours": round(fastest["median_ms"] / 1000 * plan.train.steps / 3600, 1),
        "peak_gigabytes": fastest["peak_gb"],
        "hardware": performance["device"],
    }


def reproduction_table(rows: Sequence[Row]) -> Table:
    """Return the figures of whole datasets, without those of single classes."""
    totals = [row for row in rows if row["class"] == "all"]
    header = ["dataset", "protocol", "method", *(MEASURES[name][0] for name in REPORTED)]
    header += ["iterations", "a step", "GPU hours", "GPU memory", "source"]
    return Table(
        title="Reproduction: published figures and ours",
        align="lllrrrrrrrl",
        header=header,
        rows=[_total_cells(row) for row in totals],
        notes=[
            f"{NOT_RUN.capitalize()}: this experiment was not run on the published data. Only rows"
            " of one dataset and one protocol can be compared. The protocols are defined below the"
            f" table of results; {UNKNOWN}: the text that a figure is from could not be opened.",
            "Read: in a text that was read. Second-hand: in somebody's note of the paper."
            " Unconfirmed: in no text that could be opened; to be checked before it is quoted.",
            "GPU hours are the measured time of a step, times the iterations of profile paper; with"
            f" memory, on one {_hardware(totals)}. {NOT_MEASURED.capitalize()}: no step at this"
            " size was timed.",
        ],
    )


def _total_cells(row: Row) -> list[str]:
    """Return the cells of a row: what was measured by whom, its cost, and where it was read."""
    source = row["source"] or EN_DASH
    return [
        row["dataset"],
        row["protocol"],
        row["method"],
        *(_measure_cell(row, name) for name in REPORTED),
        *_cost_cells(row),
        f"{source} ({row['mark']})" if row["mark"] else source,
    ]


def _measure_cell(row: Row, name: str) -> str:
    """Return a measure, or the reason why the row has none."""
    if row[name] is not None:
        return NOT_RUN if row["psnr"] is None else format_measure(row, name)

    # A protocol may not define the measure, and others may not have reported it.
    protocol = PROTOCOLS.get(row["protocol"])
    if protocol and name not in protocol.measures:
        return EN_DASH
    if row["psnr"] is None:
        return NOT_RUN
    return NOT_MEASURED if row["ours"] else EN_DASH


def _cost_cells(row: Row) -> list[str]:
    """Return iterations, time of a step, GPU hours and memory; dashes for the work of others."""
    # Papers report costs on other hardware, so only ours are in the table.
    if not row["ours"]:
        return [EN_DASH] * 4
    if row["step_seconds"] is None:
        return [format_count(row["steps"]), NOT_MEASURED, NOT_MEASURED, NOT_MEASURED]
    return [
        format_count(row["steps"]),
        f"{1000 * row['step_seconds']:.1f} ms",
        f"{row['gpu_hours']:.0f}",
        f"{row['peak_gigabytes']:.1f} GB",
    ]


def _hardware(rows: Sequence[Row]) -> str:
    """Return the names of the hardware that steps were timed on."""
    return " or ".join(dict.fromkeys(row["hardware"] for row in rows if row["hardware"])) or "GPU"


def reproduction_class_table(rows: Sequence[Row]) -> Table:
    """Return the published figures of each class beside ours: a row a class."""
    # Published classes exist for some datasets and protocols only; ours are those of the same.
    published = [row for row in rows if row["class"] != "all" and not row["ours"]]
    keys = {(row["dataset"], row["protocol"]) for row in published}
    comparable = [row for row in rows if (row["dataset"], row["protocol"]) in keys]

    # Published methods come first. Each method has a column for every measure.
    methods = list(dict.fromkeys(row["method"] for row in published))
    methods += dict.fromkeys(row["method"] for row in comparable if row["ours"])
    header = ["class"]
    for method in methods:
        header += [f"{method.split(',')[0]} {MEASURES[name][0]}" for name in REPORTED]

    # The classes have the names and the order of the publication. The title says what they are of.
    classes = [*dict.fromkeys(row["class"] for row in published), "all"]
    datasets = " and ".join(f"{dataset}, protocol {protocol}" for dataset, protocol in sorted(keys))
    return Table(
        title=f"Reproduction by class: {datasets}",
        align="l" + "r" * (len(header) - 1),
        header=header,
        rows=_class_rows(comparable, classes, methods),
        notes=[
            f"{row['method']}: {row['source']} ({row['mark']})."
            for row in comparable
            if row["mark"] and row["class"] == "all" and row["method"] in methods
        ],
    )


def _class_rows(
    rows: Sequence[Row], classes: Sequence[str], methods: Sequence[str]
) -> list[list[str]]:
    """Return the cells of each class: its name, then the measures of every method."""
    # A dataset may name a class by several synonyms, so each of them leads to its row.
    by_class: dict[tuple[str, str], Row] = {}
    for row in rows:
        for synonym in row["class"].split(","):
            by_class[row["method"], synonym] = row

    # A class that a method has no figures of was not run.
    cells = []
    for class_name in classes:
        class_cells = [class_name]
        for method in methods:
            figures = by_class.get((method, class_name))
            if figures is None:
                class_cells += [NOT_RUN] * len(REPORTED)
            else:
                class_cells += [_measure_cell(figures, name) for name in REPORTED]
        cells.append(class_cells)
    return cells


def reproduction_page(tables: Sequence[Table]) -> str:
    """Return the Markdown of reproduction.md: the tables and the protocols' definitions."""
    lines = ["# Published figures and their reproduction", "", *map(to_markdown, tables)]

    # The tables name the protocols; their definitions stand below.
    lines += ["## Protocols", ""]
    lines += [f"- Protocol {name}: {protocol.text}." for name, protocol in PROTOCOLS.items()]
    return "\n".join([*lines, ""])
