"""When, on what and with which code runs were trained, as far as their files say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from srt.report.format.numbers import threads


def trained(trainings: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence of all runs' training.json; files of older runs have no date or commit."""
    days = sorted(_known(trainings, "finished"))
    commits = [
        f"{commit[:7]}{' and changes' * commit.endswith(' and changes')}"
        for commit in _known(trainings, "commit")
    ]
    day = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not recorded"
    return (
        f"Trained on {', '.join(map(threads, _known(trainings, 'hardware')))};"
        f" date: {day}; commit: {', '.join(commits) or 'not recorded'}."
    )


def _known(trainings: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(training[key] for training in trainings if training.get(key)))
