"""Model and packed test set -> metrics.json, scenes.csv, costs.json and two pictures.

The model is measured by the published protocols. Under torchrun the processes share the scenes, and
metrics.json is equal for any number of processes. costs.json has the times, which depend on the
machine, so that metrics.json does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from srt.common.distributed import Processes
from srt.config.load import load_experiment
from srt.config.schema import Experiment, Protocol
from srt.data.batch import make_view_config
from srt.data.packed.reader import Scenes, read_split_header
from srt.evaluation.comparison import compare_views
from srt.evaluation.evaluator import evaluate_items
from srt.evaluation.lpips import Lpips
from srt.evaluation.model_costs import count_costs, single_view_batch, time_stages
from srt.evaluation.protocols import Conditions, Item, protocol_items
from srt.evaluation.scores import extremes, summarise
from srt.model.srt import SRT
from srt.model.weights import load_model
from srt.results.record_files import write_record
from srt.results.record_tables import ItemScores, write_scenes
from srt.results.records import (
    Measure,
    MeasuringConditions,
    Metrics,
    MetricsHeader,
    ProtocolScores,
)
from srt.visualization.pictures import write_picture
from workflow.common.cli import run
from workflow.common.default_paths import DefaultPaths, choose_output
from workflow.common.lpips_weights import load_distances, lpips_manifests
from workflow.common.metrics_header import metrics_header
from workflow.common.torchrun import start_processes
from workflow.common.tracked_run import log_dataset, open_run


def evaluate(
    *,
    experiment: str,
    profile: str | None = None,
    data: Path | None = None,
    model: Path | None = None,
    lpips: Path | None = None,
    lpips_alex: Path | None = None,
    out: Path | None = None,
    split: str = "test",
    max_items: int | None = None,
    input_views: int | None = None,
    pose_noise: float | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Measure the model of an experiment.

        python -m workflow.evaluate --experiment nmr_srt

    Pose noise is added to the inputs of a model that was trained with exact poses. The published
    models without poses (UpSRT) have another architecture, which is not part of this repository.

    Args:
        experiment: its name in params.yaml.
        profile: of params.yaml; by default the one that the file names.
        data: the packed dataset's folder, by default data/<profile>/packed/<dataset>.
        model: the weights, by default outputs/<profile>/<experiment>/model.safetensors.
        lpips: manifest.json that fetch wrote for the VGG weights of LPIPS, by default that in
            data/<profile>/weights/lpips_vgg; without it, LPIPS is not measured.
        lpips_alex: the same for the AlexNet weights, by default in lpips_alex.
        out: the folder of metrics.json, scenes.csv, costs.json, comparison.png (scenes spread
            evenly) and extremes.png (best, median, worst), by default that of the model; needed
            where one of the next four replaces what params.yaml says.
        split: which scenes.
        max_items: measure so many items of each protocol, spread evenly.
        input_views: give the model so many views of a scene.
        pose_noise: turn and move all input cameras but the first (radians, units of the world).
        params: the configuration.
    """
    # What the command line says replaces what params.yaml says.
    flags = {"max_items": max_items, "input_views": input_views, "pose_noise": pose_noise}
    configured = load_experiment(params, experiment, profile)
    config = with_flags(configured, flags)

    # The paths that it does not name are those of the pipeline.
    paths = DefaultPaths(config.profile)
    data, model = data or paths.packed(config.dataset_name), model or paths.model(experiment)
    out = choose_output(out, model.parent, departs=config != configured or split != "test")
    manifests = lpips_manifests(paths.weights, lpips=lpips, lpips_alex=lpips_alex)

    # One process for each GPU: from here on, this code runs in all of them.
    processes = start_processes("workflow.evaluate")

    # Load what is measured: the model and the scenes, and the networks that LPIPS compares with.
    network, settings = load_model(model, processes.device)
    scenes = Scenes(data / split, processes.device)
    distances = load_distances(manifests, processes)

    # Note which files are measured before they can change. The mean colour is a baseline.
    files = {"model": model, "data": data / "manifest.json", **manifests}
    header = metrics_header(config, split, files)
    mean_colour = read_split_header(data / "train")["statistics"]["mean_colour"]
    summaries, rows = measure_protocols(config, network, scenes, mean_colour, distances, processes)

    # One process writes the files and adds them to the experiment's run in MLflow.
    if processes.main:
        metrics = write_results(config, header, summaries, rows, network, scenes, out)
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
) -> tuple[dict[str, ProtocolScores], list[ItemScores]]:
    """Return the summary of each protocol, and a row of figures for each of its items.

    Each process measures its share of the items, and all of them return all rows.
    """
    summaries: dict[str, ProtocolScores] = {}
    rows: list[ItemScores] = []
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
        rows += protocol_rows

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


