"""Model and packed test set -> metrics.json, scenes.csv, costs.json and two pictures.

Measured by published protocols. Under torchrun the items are shared out; the figures are the same
for any number of processes. What depends on the machine, time, is in costs.json alone.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srt.common.distributed import Processes, join_processes
from srt.common.errors import UserError
from srt.common.files import sha256_of, write_atomically
from srt.common.fingerprint import fingerprint
from srt.config.load import load_experiment
from srt.config.schema import Experiment, Protocol
from srt.data.batch import make_view_config
from srt.data.packed.reader import Scenes, read_split_header
from srt.evaluation.comparison import compare_views
from srt.evaluation.evaluator import evaluate_items
from srt.evaluation.lpips import Lpips, LpipsNetwork
from srt.evaluation.model_costs import count_costs, single_view_batch, time_stages
from srt.evaluation.protocols import Conditions, Item, protocol_items
from srt.evaluation.scores import MEASURES, extremes, metrics_text, summarise
from srt.model.srt import SRT
from srt.model.weights import load_model
from srt.visualization.pictures import write_picture
from workflow.common.cli import run
from workflow.common.gpus import claim_gpus
from workflow.common.torchrun import start_torchrun
from workflow.common.tracked_run import log_dataset, open_run


def evaluate(
    *,
    profile: str,
    experiment: str,
    data: Path,
    model: Path,
    lpips: Path,
    out: Path,
    lpips_alex: Path | None = None,
    split: str = "test",
    max_items: int | None = None,
    input_views: int | None = None,
    pose_noise: float | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Measures an experiment's model.

    The published models without poses (UpSRT) are of another architecture, which is not part of
    this repository; pose noise is measured of models that were trained with exact poses.

    Args:
        profile: of params.yaml.
        experiment: its name in params.yaml.
        data: the packed dataset's folder.
        model: the weights that train wrote.
        lpips: manifest.json of the backbone of LPIPS, VGG, that fetch wrote.
        out: the folder of metrics.json, scenes.csv, costs.json, comparison.png (scenes spread
            evenly) and extremes.png (the best, the median and the worst).
        lpips_alex: the same of AlexNet; without it this LPIPS is not measured.
        split: which scenes.
        max_items: measure so many items of each protocol, spread evenly; this and the next two:
            else as params.yaml says.
        input_views: give the model so many views of a scene.
        pose_noise: turn and move the input cameras but the first (radians, units of the world).
        params: the configuration.
    """
    config = load_experiment(params, experiment, profile)
    asked = {"max_items": max_items, "input_views": input_views, "pose_noise": pose_noise}
    changes: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, **changes))
    claim_gpus()
    start_torchrun("workflow.evaluate")
    processes = join_processes()
    network, settings = load_model(model, processes.device)
    scenes = Scenes(data / split, processes.device)
    manifests = {"lpips": lpips, "lpips_alex": lpips_alex}
    distances = load_distances(manifests, processes)
    files = {"model": model, "data": data / "manifest.json", **manifests}
    metrics = describe(config, split, files)
    rows: list[dict[str, Any]] = []
    for protocol in config.evaluate.protocols:
        measured = evaluate_items(
            network,
            scenes,
            items_of(config, scenes, protocol, config.evaluate.max_items),
            protocol,
            mean_colour=read_split_header(data / "train")["statistics"]["mean_colour"],
            lpips=distances,
            view_config=make_view_config(config),
            rays_per_group=config.train.rays_per_group,
            processes=processes,
        )
        every = len(items_of(config, scenes, protocol, None))
        metrics["protocols"][protocol] = summarise(measured, every)
        rows += [{"protocol": protocol, **row} for row in measured]
    if processes.main:
        write(config, metrics, rows, network, scenes, out)
        log_run(config, settings, metrics, data / split, out)
    processes.leave()


def items_of(
    config: Experiment, scenes: Scenes, protocol: Protocol, limit: int | None
) -> list[Item]:
    """Returns a protocol's items under the conditions that are asked for, or `limit` of them."""
    conditions = Conditions(config.evaluate.input_views, config.evaluate.pose_noise)
    return protocol_items(scenes, protocol, config.dataset.input_views, limit, conditions)


