"""What others report beside what was measured here, and what the published scale costs.

Figures of different protocols never share a row, and a figure says how well its source was read:
`read` (in a text that was read), `second-hand` (in somebody's note of the paper), `unconfirmed`
(in no text that could be opened; to be checked before it is quoted).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srt.config.schema import Experiment
from srt.report.format.numbers import EN_DASH, count
from srt.report.format.table import NOT_MEASURED, NOT_RUN, Table, to_markdown
from srt.report.tables.classes import published_classes
from srt.report.tables.results import MEASURES, Row, number
from srt.results.published_figures import PROTOCOLS, QUOTED, RESULTS, UNKNOWN
from srt.results.runs import Run

SHOWN = ("psnr", "ssim", "lpips")


def reproduction_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> list[Row]:
    """Returns a row for each figure, by dataset and protocol, the published ones first.

    Args:
        runs: what was measured; only figures of published data count.
        plans: the experiments at the published scale.
        performance: the steps that were timed, as `benchmarks.training` writes them.
    """
    rows = [*_published_rows(plans), *_quoted_rows(), *_own_rows(runs, plans, performance)]
    datasets = list(dict.fromkeys(plan.dataset_name for plan in plans))
    protocols = [*PROTOCOLS, UNKNOWN]

    def place(row: Row) -> tuple[int, int]:
        return datasets.index(row["dataset"]), protocols.index(row["protocol"])

    return sorted((row for row in rows if row["dataset"] in datasets), key=place)


def _row(dataset: str, protocol: str, method: str, **values: Any) -> Row:
    """Returns a row of the table; what is not given is None, which is not measured or not run."""
    keys = ("psnr", "ssim", "lpips", "source", "mark", "steps", "step_seconds")
    blank = dict.fromkeys((*keys, "gpu_hours", "peak_gigabytes", "hardware"))
    head = {"dataset": dataset, "class": "all", "protocol": protocol, "method": method, "ours": ""}
    return {**head, **blank, **values}


def _published_rows(plans: Sequence[Experiment]) -> Iterator[Row]:
    for plan in plans:
        for result in RESULTS.get(plan.name, []):
            source = {"source": result.source, "mark": result.mark}
            for name, figures in published_classes(result).items():
                row = _row(plan.dataset_name, result.protocol, result.method, **figures, **source)
                yield row | {"class": name}


def _quoted_rows() -> Iterator[Row]:
    for q in QUOTED:
        figures = dict(zip(SHOWN, q.figures, strict=True))
        yield _row(q.dataset, q.protocol, q.method, **figures, source=q.source, mark=q.mark)


def _own_rows(
    runs: Sequence[Run], plans: Sequence[Experiment], performance: Mapping[str, Any]
) -> Iterator[Row]:
    done = {run.name: run for run in runs if not run.metrics["synthetic"] and not run.departure}
    for plan in plans:
        cost = {"ours": plan.name, "steps": plan.train.steps, **_step(plan, performance)}
        for protocol in plan.evaluate.protocols:
            row = _row(plan.dataset_name, protocol, f"{plan.name}, this repository", **cost)
            run = done.get(plan.name)
            figures = run.metrics["protocols"].get(protocol) if run else None
            if run is None or figures is None:
                yield row
                continue
            row["source"] = f"profile {run.metrics['profile']}, {run.training['steps']} steps"
            if figures["items"] < figures["of"]:
                row["source"] += f", {figures['items']} of {figures['of']} items"
            for name, values in {**figures["classes"], "all": figures}.items():
                yield row | {"class": name, **{key: values[key] for key in SHOWN}}


def _step(plan: Experiment, performance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the fastest timed step of this experiment at its batch size costs, if any."""
    timed = [
        row
        for row in performance["rows"]
        if (row["setting"], row["scenes"]) == (plan.name, plan.train.batch_size)
        and row["way"].startswith("ours")
    ]
    if not timed:
        return {}
    row = min(timed, key=lambda row: row["median_ms"])
    return {
        "step_seconds": round(row["median_ms"] / 1000, 6),
        "gpu_hours": round(row["median_ms"] / 1000 * plan.train.steps / 3600, 1),
        "peak_gigabytes": row["peak_gb"],
        "hardware": performance["device"],
    }


