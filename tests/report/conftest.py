"""The published site, for the tests of what people see of it."""

import shutil

import pytest
from small_reports import make_report, write_runs
from support.paths import PARAMS, REPOSITORY
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


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """Return the report of the default profile: synthetic scenes, not all items, no LPIPS."""
    root = tmp_path_factory.mktemp("synthetic")
    outputs, out = root / "outputs" / "quick", root / "reports" / "quick"
    write_runs(outputs, "quick", True, {"stelzner": 768, "pixelnerf": 32}, items=32)
    make_report(profile="quick", outputs=outputs, out=out, params=PARAMS)
    return out


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Return the report of runs on the whole published data."""
    root = tmp_path_factory.mktemp("published")
    protocols = {"stelzner": 24 * 8762, "pixelnerf": 8762}
    classes = ("airplane,aeroplane,plane", "vessel,watercraft", "spaceship")
    write_runs(root, "paper", False, protocols, lpips=0.1, classes=classes)
    make_report(profile="paper", outputs=root, out=root / "report", params=PARAMS)
    return root / "report"
