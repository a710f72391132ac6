"""Model and packed test set -> metrics.json, scenes.csv, costs.json and two pictures.

The model is measured by the published protocols. Under torchrun the processes share the scenes, and
metrics.json is equal for any number of processes. costs.json has the times, which depend on the
machine, so that metrics.json does not.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srt.common.distributed import Processes
from srt.common.errors import UserError
from srt.common.files import write_atomically
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
from workflow.common.metrics_header import metrics_header
from workflow.common.torchrun import start_processes
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
    """Measure the model of an experiment.

    Pose noise is added to the inputs of a model that was trained with exact poses. The published
    models without poses (UpSRT) have another architecture, which is not part of this repository.

    Args:
        profile: of params.yaml.
        experiment: its name in params.yaml.
        data: the packed dataset's folder.
        model: the weights that train wrote.
        lpips: manifest.json that fetch wrote for the VGG weights of LPIPS.
        out: the folder of metrics.json, scenes.csv, costs.json, comparison.png (scenes spread
            evenly) and extremes.png (the best, the median and the worst).
        lpips_alex: manifest.json that fetch wrote for the AlexNet weights of LPIPS; without it,
            LPIPS with AlexNet is not measured.
        split: which scenes.
        max_items: measure so many items of each protocol, spread evenly; the default of this and
            the next two is what params.yaml says.
        input_views: give the model so many views of a scene.
        pose_noise: turn and move all input cameras but the first (radians, units of the world).
        params: the configuration.
    """
    # What the command line says replaces what params.yaml says.
    flags = {"max_items": max_items, "input_views": input_views, "pose_noise": pose_noise}
    config = with_flags(load_experiment(params, experiment, profile), flags)

    # One process for each GPU: from here on, this code runs in all of them.
    processes = start_processes("workflow.evaluate")

    # Load what is measured: the model and the scenes, and the networks that LPIPS compares with.
    network, settings = load_model(model, processes.device)
    scenes = Scenes(data / split, processes.device)
    manifests = {"lpips": lpips, "lpips_alex": lpips_alex}
    distances = load_distances(manifests, processes)

    # Note which files are measured before they can change. The mean colour is a baseline.
    files = {"model": model, "data": data / "manifest.json", **manifests}
    header = metrics_header(config, split, files)
    mean_colour = read_split_header(data / "train")["statistics"]["mean_colour"]
    summaries, rows = measure_protocols(config, network, scenes, mean_colour, distances, processes)

    # One process writes the files and adds them to the experiment's run in MLflow.
    if processes.main:
        metrics = header | {"protocols": summaries}
        write_results(config, metrics, rows, network, scenes, out)
        log_run(config, settings, metrics, data / split, out)
    processes.leave()


def with_flags(config: Experiment, flags: Mapping[str, Any]) -> Experiment:
    """Return the experiment with the flags in place of its evaluation's values.

    Args:
        flags: values by their key in params.yaml; None for a flag that was not used.
    """
    changes: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    return dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, **changes))


def measure_protocols(
    config: Experiment,
    network: SRT,
    scenes: Scenes,
    mean_colour: Sequence[float],
    distances: Mapping[str, Lpips],
    processes: Processes,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the summary of each protocol, and a row of figures for each of its items.

    Each process measures its share of the items, and all of them return all rows.
    """
    summaries: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for protocol in config.evaluate.protocols:
        protocol_rows = evaluate_items(
            network,
            scenes,
            select_items(config, scenes, protocol, config.evaluate.max_items),
            protocol,
            mean_colour=mean_colour,
            lpips=distances,
            view_config=make_view_config(config),
            rays_per_group=config.train.rays_per_group,
            processes=processes,
        )
        rows += [{"protocol": protocol, **row} for row in protocol_rows]

        # The summary says how many items were measured, and of how many.
        all_items = select_items(config, scenes, protocol, None)
        summaries[protocol] = summarise(protocol_rows, len(all_items))
    return summaries, rows


def select_items(
    config: Experiment, scenes: Scenes, protocol: Protocol, limit: int | None
) -> list[Item]:
    """Return a protocol's items under the experiment's conditions: all, or `limit` of them."""
    # Items are chosen by what the model was trained with, so that other conditions change only what
    # the model sees and not what is measured.
    conditions = Conditions(config.evaluate.input_views, config.evaluate.pose_noise)
    return protocol_items(scenes, protocol, config.dataset.input_views, limit, conditions)


def load_distances(manifests: Mapping[str, Path | None], processes: Processes) -> dict[str, Lpips]:
    """Return the LPIPS distances to measure, by name.

    Args:
        manifests: that fetch wrote for the networks. A profile may fetch no weights for a network;
            the manifest says so, and this distance is not measured.
    """
    # The names are those of the figures in metrics.json.
    networks: dict[str, LpipsNetwork] = {"lpips": "vgg", "lpips_alex": "alex"}
    distances = {}
    for name, manifest in manifests.items():
        weights = weights_file(manifest) if manifest else None
        if weights:
            distances[name] = Lpips(weights, networks[name]).to(processes.device)

            # Without a GPU, float64 takes six times as long.
            if processes.device.type == "cpu":
                distances[name].float()
    return distances


