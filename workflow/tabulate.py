"""What train and evaluate wrote of every run -> result tables, figures, index.html."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import logging
from collections.abc import Sequence
from os.path import relpath  # Path.relative_to goes up since Python 3.12 only
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from srt.checkpoint import load_weights
from srt.config import Experiment
from srt.errors import UserError
from srt.figures import PANELS, learning_curves, qualitative
from srt.files import write_atomically
from srt.params import load_experiment, load_params
from srt.pictures import write_picture
from srt.shapes import UInt8
from srt.tables import Curve, Run, class_tables, result_rows, results_table
from srt.typesetting import Table, to_csv, to_html, to_latex, to_markdown
from workflow.command import run
from workflow.runs import open_run

CAPTIONS = {
    "curves.png": "Learning curves; a line of many points shows means of neighbours. The ring is"
    " the model that was selected and is measured above.",
    "comparison.png": "Scenes that were never trained on: what the model is given, what it should"
    " show, what it shows, and how far that is off.",
}
STAGES = {"metrics.json": "evaluate", "comparison.png": "evaluate"}  # the others: train
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

log = logging.getLogger(__name__)


def tabulate(*, profile: str, outputs: Path, out: Path, params: Path = Path("params.yaml")) -> None:
    """Writes the tables and figures of all experiments of params.yaml, in its order.

    Args:
        profile: of params.yaml.
        outputs: the folder that has a folder for each experiment.
        out: the report's folder.
        params: the configuration.
    """
    names = list(load_params(params).experiments)
    runs = [read_run(outputs / name, profile) for name in names]
    pictures = [read_picture(outputs / name / "comparison.png") for name in names]
    rows = result_rows(runs)
    tables = [results_table(rows, profile), *class_tables(runs)]
    data = describe_data([load_experiment(params, name, profile) for name in names])
    folder = Path(relpath(outputs, out))

    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "curves.png", learning_curves(runs, profile))
    write_picture(out / "comparison.png", qualitative(runs, pictures, profile))
    texts = {
        "results.csv": to_csv(rows),
        "results.md": markdown(profile, data, tables),
        "results.tex": "% Needs booktabs and adjustbox.\n" + "\n".join(map(to_latex, tables)),
        "index.html": page(profile, data, tables, runs, folder),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    log.info("wrote %s", out / "index.html")
    for name in names:
        log_table(profile, name, outputs / name / "model.safetensors", out / "results.md")


def log_table(profile: str, experiment: str, model: Path, table: Path) -> None:
    """Adds the table to the run that trained a model; without the model here there is none."""
    if model.exists():
        tracker = open_run(profile, experiment, load_weights(model)[1])
        tracker.log_artifact(table, "report")
        tracker.close("FINISHED")


def read_run(folder: Path, profile: str) -> Run:
    """Returns what train and evaluate wrote; raises UserError for a file that is not theirs."""
    path = folder / "metrics.json"
    keys = ("experiment", "profile", "dataset", "synthetic", "split", "protocols")
    metrics = read_json(path, keys)
    for key, expected in (("experiment", folder.name), ("profile", profile)):
        if metrics[key] != expected:
            raise UserError(f"{path}: {key} is {metrics[key]}, not {expected}; {remedy(path)}")
    cost = read_json(folder / "training.json", ("steps", "best_step", "seconds", "hardware"))
    history = read_history(folder / "history.csv")
    if cost["best_step"] not in dict(history["validation_psnr"]):
        path = folder / "history.csv"
        raise UserError(f"{path}: no validation at best_step {cost['best_step']}; {remedy(path)}")
    return Run(metrics, cost, history)


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Returns a stage's file, which must have these keys."""
    try:
        values: dict[str, Any] = json.loads(existing(path).read_text())
        return values | {key: values[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


def read_history(path: Path) -> dict[str, Curve]:
    """Returns each PSNR column's steps and values, where it has a value."""
    rows = list(csv.DictReader(existing(path).read_text().splitlines()))
    try:
        return {key: [(float(r["step"]), float(r[key])) for r in rows if r[key]] for key in PANELS}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not as written ({error!r}); {remedy(path)}") from error


def read_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a PNG's pixels."""
    from PIL import Image

    try:
        return np.asarray(Image.open(existing(path)).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not readable ({error}); {remedy(path)}") from error


def existing(path: Path) -> Path:
    """Returns the path; raises UserError that names the stage that makes it."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {remedy(path)}")
    return path


def remedy(path: Path) -> str:
    """Returns what to run for an input of this stage."""
    stage = STAGES.get(path.name, "train")
    return f"run `python -m workflow.{stage}` for {path.parent.name} first"


def describe_data(experiments: Sequence[Experiment]) -> list[str]:
    """Returns a sentence for each dataset, so that nobody takes synthetic scenes for others."""
    sentences = {}
    for experiment in experiments:
        dataset = experiment.dataset
        if experiment.synthetic and dataset.synthetic:
            counts = dataclasses.asdict(dataset.synthetic).items()
            source = (
                "synthetic scenes in the published layout ("
                + ", ".join(f"{count} {split}" for split, count in counts)
                + ")"
            )
        else:
            source = f"the data of {dataset.source}"
        sentences[experiment.dataset_name] = (
            f"{experiment.dataset_name}: {source}, {dataset.image_size} × {dataset.image_size}"
            f" pixels, {dataset.views} views, {dataset.input_views} of them"
            " given to the model."
        )
    return list(sentences.values())


def reproduce(profile: str) -> list[str]:
    """Returns the commands that make everything on the page."""
    return [
        f"snakemake --cores all --config profile={profile} -- results",
        f"dvc repro    # where params.yaml says profile: {profile}",
    ]


def markdown(profile: str, data: list[str], tables: Sequence[Table]) -> str:
    """Returns results.md."""
    figures = [f"![{caption}]({name})\n" for name, caption in CAPTIONS.items()]
    return "\n".join(
        [
            f"# Scene Representation Transformers, profile {profile}\n",
            *(f"{sentence}\n" for sentence in data),
            *map(to_markdown, tables),
            *figures,
            "## To reproduce\n",
            *(f"    {command}" for command in reproduce(profile)),
            "",
        ]
    )


def page(
    profile: str, data: list[str], tables: Sequence[Table], runs: Sequence[Run], outputs: Path
) -> str:
    """Returns index.html; figures and videos are linked relative to it."""
    title = html.escape(f"Scene Representation Transformers, profile {profile}")
    figures = [
        f'<figure><img src="{name}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, caption in CAPTIONS.items()
    ]
    body = [
        f"<h1>{title}</h1>",
        *(f"<p>{html.escape(sentence)}</p>" for sentence in data),
        to_html(tables[0]),
        '<p>As files: <a href="results.csv">csv, raw figures</a>, '
        '<a href="results.md">Markdown</a>, <a href="results.tex">LaTeX</a>.</p>',
        *figures,
        "<h2>Videos</h2>",
        *(video(run, outputs) for run in runs),
        *map(to_html, tables[1:]),
        "<h2>To reproduce</h2>",
        f"<pre>{html.escape(chr(10).join(reproduce(profile)))}</pre>",
    ]
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title>",
        f"<style>\n{STYLE}\n</style>",
    ]
    return "\n".join(["<!DOCTYPE html>", '<html lang="en">', *head, *body, "</html>", ""])


def video(run: Run, outputs: Path) -> str:
    """Returns a run's video with its caption."""
    source = quote((outputs / run.name / "video.mp4").as_posix())
    return (
        f'<figure><video controls loop muted preload="metadata" src="{source}"></video>'
        f'<figcaption>{html.escape(run.label)} (<a href="{source}">{source}</a>)</figcaption>'
        "</figure>"
    )


if __name__ == "__main__":
    run(tabulate)