def describe(config: Experiment, split: str, files: Mapping[str, Path | None]) -> dict[str, Any]:
    """Returns the head of metrics.json; its fingerprint changes with whatever is measured.

    Args:
        files: what is measured and with what.
    """
    trained = config.dataset.input_views
    conditions = {
        "input_views": config.evaluate.input_views or trained,
        "trained_input_views": trained,
        "pose_noise": config.evaluate.pose_noise,
    }
    digests = {name: path and sha256_of(path) for name, path in files.items()}
    asked = dataclasses.asdict(config.evaluate)
    del asked["comparison_scenes"]  # pictured, not measured
    return {
        "experiment": config.name,
        "profile": config.profile,
        "dataset": config.dataset_name,
        "synthetic": config.synthetic,
        "split": split,
        "conditions": conditions,
        "fingerprint": fingerprint({**digests, **asked, **conditions, "split": split}),
        "costs": {},
        "protocols": {},
    }


def load_distances(manifests: Mapping[str, Path | None], processes: Processes) -> dict[str, Lpips]:
    """Returns the distances whose backbone the profile uses: the others are not measured."""
    networks: dict[str, LpipsNetwork] = {"lpips": "vgg", "lpips_alex": "alex"}
    distances = {}
    for name, manifest in manifests.items():
        if manifest is None:
            continue
        if not manifest.is_file():
            raise UserError(
                f"{manifest}: there is no such file; run `python -m workflow.fetch` first"
            )
        file = json.loads(manifest.read_text())["file"]
        if file is not None:
            distances[name] = Lpips(manifest.parent / file, networks[name]).to(processes.device)
    return distances


def write(
    config: Experiment,
    metrics: dict[str, Any],
    rows: list[dict[str, Any]],
    network: SRT,
    scenes: Scenes,
    out: Path,
) -> None:
    """Writes the pictures, the costs, the rows, and last the summary."""
    asked, view_config = config.evaluate, make_view_config(config)
    protocol, rays_per_group = asked.protocols[-1], config.train.rays_per_group
    items = items_of(config, scenes, protocol, asked.comparison_scenes)
    measured = items_of(config, scenes, protocol, asked.max_items)
    places, labels = extremes([row for row in rows if row["protocol"] == protocol])
    settings: Any = {"view_config": view_config, "rays_per_group": rays_per_group}
    even = compare_views(network, scenes, items, **settings)
    extreme = compare_views(
        network, scenes, [measured[i] for i in places], labels=labels, **settings
    )
    frame = single_view_batch(scenes, items[0], view_config)
    metrics["costs"] = count_costs(network, frame)
    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "comparison.png", even)
    write_picture(out / "extremes.png", extreme)
    seconds = json.dumps(time_stages(network, frame, rays_per_group), indent=1)
    write_atomically(out / "costs.json", f"{seconds}\n".encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    write_atomically(out / "scenes.csv", text.getvalue().encode())
    write_atomically(out / "metrics.json", metrics_text(metrics).encode())


def log_run(
    config: Experiment, settings: dict[str, Any], metrics: dict[str, Any], data: Path, out: Path
) -> None:
    """Adds the figures and files to the experiment's run, those of other conditions by themselves.

    Under the names `test/stelzner/psnr` and `test/stelzner/mean_colour_psnr`; with 3 of 5 views
    and pose noise 0.1: `test/stelzner/3_views/pose_noise_0.1/psnr`.
    """
    tracker = open_run("evaluate", config.profile, config.name, settings)
    log_dataset(tracker, config.dataset_name, config.dataset.source, data, "evaluation")
    conditions = metrics["conditions"]
    departures = []
    if conditions["input_views"] != conditions["trained_input_views"]:
        departures.append(f"/{conditions['input_views']}_views")
    if conditions["pose_noise"]:
        departures.append(f"/pose_noise_{conditions['pose_noise']}")
    values: dict[str, float] = {}
    for protocol, figures in metrics["protocols"].items():
        prefix = "".join((metrics["split"], "/", protocol, *departures, "/"))
        values |= {prefix + name: figures[name] for name in MEASURES if figures[name] is not None}
        for name, baseline in figures["baselines"].items():
            values[f"{prefix}{name}_psnr"] = baseline["psnr"]
    values |= {f"size/{name}": figure for name, figure in metrics["costs"].items()}
    tracker.log_metrics(values, step=0)  # which MLflow compares as bars, not as curves
    folder = "evaluation" + "".join(departures)
    for name in ("metrics.json", "scenes.csv", "comparison.png", "extremes.png", "costs.json"):
        tracker.log_artifact(out / name, folder)
    tracker.close("FINISHED")


if __name__ == "__main__":
    run(evaluate)