def weights_file(manifest: Path) -> Path | None:
    """Return the file of weights that a manifest describes; None if its profile uses none."""
    if not manifest.is_file():
        raise UserError(f"{manifest}: there is no such file; run `python -m workflow.fetch` first")
    file = json.loads(manifest.read_text())["file"]
    return None if file is None else manifest.parent / file


def write_results(
    config: Experiment,
    metrics: dict[str, Any],
    rows: list[dict[str, Any]],
    network: SRT,
    scenes: Scenes,
    out: Path,
) -> None:
    """Write the pictures, the times and the rows, and last metrics.json with the costs added."""
    items = write_pictures(config, rows, network, scenes, out)

    # Parameters and operations belong to the model, so they are metrics. Times are of this machine.
    frame = single_view_batch(scenes, items[0], make_view_config(config))
    metrics["costs"] = count_costs(network, frame)
    seconds = json.dumps(time_stages(network, frame, config.train.rays_per_group), indent=1)
    write_atomically(out / "costs.json", f"{seconds}\n".encode())

    # Whoever finds metrics.json finds all other files as well.
    write_atomically(out / "scenes.csv", rows_to_csv(rows).encode())
    write_atomically(out / "metrics.json", metrics_text(metrics).encode())


def write_pictures(
    config: Experiment, rows: list[dict[str, Any]], network: SRT, scenes: Scenes, out: Path
) -> list[Item]:
    """Write both pictures by the last protocol; return the items of comparison.png."""
    protocol = config.evaluate.protocols[-1]
    options: Any = {
        "view_config": make_view_config(config),
        "rays_per_group": config.train.rays_per_group,
    }

    # Scenes that are spread evenly over the test set.
    even_items = select_items(config, scenes, protocol, config.evaluate.comparison_scenes)
    comparison = compare_views(network, scenes, even_items, **options)

    # The best, the median and the worst of the measured scenes, by PSNR.
    items = select_items(config, scenes, protocol, config.evaluate.max_items)
    positions, labels = extremes([row for row in rows if row["protocol"] == protocol])
    extreme_items = [items[position] for position in positions]
    extreme = compare_views(network, scenes, extreme_items, labels=labels, **options)

    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "comparison.png", comparison)
    write_picture(out / "extremes.png", extreme)
    return even_items


def rows_to_csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows as CSV with the keys of the first as its header; floats have six decimals."""
    # Lines end as on Linux, so that the file is equal on every machine.
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def log_run(
    config: Experiment, settings: dict[str, Any], metrics: dict[str, Any], data: Path, out: Path
) -> None:
    """Add the figures and files to the experiment's run in MLflow."""
    tracker = open_run("evaluate", config.profile, config.name, settings)
    log_dataset(tracker, config.dataset_name, config.dataset.source, data, "evaluation")

    # All are of one step: MLflow then compares runs by bars instead of curves.
    tracker.log_metrics(mlflow_metrics(metrics), step=0)
    folder = f"evaluation{conditions_path(metrics['conditions'])}"
    for name in ("metrics.json", "scenes.csv", "comparison.png", "extremes.png", "costs.json"):
        tracker.log_artifact(out / name, folder)
    tracker.close("FINISHED")


def mlflow_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the figures of metrics.json by the names that MLflow shows.

    Names are like `test/stelzner/psnr` and `test/stelzner/mean_colour_psnr`. Measurements under
    other conditions than the training's have names of their own: with 3 views instead of 5 and
    pose noise 0.1, `test/stelzner/3_views/pose_noise_0.1/psnr`.
    """
    suffix = conditions_path(metrics["conditions"])
    values: dict[str, float] = {}
    for protocol, figures in metrics["protocols"].items():
        # A protocol does not measure everything; what it does not measure is None.
        prefix = f"{metrics['split']}/{protocol}{suffix}/"
        values |= {prefix + name: figures[name] for name in MEASURES if figures[name] is not None}
        for name, baseline in figures["baselines"].items():
            values[f"{prefix}{name}_psnr"] = baseline["psnr"]
    return values | {f"size/{name}": figure for name, figure in metrics["costs"].items()}


def conditions_path(conditions: Mapping[str, Any]) -> str:
    """Return what differs from the training as a path like `/3_views/pose_noise_0.1`, or empty."""
    path = ""
    if conditions["input_views"] != conditions["trained_input_views"]:
        path += f"/{conditions['input_views']}_views"
    if conditions["pose_noise"]:
        path += f"/pose_noise_{conditions['pose_noise']}"
    return path


if __name__ == "__main__":
    run(evaluate)
