"""Packed -> model: train one experiment of params.yaml.

Where there are several GPUs, the command becomes torchrun: one process for each visible GPU, on all
nodes of a Slurm job. After a kill, the same command goes on from the last saved step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from srt.common.distributed import Processes, StopRequest, describe_cpu
from srt.common.files import sha256_of
from srt.common.fingerprint import fingerprint
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.model.srt import SRT, build_model
from srt.model.weights import save_weights, training_config
from srt.results.record_files import write_record
from srt.results.record_tables import write_history
from srt.results.records import Training
from srt.serving import make_example
from srt.tracking.outbox import LoggedModel
from srt.tracking.tracker import Tracker
from srt.training.loop import Requests, fit
from srt.training.monitoring import TrainingData, learning_curve
from srt.training.state import TrainingState
from srt.training.states import lock_states, state_folder
from workflow.common.cli import run
from workflow.common.default_paths import DefaultPaths
from workflow.common.provenance import code_version
from workflow.common.torchrun import start_processes
from workflow.common.tracked_run import ROOT, log_dataset, open_run

log = logging.getLogger(__name__)


def train(
    *,
    experiment: str,
    profile: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    params: Path = Path("params.yaml"),
    states: Path = ROOT / "ckpt",
    seed: int | None = None,
    stop_after: int | None = None,
    validate_now: bool = False,
    picture_now: bool = False,
    print_model: bool = False,
) -> None:
    """Train an experiment, or go on where an earlier run of the same configuration stopped.

        python -m workflow.train --experiment nmr_srt

    Args:
        experiment: its name in params.yaml.
        profile: of params.yaml; by default the one that the file names.
        data: the packed dataset's folder, by default data/<profile>/packed/<dataset>.
        out: the folder of model.safetensors (the best weights by validation, written last),
            history.csv and training.json; by default outputs/<profile>/<experiment>, and in it
            seeds/<seed> for another seed than that of params.yaml.
        params: the configuration.
        states: where resume states are kept, by profile, experiment and configuration.
        seed: instead of that of params.yaml; see docs/seeds.md.
        stop_after: save and stop after so many steps, without writing the model.
        validate_now: measure the validation set before the first step.
        picture_now: log pictures before the first step.
        print_model: print the model and its parameters before the first step.
    """
    config = load_experiment(params, experiment, profile)
    paths = DefaultPaths(config.profile)
    data, out = data or paths.packed(config.dataset_name), out or default_folder(config, seed)
    if seed is not None:
        config = dataclasses.replace(config, seed=seed)

    # One process for each GPU: from here on, this code runs in all of them.
    processes = start_processes("workflow.train")
    stop = StopRequest()

    # The weights depend on the configuration and the data. Together they name the folder of resume
    # states, so that a training never goes on from a state that other settings made.
    packed = TrainingData(*(Scenes(data / split, processes.device) for split in ("train", "val")))
    settings = training_config(config, sha256_of(data / "manifest.json"))
    folder = state_folder(states, config, settings)
    if print_model:
        log_architecture(build_model(config.model, config.seed))

    # The first process locks that folder, logs to MLflow and writes all files.
    requests = Requests(stop_after, validate_now, picture_now)
    with lock_states(folder) if processes.main else contextlib.nullcontext():
        tracker = start_tracker(config, settings, states, data, processes)
        training = fit_or_exit(config, settings, packed, folder, tracker, processes, stop, requests)
        if processes.main:
            write_outputs(training, settings, out, processes)
            log_outputs(tracker, config, packed, training, out)
        tracker.close("FINISHED")
    processes.leave()


def default_folder(config: Experiment, seed: int | None) -> Path:
    """Return the folder of a training's outputs. Another seed has a folder of its own."""
    paths = DefaultPaths(config.profile)
    if seed in (None, config.seed):
        return paths.experiment(config.name)
    return paths.other_seed(config.name, seed)


def fit_or_exit(
    experiment: Experiment,
    settings: dict[str, Any],
    packed: TrainingData,
    folder: Path,
    tracker: Tracker,
    processes: Processes,
    stop: StopRequest,
    requests: Requests,
) -> TrainingState:
    """Return the training after its last step; exit the process if it was stopped before.

    In MLflow a training that raised an error is FAILED, and one that was stopped is KILLED. The
    exit status is that of a process that the signal ended, or 0 after `stop_after` steps.
    """
    try:
        training = fit(experiment, settings, packed, folder, tracker, processes, stop, requests)
    except BaseException:
        tracker.close("FAILED")
        raise

    # The state is saved, so nothing is lost.
    if training.step < experiment.train.steps:
        tracker.close("KILLED")
        log.info("stopped after step %d; the same command goes on from there", training.step)
        sys.exit(128 + stop.number if stop else 0)
    return training


