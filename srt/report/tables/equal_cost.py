"""The table that compares a dataset's models after the same steps and the same time of training."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH, count, format_decibels, format_precise_duration
from srt.report.format.table import Table
from srt.report.tables.results import MEASURES, number
from srt.results.curves import value_at
from srt.results.published_figures import PROTOCOLS
from srt.results.runs import Equal, Run, by_dataset, equal_cost

Groups = list[list[Run]]  # of one dataset each, and of several models


def equal_cost_table(runs: Sequence[Run], profile: str) -> Table | None:
    """Returns a row a run of each dataset that several models learnt; None where there is none."""
    datasets = by_dataset(runs).values()
    groups = [group for group in datasets if equal_cost(group).steps is not None]
    if not groups:
        return None
    tested = _tested(groups)
    header = ["run", "dataset", "equal steps", "PSNR there", "time to there"]
    header += ["equal time", "PSNR then", "steps by then", "steps in all", "time in all"]
    header += [f"test {MEASURES[name][0]}, {protocol}" for protocol, name in tested]
    return Table(
        title=f"Models after equal steps and equal time, profile {profile}",
        align="ll" + "r" * (len(header) - 2),
        header=header,
        rows=[_row(run, equal_cost(group), tested) for group in groups for run in group],
        notes=_notes(groups),
    )


def _row(run: Run, equal: Equal, tested: Sequence[tuple[str, str]]) -> list[str]:
    in_all, time = run.training["steps"], run.training["seconds"]
    figures = run.metrics["protocols"]
    there, then = [EN_DASH] * 3, [EN_DASH] * 3
    if equal.steps is not None:
        psnr = format_decibels(value_at(run.by_step, equal.steps))
        there = [
            count(int(equal.steps)),
            psnr,
            format_precise_duration(equal.steps * time / in_all),
        ]
    if equal.seconds is not None:
        psnr = format_decibels(value_at(run.by_time, equal.seconds))
        then = [
            format_precise_duration(equal.seconds),
            psnr,
            count(round(equal.seconds * in_all / time)),
        ]
    return [
        run.name,
        run.data,
        *there,
        *then,
        count(in_all),
        format_precise_duration(time),
        *(number(figures[p], name) if p in figures else EN_DASH for p, name in tested),
    ]


def _tested(groups: Groups) -> list[tuple[str, str]]:
    """Returns the measures of the runs, each by the first protocol of a run that has it."""
    tested: dict[tuple[str, str], None] = {}  # in order
    for figures in (run.metrics["protocols"] for group in groups for run in group):
        shown: set[str] = set()
        for protocol in figures:
            for name in PROTOCOLS[protocol].measures:
                if figures[protocol][name] is not None and name not in shown:
                    tested[protocol, name] = None
                    shown.add(name)
    return list(tested)


def _notes(groups: Groups) -> list[str]:
    notes = [
        "PSNR there and then: in dB, on validation scenes, at the largest step and at the longest"
        " time that all models of a dataset were validated at or beyond, on a straight line between"
        f" two validations; {EN_DASH}: it was not validated before. A training does not write when"
        " each step was: its time is spread evenly over its steps.",
        "A training that goes on from there was in the midst of its schedule of learning rates."
        " Steps may be of different batches. Test figures are those of the results: of the selected"
        " weights, after all steps; each measure by the first protocol that has it.",
    ]
    if any(equal_cost(group).seconds is None for group in groups):
        notes.append("No equal time: these models were not trained on the same hardware.")
    for group in groups:
        most = max(run.validation_items for run in group)
        notes += [
            f"{run.name} was validated on {run.validation_items} items, not on {most} as others."
            for run in group
            if run.validation_items < most
        ]
    return notes
