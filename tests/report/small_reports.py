"""Small reports for the tests: made by the stage tabulate, and read again."""

import re

from PIL import Image
from support.paths import PARAMS
from support.small_runs import survey_of, write_run

from srt.config.load import load_params
from srt.results.record_files import write_record
from workflow.tabulate import tabulate

PERFORMANCE = PARAMS.parent / "reports" / "performance" / "training.json"
FEW_CAMERAS = PERFORMANCE.parents[1] / "camera_overfitting"


def make_report(*, profile, outputs, out, params, few_cameras=FEW_CAMERAS):
    """Run the stage tabulate, with a survey of every dataset in its folder."""
    surveys = out / "datasets"
    for name in load_params(params).datasets:
        write_survey(surveys / name, name, synthetic=profile == "quick")
    tabulate(
        profile=profile,
        outputs=outputs,
        surveys=surveys,
        performance=PERFORMANCE,
        few_cameras=few_cameras,
        out=out,
        params=params,
    )


def write_survey(folder, dataset, synthetic):
    """Write the statistics and the pictures of a dataset, as the stage survey does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / "statistics.json", survey_of(dataset, synthetic))
    for picture in ("scenes.png", "cameras.png"):
        Image.new("RGB", (8, 8)).save(folder / picture)


def write_runs(outputs, *settings, **figures):
    """Write the result files of all experiments of params.yaml."""
    for name in load_params(PARAMS).experiments:
        write_run(outputs / name, *settings, **figures)


def tables_of(path):
    """Return the tables of a Markdown file: the lines of cells of each, by its title."""
    tables = re.findall(r"^## (.*)\n\n((?:\|.*\n)+)", path.read_text(), re.MULTILINE)
    return {
        title: [
            [cell.strip(" *") for cell in line.strip("|").split(" | ")]
            for line in text.splitlines()
        ]
        for title, text in tables
    }


def table_rows(report, title="Results of profile"):
    """Return the rows of the table of results.md with this title, a dictionary each.

    Args:
        title: of the table, or how it begins.
    """
    tables = tables_of(report / "results.md")
    lines = next(lines for name, lines in tables.items() if name.startswith(title))

    # The second line only says how the columns are aligned.
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]
