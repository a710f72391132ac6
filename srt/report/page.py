"""The report's texts: Markdown, and one page that holds all its pictures and videos."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from srt import PACKAGE
from srt.report.format.numbers import format_threads
from srt.report.format.table import Table, drop_empty_columns, to_markdown
from srt.report.tables.datasets import data_label, datasets_table
from srt.results.runs import Run

TEMPLATES = PACKAGE / "report" / "templates"
MLFLOW = "http://127.0.0.1:5000/#/models"  # where `mlflow ui` shows the models and their runs
WIDEST = 1800  # pixels of a picture on the page
LOSSLESS: dict[str, Any] = {
    "format": "webp",
    "lossless": True,
    "method": 2,
    "quality": 50,
}  # half of a PNG
FEW_CAMERAS = "../camera_overfitting"  # from a report's folder; with .md: what it is about
FIGURES = ("curves", "compute", "classes")
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
    equal: Table | None  # the models of a dataset after equal steps and equal time
    seeds: Table | None  # means over seeds, where there are several
    costs: Table
    classes: list[Table]
    few_cameras: Table
    by_angle: Path  # the figure to it
    reproduction: list[Table]
    surveys: list[dict[str, Any]]
    runs: list[Run]

    @property
    def tables(self) -> list[Table]:
        """All of the runs, in the order in which they are shown."""
        some = [table for table in (self.seeds, self.equal) if table]
        return [self.results, *some, self.costs, *self.classes]

    @property
    def sections(self) -> dict[str, str]:
        """Those of SECTIONS that have anything to show."""
        empty = {"equal": not self.equal, "classes": not self.classes}
        return {key: title for key, title in SECTIONS.items() if not empty.get(key)}

    @property
    def title(self) -> str:
        return f"Scene Representation Transformers, profile {self.profile}"

    @property
    def trained_sentence(self) -> str:
        return trained_sentence([run.training for run in self.runs])

    @property
    def commands(self) -> list[str]:
        return [
            f"snakemake --cores all --config profile={self.profile} -- results",
            f"dvc repro    # where params.yaml says profile: {self.profile}",
            "make reports    # every table and figure again, from the result files in git",
        ]


def markdown(report: Report) -> str:
    """Returns results.md."""
    figures = [f"![{CAPTIONS[name]}]({name}.png)\n" for name in FIGURES if name in report.sections]
    datasets = [survey["dataset"] for survey in report.surveys]
    return "\n".join(
        [
            f"# {report.title}\n",
            *(f"{sentence}\n" for sentence in report.data),
            *map(to_markdown, report.tables),
            *figures,
            to_markdown(report.few_cameras),
            f"![{CAPTIONS['few_cameras']}]({FEW_CAMERAS}/psnr_by_angle.png)\n",
            f"[How it was measured, and what was tried against it]({FEW_CAMERAS}.md)\n",
            "Published figures beside these: [reproduction.md](reproduction.md). Scenes and videos"
            " of every run: `index.html`.\n",
            to_markdown(datasets_table(report.surveys)),
            *(f"![{name}](datasets/{name}/scenes.png)\n" for name in datasets),
            "## To reproduce\n",
            f"{report.trained_sentence}\n",
            *(f"    {command}" for command in report.commands),
            "",
        ]
    )


def page(report: Report, folder: Path) -> str:
    """Returns index.html, which loads nothing: pictures and videos are inside.

    Args:
        folder: of the report, where they lie.
    """
    return from_template(
        "page.html",
        title=report.title,
        synthetic=all(run.metrics["synthetic"] for run in report.runs),
        sections=report.sections,
        captions=CAPTIONS,
        results=drop_empty_columns(report.results),
        seeds=report.seeds,
        equal=report.equal,
        costs=report.costs,
        classes=report.classes,
        reproduction=report.reproduction,
        data=report.data,
        datasets=datasets_table(report.surveys),
        runs=[_shown_run(run, folder / "runs" / run.name, report.profile) for run in report.runs],
        figures={name: embed_picture(folder / f"{name}.png") for name in FIGURES},
        few_cameras=report.few_cameras,
        by_angle=embed_picture(report.by_angle),
        few_cameras_page=f"{FEW_CAMERAS}.md",
        surveys=[_shown_survey(survey, folder / "datasets") for survey in report.surveys],
        trained=report.trained_sentence,
        commands=report.commands,
    )


def overview(profiles: Sequence[dict[str, Any]]) -> str:
    """Returns the page that leads to the report of each profile.

    Args:
        profiles: of each its `name`, how many `runs` of which `datasets`, whether all is
            `synthetic`, and how it was `trained`.
    """
    return from_template(
        "overview.html", title="Scene Representation Transformers", profiles=profiles
    )


def from_template(name: str, **values: Any) -> str:
    """Returns a page in the reports' style."""
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
    style = Markup((TEMPLATES / "page.css").read_text().strip())
    return environment.get_template(name).render(style=style, **values).lstrip()


class Embedded(NamedTuple):
    """A picture as an address that holds it."""

    address: str
    width: int
    height: int


def embed_picture(path: Path) -> Embedded:
    """Returns a picture for the page, smaller where it is wider than a screen shows."""
    from PIL import Image

    with Image.open(path) as file:
        picture = file.convert("RGB")
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, **LOSSLESS)
    return Embedded(data_address(content.getvalue(), "image/webp"), *picture.size)


def data_address(content: bytes, kind: str) -> str:
    """Returns an address that is the content itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _shown_run(run: Run, folder: Path, profile: str) -> dict[str, Any]:
    protocol, figures = next(iter(run.metrics["protocols"].items()))
    video = folder / "video.mp4"
    return {
        "name": run.name,
        "label": run.label,
        "quality": f"test PSNR {figures['psnr']:.2f} dB, protocol {protocol}",
        "video": data_address(video.read_bytes(), "video/mp4") if video.is_file() else None,
        "comparison": embed_picture(folder / "comparison.png"),
        "extremes": embed_picture(folder / "extremes.png"),
        "mlflow": f"{MLFLOW}/{quote(f'{profile}-{run.name}')}",
    }


def _shown_survey(survey: dict[str, Any], folder: Path) -> dict[str, Any]:
    pictures = {
        name: embed_picture(folder / survey["dataset"] / f"{name}.png")
        for name in ("scenes", "cameras")
    }
    return {"label": data_label(survey), **pictures}


def trained_sentence(trainings: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence of all runs' training.json; files of older runs have no date or commit."""
    days = sorted(_known(trainings, "finished"))
    commits = [
        f"{commit[:7]}{' and changes' * commit.endswith(' and changes')}"
        for commit in _known(trainings, "commit")
    ]
    day = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not recorded"
    return (
        f"Trained on {', '.join(map(format_threads, _known(trainings, 'hardware')))};"
        f" date: {day}; commit: {', '.join(commits) or 'not recorded'}."
    )


def _known(trainings: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(training[key] for training in trainings if training.get(key)))
