"""Convert a run folder of the published code (stelzner/srt) to our files, and back.

A published run folder has config.yaml, and model.pt with the weights and the optimiser's state. We
turn them into our weights and our resume state.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
import yaml

from srt.common.errors import UserError
from srt.common.files import sha256_of, write_atomically
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.config.strict import load_yaml
from srt.model.weights import (
    config_differences,
    load_weights,
    save_weights,
    training_config,
)
from srt.published.checkpoint import (
    checkpoint_from_training,
    checkpoint_origin,
    read_checkpoint,
    training_from_checkpoint,
    write_checkpoint,
)
from srt.published.config import check_config, published_config
from srt.results.record_files import write_record
from srt.results.record_tables import write_history
from srt.results.records import PublishedOrigin, Training
from srt.training.monitoring import learning_curve
from srt.training.state import TrainingState
from srt.training.states import (
    SavedState,
    load_latest_state,
    lock_states,
    save_state,
    state_folder,
)
from workflow.common.cli import run
from workflow.common.default_paths import DefaultPaths
from workflow.common.stage_files import read_result
from workflow.common.tracked_run import ROOT

UNKNOWN = "unknown"  # for the digest of the packed data, where there is none

log = logging.getLogger(__name__)


def import_published(
    config: Path,
    checkpoint: Path,
    /,
    *,
    experiment: str,
    profile: str | None = None,
    out: Path | None = None,
    data: Path | None = None,
    export: bool = False,
    params: Path = Path("params.yaml"),
    states: Path = ROOT / "ckpt",
) -> None:
    """Turn a run of stelzner/srt into one of ours, for evaluate, render and train.

        python -m workflow.tools.import_published config.yaml model_best.pt --experiment nmr_srt

    Args:
        config: config.yaml of the published run folder.
        checkpoint: model.pt or model_best.pt of it.
        experiment: its name in params.yaml; its model and dataset must be those of the run.
        profile: of params.yaml; by default the one that the file names.
        out: the folder of model.safetensors (written last), history.csv and training.json, by
            default outputs/<profile>/<experiment>.
        data: the packed dataset's folder; with it the optimiser's state is imported too, and train
            goes on with these data.
        export: the other way round: write config and checkpoint from what is in out, and from the
            newest resume state where there is one.
        params: the configuration.
        states: where resume states are kept, by profile, experiment and configuration.
    """
    # The experiment of params.yaml says which model and dataset the published run must have.
    loaded = load_experiment(params, experiment, profile)
    out = out or DefaultPaths(loaded.profile).experiment(experiment)
    if export:
        write_published(config, checkpoint, loaded, out, states)
    else:
        read_published(config, checkpoint, loaded, out, data, states)


def read_published(
    config: Path,
    checkpoint: Path,
    experiment: Experiment,
    out: Path,
    data: Path | None,
    states: Path,
) -> None:
    """Write our files from a published run folder.

    Args:
        data: the packed dataset's folder; None: import the weights only.

    Raises:
        UserError: our files exist already, or the published run is not of this experiment.
    """
    # Nothing is written before all of it is known to fit.
    check_config(load_yaml(config), experiment, config)
    model = out / "model.safetensors"
    refuse_to_replace(model)
    content = read_checkpoint(checkpoint)
    training = training_from_checkpoint(content, experiment, data is not None, checkpoint)

    # training.json says where the weights come from.
    origin = PublishedOrigin(
        checkpoint=checkpoint.name,
        sha256=sha256_of(checkpoint),
        **checkpoint_origin(content, checkpoint),
    )
    record = published_record(training, origin)

    # A resume state is for the data that the training goes on with.
    settings = training_config(experiment, UNKNOWN if data is None else digest_of(data))
    if data is None:
        log.info("weights only: give --data, the packed dataset, to import the optimiser's state")
    else:
        write_state(training, settings, states)

    # These are the files that train writes, so all later stages can read them.
    write_history(out / "history.csv", learning_curve(training))
    write_record(out / "training.json", record)
    save_weights(model, training.best, settings)
    log.info("wrote %s, after %d steps", model, training.step)


def digest_of(data: Path) -> str:
    """Return the digest of a packed dataset; it is one of the settings of a training."""
    manifest = data / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"{manifest}: there is no such file; run `python -m workflow.pack` first")
    return sha256_of(manifest)


def write_state(training: TrainingState, settings: dict[str, Any], states: Path) -> None:
    """Write the resume state.

    Raises:
        UserError: there is one, because the experiment's training has begun.
    """
    # A state with the same settings may be weeks of training.
    folder = state_folder(states, training.experiment, settings)
    with lock_states(folder):
        if load_latest_state(folder, settings) is not None:
            raise UserError(
                f"{folder}: {training.experiment.name} has a resume state already; to replace it,"
                " delete this folder, or set --states to another one"
            )
        save_state(folder, training.state(), settings)


def published_record(training: TrainingState, origin: PublishedOrigin) -> Training:
    """Return training.json as train writes it, and in it where the weights come from."""
    # The published code starts with minus infinity, which JSON does not have.
    psnr = training.best_psnr
    return Training(
        experiment=training.experiment.name,
        steps=training.step,
        best_step=training.best_step,
        validation_psnr=psnr if math.isfinite(psnr) else None,
        parameters=sum(parameter.numel() for parameter in training.model.parameters()),
        seconds=training.seconds,
        hardware="not recorded (published run)",
        published=origin,
    )


def write_published(
    config: Path, checkpoint: Path, experiment: Experiment, out: Path, states: Path
) -> None:
    """Write config.yaml and a checkpoint as the published code writes them.

    If there is a resume state, the checkpoint has the last weights and the optimiser's state.
    Otherwise it has the best weights, those of model.safetensors.

    Raises:
        UserError: one of the files exists, or the model is of other settings.
    """
    # The published code must be able to build the model, and no file may be lost.
    text = yaml.safe_dump(published_config(experiment), sort_keys=False)
    for path in (config, checkpoint):
        refuse_to_replace(path)

    weights, settings = load_own_weights(out / "model.safetensors", experiment)
    record = read_result(out / "training.json", Training)
    state = load_latest_state(state_folder(states, experiment, settings), settings)
    training = restore_training(experiment, state, weights, record)

    # A run that was imported goes back under its own number.
    origin = record.published
    epoch, run_id = (origin.epoch_it, origin.run_id) if origin else (0, None)
    content = checkpoint_from_training(training, epoch, run_id)
    write_checkpoint(checkpoint, content)
    write_atomically(config, text.encode())
    source = "the best weights, no optimiser" if state is None else "the last weights and optimiser"
    log.info("wrote %s: %s, after %d steps", checkpoint, source, training.step)


def load_own_weights(
    model: Path, experiment: Experiment
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights of an experiment and the settings that they were trained with.

    Raises:
        UserError: the weights are of other settings than the experiment.
    """
    # Which data the model was trained on may differ from now, but no other setting.
    weights, settings = load_weights(model)
    if changes := config_differences(training_config(experiment, settings["data"]), settings):
        raise UserError(f"{model}: of another configuration: {'; '.join(changes)}")
    return weights, settings


def restore_training(
    experiment: Experiment,
    state: SavedState | None,
    weights: dict[str, torch.Tensor],
    record: Training,
) -> TrainingState:
    """Return our training as its newest state has it, or with the best weights without a state.

    Args:
        weights: the best ones, from model.safetensors.
        record: how these weights came to be.
    """
    training = TrainingState(experiment, torch.device("cpu"))
    if state is not None:
        training.restore(state)
        return training

    # A training without any validation has no PSNR.
    training.model.load_state_dict(weights)
    training.step = record.best_step
    training.seconds = record.seconds
    psnr = record.validation_psnr
    training.best_psnr = -math.inf if psnr is None else psnr
    return training


def refuse_to_replace(path: Path) -> None:
    """Raise UserError for a file that exists: weights may be the work of weeks."""
    if path.exists():
        raise UserError(f"{path}: this file exists; move it away or delete it first")


if __name__ == "__main__":
    run(import_published)