def reproduction_table(rows: Sequence[Row]) -> Table:
    """Returns all figures of whole datasets."""
    whole = [row for row in rows if row["class"] == "all"]
    header = ["dataset", "protocol", "method", *(MEASURES[name][0] for name in SHOWN)]
    return Table(
        title="Reproduction: published figures and ours",
        align="lllrrrrrrrl",
        header=[*header, "iterations", "a step", "GPU hours", "GPU memory", "source"],
        rows=[
            [
                *(row[key] for key in ("dataset", "protocol", "method")),
                *(_figure(row, name) for name in SHOWN),
                *_costs(row),
                f"{row['source']} ({row['mark']})" if row["mark"] else row["source"] or EN_DASH,
            ]
            for row in whole
        ],
        notes=[
            f"{NOT_RUN.capitalize()}: this experiment was not run on the published data. Only rows"
            " of one dataset and one protocol can be compared. The protocols are defined below the"
            f" table of results; {UNKNOWN}: the text that a figure is from could not be opened.",
            "Read: in a text that was read. Second-hand: in somebody's note of the paper."
            " Unconfirmed: in no text that could be opened; to be checked before it is quoted.",
            "GPU hours are the measured time of a step, times the iterations of profile paper; with"
            f" memory, on one {_hardware(whole)}. {NOT_MEASURED.capitalize()}: no step at this"
            " size was timed.",
        ],
    )


def _figure(row: Row, name: str) -> str:
    if row[name] is None and name not in _defined(row):
        return EN_DASH
    if row["psnr"] is None:
        return NOT_RUN
    return EN_DASH if row[name] is None and not row["ours"] else number(row, name)


def _defined(row: Row) -> tuple[str, ...]:
    known = PROTOCOLS.get(row["protocol"])
    return known.measures if known else SHOWN


def _costs(row: Row) -> list[str]:
    if not row["ours"]:
        return [EN_DASH] * 4
    if row["step_seconds"] is None:
        return [count(row["steps"]), *[NOT_MEASURED] * 3]
    return [
        count(row["steps"]),
        f"{1000 * row['step_seconds']:.1f} ms",
        f"{row['gpu_hours']:.0f}",
        f"{row['peak_gigabytes']:.1f} GB",
    ]


def _hardware(rows: Sequence[Row]) -> str:
    return " or ".join(dict.fromkeys(row["hardware"] for row in rows if row["hardware"])) or "GPU"


def class_table(rows: Sequence[Row]) -> Table:
    """Returns the published classes of NMR beside ours, a row a class."""
    published = [row for row in rows if row["class"] != "all" and not row["ours"]]
    keys = {(row["dataset"], row["protocol"]) for row in published}
    alike = [row for row in rows if (row["dataset"], row["protocol"]) in keys]
    methods = list(dict.fromkeys(row["method"] for row in alike if row["ours"]))
    methods = [*dict.fromkeys(row["method"] for row in published), *methods]
    found = {(row["method"], word): row for row in alike for word in row["class"].split(",")}
    names = [*dict.fromkeys(row["class"] for row in published if row["class"] != "all"), "all"]
    where = " and ".join(f"{dataset}, protocol {protocol}" for dataset, protocol in sorted(keys))
    return Table(
        title=f"Reproduction by class: {where}",
        align="l" + "r" * len(SHOWN) * len(methods),
        header=[
            "class",
            *(f"{m.split(',')[0]} {MEASURES[name][0]}" for m in methods for name in SHOWN),
        ],
        rows=[
            [
                name,
                *(
                    _figure(found[method, name], measure) if (method, name) in found else NOT_RUN
                    for method in methods
                    for measure in SHOWN
                ),
            ]
            for name in names
        ],
        notes=[
            f"{row['method']}: {row['source']} ({row['mark']})."
            for row in alike
            if row["mark"] and row["class"] == "all" and row["method"] in methods
        ],
    )


def reproduction_page(tables: Sequence[Table]) -> str:
    """Returns reproduction.md."""
    definitions = [f"- Protocol {name}: {known.text}." for name, known in PROTOCOLS.items()]
    head = "# Published figures and their reproduction"
    return "\n".join([head, "", *map(to_markdown, tables), "## Protocols", "", *definitions, ""])
