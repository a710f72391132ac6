"""The reports of all profiles -> one page that leads to them, made of their result files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from srt.common.files import write_atomically
from srt.report.page import overview, trained_sentence
from workflow.common.cli import run
from workflow.common.stage_files import VIDEO, read_json, was_measured

log = logging.getLogger(__name__)


def write_overview(*, reports: Path) -> None:
    """Writes index.html over the reports that the folder has.

    Args:
        reports: the folder that has a folder for each profile.
    """
    profiles = [describe(runs.parent) for runs in sorted(reports.glob("*/runs"))]
    write_atomically(reports / "index.html", overview(profiles).encode())
    log.info("wrote %s", reports / "index.html")


def describe(report: Path) -> dict[str, Any]:
    """Returns what a profile's result files say of it."""
    runs = sorted(path for path in (report / "runs").iterdir() if was_measured(path))
    metrics = [read_json(path / "metrics.json", ("dataset", "synthetic")) for path in runs]
    return {
        "name": report.name,
        "runs": len(runs),
        "teaser": any((path / VIDEO).is_file() for path in runs),  # what it is made of
        "datasets": list(dict.fromkeys(figures["dataset"] for figures in metrics)),
        "synthetic": all(figures["synthetic"] for figures in metrics),
        "trained": trained_sentence(
            [read_json(path / "training.json", ("hardware",)) for path in runs]
        ),
    }


if __name__ == "__main__":
    run(write_overview)
