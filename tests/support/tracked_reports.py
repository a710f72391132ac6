"""The reports that git tracks, and how one is made again from the result files beside it."""

import re
import shutil

from support.paths import REPOSITORY

from workflow.tabulate import tabulate


def tracked_reports():
    """Return the folders of reports/ that .gitignore does not ignore."""
    ignored = (REPOSITORY / ".gitignore").read_text()
    names = re.findall(r"^!/reports/(\w+)/$", ignored, re.M)
    return [REPOSITORY / "reports" / name for name in sorted(names)]


REPORTS = [folder for folder in tracked_reports() if (folder / "runs").is_dir()]


def make_again(report, out):
    """Make a report again in another folder, from the result files beside the tracked one."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "datasets").exists():
        (out / "datasets").symlink_to(report / "datasets")
    if not (out / "seeds").exists():
        shutil.copytree(report / "seeds", out / "seeds")
    tabulate(
        profile=report.name,
        outputs=report / "runs",
        surveys=report / "datasets",
        performance=REPOSITORY / "reports" / "performance" / "training.json",
        few_cameras=REPOSITORY / "reports" / "camera_overfitting",
        out=out,
        params=REPOSITORY / "params.yaml",
        partial=True,
    )