def write_results(
    config: Experiment,
    header: MetricsHeader,
    scores: dict[str, ProtocolScores],
    rows: list[ItemScores],
    network: SRT,
    scenes: Scenes,
    out: Path,
) -> Metrics:
    """Write the pictures, the times and the rows, and last metrics.json, which is returned."""
    items = write_pictures(config, rows, network, scenes, out)

    # Parameters and operations belong to the model, so they are metrics. Times are of this machine.
    frame = single_view_batch(scenes, items[0], make_view_config(config))
    metrics = Metrics(**vars(header), costs=count_costs(network, frame), protocols=scores)
    write_record(out / "costs.json", time_stages(network, frame, config.train.rays_per_group))

    # Whoever finds metrics.json finds all other files as well.
    write_scenes(out / "scenes.csv", rows)
    write_record(out / "metrics.json", metrics)
    return metrics


def write_pictures(
    config: Experiment, rows: list[ItemScores], network: SRT, scenes: Scenes, out: Path
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
    positions, labels = extremes([row for row in rows if row.protocol == protocol])
    extreme_items = [items[position] for position in positions]
    extreme = compare_views(network, scenes, extreme_items, labels=labels, **options)

    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "comparison.png", comparison)
    write_picture(out / "extremes.png", extreme)
    return even_items


def log_run(
    config: Experiment, settings: dict[str, Any], metrics: Metrics, data: Path, out: Path
) -> None:
    """Add the figures and files to the experiment's run in MLflow."""
    tracker = open_run("evaluate", config.profile, config.name, settings)
    log_dataset(tracker, config.dataset_name, config.dataset.source, data, "evaluation")

    # All are of one step: MLflow then compares runs by bars instead of curves.
    tracker.log_metrics(mlflow_metrics(metrics), step=0)
    folder = f"evaluation{conditions_path(metrics.conditions)}"
    for name in ("metrics.json", "scenes.csv", "comparison.png", "extremes.png", "costs.json"):
        tracker.log_artifact(out / name, folder)
    tracker.close("FINISHED")


def mlflow_metrics(metrics: Metrics) -> dict[str, float]:
    """Return the figures of metrics.json by the names that MLflow shows.

    Names are like `test/stelzner/psnr` and `test/stelzner/mean_colour_psnr`. Measurements under
    other conditions than the training's have names of their own: with 3 views instead of 5 and
    pose noise 0.1, `test/stelzner/3_views/pose_noise_0.1/psnr`.
    """
    suffix = conditions_path(metrics.conditions)
    values: dict[str, float] = {}
    for protocol, scores in metrics.protocols.items():
        # A protocol does not measure everything; what it does not measure is None.
        prefix = f"{metrics.split}/{protocol}{suffix}/"
        for name in get_args(Measure):
            figure = scores.value(name)
            if figure is not None:
                values[prefix + name] = figure
        for name, baseline in vars(scores.baselines).items():
            values[f"{prefix}{name}_psnr"] = baseline.psnr
    return values | {f"size/{name}": figure for name, figure in vars(metrics.costs).items()}


def conditions_path(conditions: MeasuringConditions) -> str:
    """Return what differs from the training as a path like `/3_views/pose_noise_0.1`, or empty."""
    path = ""
    if conditions.input_views != conditions.trained_input_views:
        path += f"/{conditions.input_views}_views"
    if conditions.pose_noise:
        path += f"/pose_noise_{conditions.pose_noise}"
    return path


if __name__ == "__main__":
    run(evaluate)
