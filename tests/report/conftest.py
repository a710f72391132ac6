"""The published site, for the tests of what people see of it."""

import shutil

import pytest
from support.paths import REPOSITORY
from support.tracked_reports import REPORTS, make_again, tracked_reports

from workflow.tools.overview import write_overview


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder that is published: what git tracks of reports/, and the pages built from it."""
    folder = tmp_path_factory.mktemp("site") / "reports"
    folder.mkdir()
    for path in (REPOSITORY / "reports").iterdir():
        if path in tracked_reports():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("index.html"))
        elif path.is_file() and path.name != "index.html":
            shutil.copy2(path, folder)
    for report in REPORTS:
        make_again(report, folder / report.name)
    write_overview(reports=folder)
    return folder
