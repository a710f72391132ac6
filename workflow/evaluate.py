"""Model and packed test set -> metrics.json, scenes.csv and comparison.png, by published protocols.

Under torchrun the items are shared out; the figures are the same for any number of processes.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from srt.config import Experiment
from srt.data.sampling import presentation
from srt.data.scenes import Scenes, read_header
from srt.distributed import Processes, join_processes
from srt.errors import UserError
from srt.evaluation import (
    comparison,
    evaluate_items,
    metrics_text,
    protocol_items,
    summarise,
)
from srt.files import write_atomically
from srt.metrics import Lpips
from srt.models import SRT
from srt.params import load_experiment
from srt.pictures import write_picture
from workflow.command import run
from workflow.runs import open_run
from workflow.trained import load_model


def evaluate(
    *,
    profile: str,
    experiment: str,
    data: Path,
    model: Path,
    lpips: Path,
    out: Path,
    split: str = "test",
    max_items: int | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Measures an experiment's model.

    Args:
        profile: of params.yaml.
        experiment: its name in params.yaml.
        data: the packed dataset's folder.
        model: the weights that train wrote.
        lpips: manifest.json of the LPIPS backbone that fetch wrote.
        out: the folder of metrics.json, scenes.csv and comparison.png.
        split: which scenes.
        max_items: measure so many items of each protocol, spread evenly; else as params.yaml says.
        params: the configuration.
    """
    config = load_experiment(params, experiment, profile)
    processes = join_processes()
    network, settings = load_model(model, processes.device)
    scenes = Scenes(data / split, processes.device)
    limit = max_items if max_items is not None else config.evaluate.max_items
    if limit is not None and limit < 1:
        raise UserError(f"--max-items {limit}: nothing would be measured; give 1 or more")
    distance = load_lpips(lpips, processes)
    metrics: dict[str, Any] = describe(config, split)
    rows: list[dict[str, Any]] = []
    for protocol in config.evaluate.protocols:
        items = protocol_items(scenes, protocol, config.dataset.input_views, limit)
        measured = evaluate_items(
            network,
            scenes,
            items,
            protocol,
            mean_colour=read_header(data / "train")["statistics"]["mean_colour"],
            lpips=distance,
            shown=presentation(config),
            rays_per_group=config.train.rays_per_group,
            processes=processes,
        )
        every = len(protocol_items(scenes, protocol, config.dataset.input_views, None))
        metrics["protocols"][protocol] = summarise(measured, every)
        rows += [{"protocol": protocol, **row} for row in measured]
    if processes.main:
        write(config, metrics, rows, network, scenes, out)
        log_run(profile, experiment, settings, metrics, out)
    processes.leave()


def describe(config: Experiment, split: str) -> dict[str, Any]:
    """Returns the head of metrics.json."""
    return {
        "experiment": config.name,
        "profile": config.profile,
        "dataset": config.dataset_name,
        "synthetic": config.synthetic,
        "split": split,
        "protocols": {},
    }


def load_lpips(manifest: Path, processes: Processes) -> Lpips | None:
    """Returns the distance, or None where the profile uses no backbone: then it is not measured."""
    if not manifest.is_file():
        raise UserError(f"{manifest}: there is no such file; run `python -m workflow.fetch` first")
    file = json.loads(manifest.read_text())["file"]
    return None if file is None else Lpips(manifest.parent / file, "vgg").to(processes.device)


def write(
    config: Experiment,
    metrics: dict[str, Any],
    rows: list[dict[str, Any]],
    network: SRT,
    scenes: Scenes,
    out: Path,
) -> None:
    """Writes the picture, the rows, and last the summary."""
    items = protocol_items(
        scenes,
        config.evaluate.protocols[-1],
        config.dataset.input_views,
        config.evaluate.comparison_scenes,
    )
    image = comparison(
        network,
        scenes,
        items,
        shown=presentation(config),
        rays_per_group=config.train.rays_per_group,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "comparison.png", image)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    write_atomically(out / "scenes.csv", text.getvalue().encode())
    write_atomically(out / "metrics.json", metrics_text(metrics).encode())


def log_run(
    profile: str, experiment: str, settings: dict[str, Any], metrics: dict[str, Any], out: Path
) -> None:
    """Adds the figures and files to the experiment's run."""
    tracker = open_run(profile, experiment, settings)
    values = {
        f"test/{protocol}/{name}": figures[name]
        for protocol, figures in metrics["protocols"].items()
        for name in ("psnr", "ssim", "lpips")
        if figures[name] is not None
    }
    for protocol, figures in metrics["protocols"].items():
        for name, baseline in figures["baselines"].items():
            values[f"test/{protocol}/{name}_psnr"] = baseline["psnr"]
    tracker.log_metrics(values, settings["train"]["steps"])
    for name in ("metrics.json", "scenes.csv", "comparison.png"):
        tracker.log_artifact(out / name, "evaluation")
    tracker.close("FINISHED")


if __name__ == "__main__":
    run(evaluate)
