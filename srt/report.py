"""The report: Markdown and HTML of tables, figures, surveys of the data and videos.

`index.html` links figures and videos; `tables.html` stands alone.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from srt.tables import Run
from srt.typesetting import Table, to_html, to_markdown

CAPTIONS = {
    "curves.png": "Learning curves; a line of many points shows means of neighbours. The ring is"
    " the model that was selected and is measured above.",
    "comparison.png": "Scenes that were never trained on: what the model is given, what it should"
    " show, what it shows, and how far that is off.",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.2; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid #222; border-bottom: 2px solid #222;
  font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; }
thead { border-bottom: 1px solid #222; }
.l { text-align: left; }
.r { text-align: right; }
.notes { font-size: 0.85rem; color: #555; padding-left: 1.2rem; }
figure { margin: 1.5rem 0; }
figcaption { font-size: 0.85rem; color: #555; }
img, video { max-width: 100%; }
pre { background: #f4f4f4; padding: 0.7rem 1rem; overflow-x: auto; }
""".strip()


def reproduce(profile: str) -> list[str]:
    """Returns the commands that make everything on the page."""
    return [
        f"snakemake --cores all --config profile={profile} -- results",
        f"dvc repro    # where params.yaml says profile: {profile}",
    ]


def markdown(
    profile: str,
    data: Sequence[str],
    tables: Sequence[Table],
    surveys: Sequence[dict[str, Any]],
) -> str:
    """Returns results.md."""
    figures = [f"![{caption}]({name})\n" for name, caption in CAPTIONS.items()]
    return "\n".join(
        [
            f"# Scene Representation Transformers, profile {profile}\n",
            *(f"{sentence}\n" for sentence in data),
            *map(to_markdown, tables),
            *figures,
            to_markdown(datasets_table(surveys)),
            *(f"![{survey['dataset']}]({picture(survey)})\n" for survey in surveys),
            "## To reproduce\n",
            *(f"    {command}" for command in reproduce(profile)),
            "",
        ]
    )


def page(
    profile: str,
    data: Sequence[str],
    tables: Sequence[Table],
    surveys: Sequence[dict[str, Any]],
    runs: Sequence[Run],
    outputs: Path,
) -> str:
    """Returns index.html; figures and videos are linked relative to it."""
    figures = [
        f'<figure><img src="{name}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, caption in CAPTIONS.items()
    ]
    body = [
        *(f"<p>{html.escape(sentence)}</p>" for sentence in data),
        to_html(tables[0]),
        '<p>As files: <a href="results.csv">csv, raw figures</a>, '
        '<a href="results.md">Markdown</a>, <a href="results.tex">LaTeX</a>.</p>',
        *figures,
        "<h2>Videos</h2>",
        *(video(run, outputs) for run in runs),
        *map(to_html, tables[1:]),
        to_html(datasets_table(surveys)),
        *(dataset_figure(survey) for survey in surveys),
        "<h2>To reproduce</h2>",
        f"<pre>{html.escape(chr(10).join(reproduce(profile)))}</pre>",
    ]
    return _document(profile, body)


def tables_page(
    profile: str,
    data: Sequence[str],
    tables: Sequence[Table],
    surveys: Sequence[dict[str, Any]],
) -> str:
    """Returns tables.html, which links nothing: for a reader who gets this file alone."""
    sentences = (f"<p>{html.escape(sentence)}</p>" for sentence in data)
    return _document(profile, [*sentences, *map(to_html, [*tables, datasets_table(surveys)])])


def _document(profile: str, body: Sequence[str]) -> str:
    title = html.escape(f"Scene Representation Transformers, profile {profile}")
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title>",
        f"<style>\n{STYLE}\n</style>",
    ]
    heading = f"<h1>{title}</h1>"
    return "\n".join(["<!DOCTYPE html>", '<html lang="en">', *head, heading, *body, "</html>", ""])


def picture(survey: dict[str, Any], name: str = "scenes.png") -> str:
    """Returns where a dataset's picture lies beside the report."""
    return f"datasets/{survey['dataset']}/{name}"


def dataset_figure(survey: dict[str, Any]) -> str:
    """Returns a dataset's contact sheet and cameras."""
    name = html.escape(data_label(survey))
    return (
        f'<figure><img src="{picture(survey)}" alt="Views of {name}" loading="lazy">'
        f'<img src="{picture(survey, "cameras.png")}" alt="Cameras of {name}" loading="lazy">'
        f"<figcaption>{name}: scenes of each split, and where the cameras stand.</figcaption>"
        "</figure>"
    )


def video(run: Run, outputs: Path) -> str:
    """Returns a run's video with its caption."""
    source = quote((outputs / run.name / "video.mp4").as_posix())
    return (
        f'<figure><video controls loop muted preload="metadata" src="{source}"></video>'
        f'<figcaption>{html.escape(run.label)} (<a href="{source}">{source}</a>)</figcaption>'
        "</figure>"
    )


def datasets_table(surveys: Sequence[dict[str, Any]]) -> Table:
    """Returns what each dataset holds, a row each."""
    header = ["dataset", "train", "val", "test", "classes", "views", "size", "uncompressed"]
    header += ["camera distance", "elevation", "field of view"]
    return Table(
        title="Datasets",
        align="l" + "r" * (len(header) - 1),
        header=header,
        rows=[_dataset_row(survey) for survey in surveys],
        notes=[
            "Sizes are rows × columns. Camera distances are to the world's origin; ranges are over"
            " all views of the training scenes, as is the horizontal field of view. Scenes by class"
            " and the statistics of pixels are in datasets/<dataset>/statistics.json."
        ],
    )


def _dataset_row(survey: dict[str, Any]) -> list[str]:
    splits, train = survey["splits"], survey["splits"]["train"]
    total = sum(split["uncompressed_bytes"] for split in splits.values())

    def range_of(name: str, digits: int, unit: str) -> str:
        low, _, high = (f"{value:.{digits}f}" for value in train["cameras"][name])
        return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"

    return [
        data_label(survey),
        *(f"{splits[split]['scenes']:,}".replace(",", "\u00a0") for split in splits),
        str(len(train["classes"])),
        str(train["views"]),
        " × ".join(map(str, train["image_size"])),
        f"{total / 1e9:.1f} GB" if total > 1e9 else f"{total / 1e6:.1f} MB",
        range_of("distance_to_origin", 2, ""),
        range_of("elevation_degrees", 0, "°"),
        range_of("field_of_view_degrees", 0, "°"),
    ]


def data_label(survey: dict[str, Any]) -> str:
    """Returns a dataset's name, and that it is synthetic where it is."""
    return f"{survey['dataset']}{' (synthetic)' if survey['synthetic'] else ''}"
