"""The texts of a report: results.md, and index.html, which holds all its pictures and videos.

A report is of all runs of one profile. `Report` has its tables and files.
`results_markdown` and `report_page` put them into texts. The HTML and its style are in templates/.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from srt import PACKAGE
from srt.report.format.table import Table, to_markdown
from srt.report.provenance_sentence import trained_sentence
from srt.report.tables.datasets import data_label, datasets_tables
from srt.results.records import Survey
from srt.results.runs import Run

TEMPLATES = PACKAGE / "report" / "templates"

# Where `mlflow ui` shows the models and their runs.
MLFLOW = "http://127.0.0.1:5000/#/models"

# The folder of the benchmark on few cameras, seen from a report's. Its text has this name and .md.
FEW_CAMERAS = "../camera_overfitting"

# The figures of the runs, and the most pixels that a picture on the page is wide.
FIGURES = ("curves", "compute", "classes")
WIDEST_PICTURE = 1800

# Lossless WebP takes half the bytes of a PNG. The quality is how hard the encoder tries.
WEBP: dict[str, Any] = {"format": "webp", "lossless": True, "method": 2, "quality": 50}

# What stands below each picture, on the page and in results.md.
CAPTIONS = {
    "curves": "Learning curves by step and by time: thick on validation scenes, thin on the"
    " training's rays, as means of neighbours. The ring is the model that was selected and is"
    " measured. Time is the training's, validation included, spread evenly over its steps."
    " The climb of the first tenth of the steps may lie below the panel.",
    "compute": "Test PSNR against what a model costs. Only marks of one dataset, of the same form,"
    " compare; a grey line joins those that no cheaper model reaches.",
    "classes": "Test PSNR by class. A diamond is a published figure on the same test set.",
    "few_cameras": "PSNR of new objects by the angle to the nearest fixed camera: trained on 24"
    " fixed cameras, a light field is sharp at these and falls below the input copied a few degrees"
    " beside them.",
    "comparison": "Scenes that were never trained on: what the model is given, what it should"
    " show, what it shows, and how far that is off.",
    "extremes": "The best, the median and the worst of the measured scenes, by PSNR over all target"
    " views; one of these views is shown.",
}

# The anchor and the title of each section of the page.
SECTIONS = {
    "results": "Results",
    "equal": "Equal cost",
    "scenes": "Scenes and videos",
    "curves": "Learning",
    "compute": "Compute",
    "classes": "Classes",
    "few_cameras": "Known limit",
    "reproduction": "Reproduction",
    "data": "Data",
    "commands": "To reproduce",
}


@dataclass(frozen=True)
class Report:
    """All that a report shows."""

    profile: str
    data: list[str]  # a sentence for each dataset
    results: Table
    details: list[Table]  # the baselines and the trainings of the results
    equal_cost: Table | None  # the models of a dataset after equal steps and equal time
    seeds: Table | None  # means over seeds, if a run has several
    costs: Table
    classes: list[Table]
    few_cameras: Table
    angle_figure: Path  # the figure of `few_cameras`
    reproduction: list[Table]
    surveys: list[Survey]
    runs: list[Run]

    @property
    def tables(self) -> list[Table]:
        """The tables of the runs, in the order in which results.md has them."""
        optional = [table for table in (self.seeds, self.equal_cost) if table]
        return [self.results, *self.details, *optional, self.costs, *self.classes]

    @property
    def sections(self) -> dict[str, str]:
        """The sections of SECTIONS that are not empty."""
        empty = {"equal": not self.equal_cost, "classes": not self.classes}
        return {key: title for key, title in SECTIONS.items() if not empty.get(key)}

    @property
    def title(self) -> str:
        """The heading of the report."""
        return f"Scene Representation Transformers, profile {self.profile}"

    @property
    def trained_sentence(self) -> str:
        """Where, when and from which commit the runs were trained."""
        return trained_sentence([run.training for run in self.runs])

    @property
    def commands(self) -> list[str]:
        """The commands that make the runs, or only the report, again."""
        return [
            f"snakemake --cores all --config profile={self.profile} -- results",
            f"dvc repro    # where params.yaml says profile: {self.profile}",
            "make reports    # every table and figure again, from the result files in git",
        ]


def results_markdown(report: Report) -> str:
    """Return the content of results.md."""
    # The runs: their tables first, then their figures.
    lines = [f"# {report.title}\n"]
    lines += [f"{sentence}\n" for sentence in report.data]
    lines += map(to_markdown, report.tables)
    lines += [f"![{CAPTIONS[name]}]({name}.png)\n" for name in FIGURES if name in report.sections]

    # What is not of these runs: the known limit, and publications.
    lines += [
        to_markdown(report.few_cameras),
        f"![{CAPTIONS['few_cameras']}]({FEW_CAMERAS}/psnr_by_angle.png)\n",
        f"[How it was measured, and what was tried against it]({FEW_CAMERAS}.md)\n",
        "Published figures beside these: [reproduction.md](reproduction.md). Scenes and videos"
        " of every run: `index.html`.\n",
    ]

    # The data, and how to make everything again.
    lines += map(to_markdown, datasets_tables(report.surveys))
    for survey in report.surveys:
        lines.append(f"![{survey.dataset}](datasets/{survey.dataset}/scenes.png)\n")
    lines += ["## To reproduce\n", f"{report.trained_sentence}\n"]
    lines += [f"    {command}" for command in report.commands]
    return "\n".join([*lines, ""])


def report_page(report: Report, folder: Path) -> str:
    """Return the content of index.html. It loads nothing: pictures and videos are inside.

    Args:
        folder: of the report, which has the pictures and videos.
    """
    return render_template(
        "page.html",
        title=report.title,
        synthetic=all(run.metrics.synthetic for run in report.runs),
        sections=report.sections,
        captions=CAPTIONS,
        results=report.results,
        details=report.details,
        seeds=report.seeds,
        equal_cost=report.equal_cost,
        costs=report.costs,
        classes=report.classes,
        reproduction=report.reproduction,
        data=report.data,
        datasets=datasets_tables(report.surveys),
        runs=[_run_values(run, folder / "runs" / run.name, report.profile) for run in report.runs],
        figures={name: embed_picture(folder / f"{name}.png") for name in FIGURES},
        few_cameras=report.few_cameras,
        angle_figure=embed_picture(report.angle_figure),
        few_cameras_page=f"{FEW_CAMERAS}.md",
        surveys=[_survey_values(survey, folder / "datasets") for survey in report.surveys],
        trained_sentence=report.trained_sentence,
        commands=report.commands,
    )


@dataclass(frozen=True)
class ProfileSummary:
    """What the overview says about the report of a profile."""

    name: str
    runs: int  # their number
    teaser: bool  # whether there is one
    datasets: list[str]
    synthetic: bool  # whether all datasets are
    trained: str  # the sentence on when and on what


def overview_page(profiles: Sequence[ProfileSummary]) -> str:
    """Return the page that links to the report of each profile."""
    title = "Scene Representation Transformers"
    return render_template("overview.html", title=title, profiles=profiles)


def render_template(name: str, **values: Any) -> str:
    """Return a page in the style of the reports.

    Args:
        name: of the file in templates/.
        values: the variables of the template. A missing one is an error.
    """
    # Only the stage that makes reports needs these packages.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    # The style is in the page as well, and must not be escaped.
    style = Markup((TEMPLATES / "page.css").read_text().strip())
    return environment.get_template(name).render(style=style, **values).lstrip()


class EmbeddedPicture(NamedTuple):
    """A picture for the page, in pixels, with an address that contains it."""

    address: str
    width: int
    height: int


def embed_picture(path: Path) -> EmbeddedPicture:
    """Return a picture for the page, made smaller if it is wider than a screen shows."""
    from PIL import Image

    # A figure for print has more pixels than a screen.
    with Image.open(path) as file:
        picture = file.convert("RGB")
    if picture.width > WIDEST_PICTURE:
        size = (WIDEST_PICTURE, round(picture.height * WIDEST_PICTURE / picture.width))
        picture = picture.resize(size, Image.Resampling.BOX)

    content = io.BytesIO()
    picture.save(content, **WEBP)
    return EmbeddedPicture(data_url(content.getvalue(), "image/webp"), *picture.size)


def data_url(content: bytes, media_type: str) -> str:
    """Return a URL that contains the content itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _run_values(run: Run, folder: Path, profile: str) -> dict[str, Any]:
    """Return what the template shows of a run, whose pictures are in this folder."""
    # The first protocol is the one that all experiments share.
    protocol = run.metrics.first_protocol
    psnr = run.metrics.protocols[protocol].psnr
    video = folder / "video.mp4"
    return {
        "name": run.name,
        "label": run.label,
        "quality": f"test PSNR {psnr:.2f} dB, protocol {protocol}",
        "video": data_url(video.read_bytes(), "video/mp4") if video.is_file() else None,
        "comparison": embed_picture(folder / "comparison.png"),
        "extremes": embed_picture(folder / "extremes.png"),
        "mlflow": f"{MLFLOW}/{quote(f'{profile}-{run.name}')}",
    }


def _survey_values(survey: Survey, folder: Path) -> dict[str, Any]:
    """Return what the template shows of a dataset, whose pictures are in this folder."""
    pictures = folder / survey.dataset
    return {
        "label": data_label(survey),
        "scenes": embed_picture(pictures / "scenes.png"),
        "cameras": embed_picture(pictures / "cameras.png"),
    }