def start_tracker(
    experiment: Experiment,
    settings: dict[str, Any],
    states: Path,
    data: Path,
    processes: Processes,
) -> Tracker:
    """Return the tracker of this configuration's run; only the first process' tracker logs."""
    if not processes.main:
        return Tracker(None, ROOT)

    # A stopped training that goes on opens its run again, which keeps its tags and description.
    synthetic = experiment.synthetic
    tags = {"synthetic": "yes" if synthetic else "no", "hardware": hardware(processes)}
    source = "synthetic scenes" if synthetic else f"data of {experiment.dataset.source}"
    profile, name = experiment.profile, experiment.name
    tracker = open_run("train", profile, name, settings, states, tags=tags, description=source)

    # MLflow shows which data the run read, and how busy the machine is.
    dataset = (experiment.dataset_name, experiment.dataset.source)
    log_dataset(tracker, *dataset, data / "train", "training")
    log_dataset(tracker, *dataset, data / "val", "validation")
    tracker.watch_machine(interval=10)
    return tracker


def log_outputs(
    tracker: Tracker,
    experiment: Experiment,
    packed: TrainingData,
    training: TrainingState,
    out: Path,
) -> None:
    """Add the curve and the model to the run; the model is a version in MLflow's registry."""
    tracker.log_artifact(out / "history.csv")
    weights = out / "model.safetensors"
    md5 = md5_of(weights)
    tracker.set_tags({"model_md5": md5})

    # With an example of its inputs and output, MLflow can serve the model (srt/serving.py).
    inputs, output = make_example(packed.validation, experiment.dataset.input_views)
    model = LoggedModel(
        name=f"{experiment.profile}-{experiment.name}",
        weights=weights,
        loader="srt.serving",
        inputs=inputs,
        output=output,
        metric="validation/best_psnr",
        value=training.best_psnr,
        tags={"dataset": experiment.dataset_name, "md5": md5},
    )
    tracker.log_model(model, training.best_step)


def md5_of(path: Path) -> str:
    """Return a file's MD5: DVC's cache stores the file under it, so it leads to the weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def write_outputs(
    training: TrainingState, settings: dict[str, Any], out: Path, processes: Processes
) -> None:
    """Write the learning curve, what the training cost, and last the best weights."""
    write_history(out / "history.csv", learning_curve(training))
    write_record(out / "training.json", training_record(training, settings, processes))

    # Whoever finds the weights finds the other two files as well.
    save_weights(out / "model.safetensors", training.best, settings)


def training_record(
    training: TrainingState, settings: dict[str, Any], processes: Processes
) -> Training:
    """Return how the training went, on what, and what it cost."""
    # A training without any validation has minus infinity as its best PSNR.
    psnr = training.best_psnr
    return Training(
        experiment=training.experiment.name,
        steps=training.step,
        best_step=training.best_step,
        validation_psnr=psnr if math.isfinite(psnr) else None,
        parameters=sum(parameter.numel() for parameter in training.model.parameters()),
        seconds=round(training.seconds, 1),
        joules=None if training.joules is None else round(training.joules),
        peak_gigabytes=training.peak_gigabytes,
        hardware=hardware(processes),
        seed=training.experiment.seed,
        but_for_seed=fingerprint(settings | {"seed": None}),
        finished=datetime.now(UTC).date().isoformat(),
        commit=code_version(),
    )


def hardware(processes: Processes) -> str:
    """Return what the training runs on, e.g. `2 x NVIDIA H200` or `x86_64 CPU, 2 threads`."""
    # The report counts GPU hours by the number before the name.
    if processes.device.type == "cuda":
        return f"{processes.world_size} x {torch.cuda.get_device_name(processes.device)}"
    return describe_cpu(processes.world_size * torch.get_num_threads())


def log_architecture(model: SRT) -> None:
    """Log the modules of a model, and the name, shape and size of every parameter."""
    # PyTorch's own description has no sizes, so a table of the parameters follows.
    log.info("%s", model)
    for name, parameter in model.named_parameters():
        log.info("%-60s %-24s %10d", name, tuple(parameter.shape), parameter.numel())
    log.info("%d parameters", sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    run(train)
