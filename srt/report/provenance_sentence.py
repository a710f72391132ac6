"""The sentence that says where, when and from which commit runs were trained."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import format_threads
from srt.results.records import Training

# How a recorded commit ends if files differed from it.
UNCOMMITTED = " and changes"


def trained_sentence(trainings: Sequence[Training]) -> str:
    """Return where, when and from which commit runs were trained.

    Older trainings have no date and no commit.
    """
    # The first and the last day, or the only one.
    days = sorted(_distinct_values([training.finished for training in trainings]))
    period = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not recorded"

    # Of the other values, all that differ are named.
    machines = _distinct_values([training.hardware for training in trainings])
    hardware = [format_threads(name) for name in machines]
    commits = _distinct_values([training.commit for training in trainings])
    short_commits = [_short_commit(commit) for commit in commits]
    return (
        f"Trained on {', '.join(hardware)};"
        f" date: {period}; commit: {', '.join(short_commits) or 'not recorded'}."
    )


def _short_commit(commit: str) -> str:
    """Return the first seven digits of a commit, and whether files differed from it."""
    return commit[:7] + (UNCOMMITTED if commit.endswith(UNCOMMITTED) else "")


def _distinct_values(values: Sequence[str | None]) -> list[str]:
    """Return the different values in their order, without those that were not recorded."""
    return list(dict.fromkeys(value for value in values if value))
