"""The table that compares a dataset's models after equal steps and after equal time of training.

Models that were trained for different numbers of steps cannot be compared by their final figures
alone. This table reads their validation curves at the largest step and at the longest time that all
of them reached.
"""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import (
    EN_DASH,
    format_count,
    format_decibels,
    format_precise_duration,
)
from srt.report.format.table import Table
from srt.results.curves import value_at
from srt.results.runs import EqualCost, Run, equal_cost, group_by_dataset

# The runs of each dataset, which are of several models.
Groups = list[list[Run]]


def equal_cost_table(runs: Sequence[Run], profile: str) -> Table | None:
    """Return a row for each run of a dataset that several models were trained on.

    It is None if there is no such dataset.
    """
    # A dataset that one model alone was trained on has nothing to compare.
    datasets = group_by_dataset(runs).values()
    groups = [group for group in datasets if equal_cost(group).steps is not None]
    if not groups:
        return None

    header = ["run", "dataset", "equal steps", "PSNR there", "time to there"]
    header += ["equal time", "PSNR then", "steps by then"]
    return Table(
        title=f"Models after equal steps and equal time, profile {profile}",
        align="ll" + "r" * (len(header) - 2),
        header=header,
        rows=[_row(run, equal_cost(group)) for group in groups for run in group],
        notes=_notes(groups),
    )


def _row(run: Run, equal: EqualCost) -> list[str]:
    """Return the cells of a run, which is compared with others at `equal`."""
    return [
        run.name,
        run.data,
        *_cells_at_equal_steps(run, equal.steps),
        *_cells_at_equal_time(run, equal.seconds),
    ]


def _cells_at_equal_steps(run: Run, steps: float | None) -> list[str]:
    """Return the steps, the PSNR after them and the time that they took."""
    if steps is None:
        return [EN_DASH] * 3

    # A training does not write when each step was, so its time is spread evenly over its steps.
    seconds = steps * run.training.seconds / run.training.steps
    psnr = value_at(run.psnr_by_step, steps)
    return [format_count(int(steps)), format_decibels(psnr), format_precise_duration(seconds)]


def _cells_at_equal_time(run: Run, seconds: float | None) -> list[str]:
    """Return the time, the PSNR after it and the steps until then."""
    if seconds is None:
        return [EN_DASH] * 3

    # Here, too, the time is spread evenly over the steps.
    steps = seconds * run.training.steps / run.training.seconds
    psnr = value_at(run.psnr_by_time, seconds)
    return [format_precise_duration(seconds), format_decibels(psnr), format_count(round(steps))]


def _notes(groups: Groups) -> list[str]:
    """Return how to read the table, and which of its runs differ in more than their model."""
    notes = [
        "PSNR there and then: in dB, on validation scenes, at the largest step and at the longest"
        " time that all models of a dataset were validated at or beyond, on a straight line between"
        f" two validations; {EN_DASH}: it was not validated before. A training does not write when"
        " each step was: its time is spread evenly over its steps.",
        "A training that goes on from there was in the midst of its schedule of learning rates."
        " Steps may be of different batches. The tables of results and of trainings have the test"
        " figures and the time of the whole trainings.",
    ]
    if any(equal_cost(group).seconds is None for group in groups):
        notes.append("No equal time: these models were not trained on the same hardware.")

    # Fewer validation items make a curve less exact, so these runs are named.
    for group in groups:
        most = max(run.validation_items for run in group)
        for run in group:
            if run.validation_items < most:
                notes.append(
                    f"{run.name} was validated on {run.validation_items} items, not on {most} as"
                    " others."
                )
    return notes
