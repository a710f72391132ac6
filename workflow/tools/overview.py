"""Reports of all profiles -> reports/index.html: one page that links them and sums them up."""

from __future__ import annotations

import logging
from pathlib import Path

from srt.common.files import write_atomically
from srt.report.page import ProfileSummary, overview_page
from srt.report.provenance_sentence import trained_sentence
from srt.results.records import Metrics, Training
from workflow.common.cli import run
from workflow.common.stage_files import VIDEO, read_result, was_measured

log = logging.getLogger(__name__)


def write_overview(*, reports: Path = Path("reports")) -> None:
    """Write index.html for the reports in a folder.

        python -m workflow.tools.overview

    Args:
        reports: has a folder for each profile.
    """
    # A folder is a profile's report if it has the runs that the report is made of.
    profiles = [describe_profile(runs.parent) for runs in sorted(reports.glob("*/runs"))]
    write_atomically(reports / "index.html", overview_page(profiles).encode())
    log.info("wrote %s", reports / "index.html")


def describe_profile(report: Path) -> ProfileSummary:
    """Return what the page says about a profile, from the result files of its report."""
    # A report may be of some experiments only; the others are not counted.
    runs = sorted(path for path in (report / "runs").iterdir() if was_measured(path))
    metrics = [read_result(path / "metrics.json", Metrics) for path in runs]
    training = [read_result(path / "training.json", Training) for path in runs]
    return ProfileSummary(
        name=report.name,
        runs=len(runs),
        teaser=any((path / VIDEO).is_file() for path in runs),  # it is made of these videos
        datasets=list(dict.fromkeys(record.dataset for record in metrics)),
        synthetic=all(record.synthetic for record in metrics),
        trained=trained_sentence(training),
    )


if __name__ == "__main__":
    run(write_overview)
