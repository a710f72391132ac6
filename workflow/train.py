"""Packed -> model: trains one experiment of params.yaml; run again after a kill, it resumes.

Starts torchrun over all visible GPUs, and all nodes of a Slurm job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from srt.common.distributed import Processes, StopRequest, join_processes, processor
from srt.common.files import sha256_of, write_atomically
from srt.common.fingerprint import fingerprint
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.model.srt import SRT, build_model
from srt.model.weights import save_weights, training_config
from srt.serving import example
from srt.tracking.outbox import LoggedModel
from srt.tracking.tracker import Tracker
from srt.training.loop import Requests, TrainingData, fit, learning_curve
from srt.training.state import TrainingState
from srt.training.states import lock_states, state_folder
from workflow.common.cli import run
from workflow.common.gpus import claim_gpus
from workflow.common.provenance import code_version
from workflow.common.torchrun import start_torchrun
from workflow.common.tracked_run import ROOT, log_dataset, open_run

log = logging.getLogger(__name__)


def train(
    *,
    profile: str,
    experiment: str,
    data: Path,
    out: Path,
    params: Path = Path("params.yaml"),
    states: Path = ROOT / "ckpt",
    seed: int | None = None,
    stop_after: int | None = None,
    validate_now: bool = False,
    picture_now: bool = False,
    print_model: bool = False,
) -> None:
    """Trains an experiment, or goes on where an earlier call of the same configuration stopped.

    Args:
        profile: of params.yaml.
        experiment: its name in params.yaml.
        data: the packed dataset's folder.
        out: the folder of model.safetensors (the best weights by validation, written last),
            history.csv and training.json.
        params: the configuration.
        states: where resume states are kept, by profile, experiment and configuration.
        seed: instead of that of params.yaml; see docs/seeds.md.
        stop_after: save and stop once so many steps are done, without writing the model.
        validate_now: measure the validation set before the first step.
        picture_now: log pictures before the first step.
        print_model: print the model and its parameters before the first step.
    """
    config = load_experiment(params, experiment, profile)
    config = config if seed is None else dataclasses.replace(config, seed=seed)
    claim_gpus()
    start_torchrun("workflow.train")
    processes, stop = join_processes(), StopRequest()
    packed = TrainingData(*(Scenes(data / split, processes.device) for split in ("train", "val")))
    settings = training_config(config, sha256_of(data / "manifest.json"))
    folder = state_folder(states, config, settings)
    if print_model:
        log_model(build_model(config.model, config.seed))
    requests = Requests(stop_after, validate_now, picture_now)
    lock = lock_states(folder) if processes.main else contextlib.nullcontext()
    with lock:
        tracker = start_tracker(config, settings, states, data, processes)
        try:
            training = fit(config, settings, packed, folder, tracker, processes, stop, requests)
        except BaseException:
            tracker.close("FAILED")
            raise
        if training.step < config.train.steps:
            tracker.close("KILLED")
            log.info("stopped after step %d; the same command goes on from there", training.step)
            sys.exit(128 + stop.number if stop else 0)
        if processes.main:
            write_outputs(training, settings, out, processes)
            log_outputs(tracker, config, packed, training, out)
        tracker.close("FINISHED")
    processes.leave()


def start_tracker(
    experiment: Experiment,
    settings: dict[str, Any],
    states: Path,
    data: Path,
    processes: Processes,
) -> Tracker:
    """Returns the tracker of this configuration's run; one that forgets in all but one process."""
    if not processes.main:
        return Tracker(None, ROOT)
    source = "synthetic scenes" if experiment.synthetic else f"data of {experiment.dataset.source}"
    tracker = open_run(
        "train",
        experiment.profile,
        experiment.name,
        settings,
        states,
        tags={
            "synthetic": "yes" if experiment.synthetic else "no",
            "hardware": hardware(processes),
        },
        description=source,
    )
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
    """Adds the curve and the model to the run; the model is a version in MLflow's registry."""
    tracker.log_artifact(out / "history.csv")
    weights = out / "model.safetensors"
    inputs, output = example(packed.validation, experiment.dataset.input_views)
    with weights.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    tracker.set_tags({"model_md5": md5})  # under which DVC's cache has the file
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


def write_outputs(
    training: TrainingState, settings: dict[str, Any], out: Path, processes: Processes
) -> None:
    """Writes the curve, what the training cost, and last the best weights."""
    write_atomically(out / "history.csv", learning_curve(training).encode())
    cost = {
        "experiment": training.experiment.name,
        "steps": training.step,
        "best_step": training.best_step,
        "validation_psnr": training.best_psnr,
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "seconds": round(training.seconds, 1),
        "joules": None if training.joules is None else round(training.joules),
        "peak_gigabytes": training.peak_gigabytes,
        "hardware": hardware(processes),
        "seed": training.experiment.seed,
        "but_for_seed": fingerprint(settings | {"seed": None}),
        "finished": datetime.now(UTC).date().isoformat(),
        "commit": code_version(),
    }
    write_atomically(out / "training.json", (json.dumps(cost, indent=1) + "\n").encode())
    save_weights(out / "model.safetensors", training.best, settings)


def hardware(processes: Processes) -> str:
    """Returns what the training runs on, e.g. `2 x NVIDIA H200` or `x86_64 CPU, 2 threads`."""
    if processes.device.type == "cuda":
        return f"{processes.world_size} x {torch.cuda.get_device_name(processes.device)}"
    return processor(processes.world_size * torch.get_num_threads())


def log_model(model: SRT) -> None:
    """Logs the modules, and the name, shape and size of every parameter."""
    log.info("%s", model)
    for name, parameter in model.named_parameters():
        log.info("%-60s %-24s %10d", name, tuple(parameter.shape), parameter.numel())
    log.info("%d parameters", sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    run(train)
