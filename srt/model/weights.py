"""Weights as safetensors files, written atomically, with the configuration in the header.

A safetensors file has named tensors and a header of texts. Our header has one text, `srt`: a JSON
object. For weights it is {"config": ...}, the configuration that they were trained with. The states
of a training (srt/training/states.py) are files of the same kind with more in the object.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from srt.common.errors import UserError
from srt.common.files import write_atomically
from srt.common.fingerprint import differences
from srt.config.model_layers import read_model
from srt.config.model_schema import MODELS, ModelConfig, drop_keys_of_others
from srt.config.schema import Experiment
from srt.config.strict import check_name
from srt.model.srt import SRT, build_model


class StateError(UserError):
    """A file of weights or a state cannot be used; the message says which file, and why."""


def training_config(experiment: Experiment, data_digest: str) -> dict[str, Any]:
    """Return everything that the result of a training depends on, as values for JSON.

    Args:
        data_digest: a checksum of the packed dataset.
    """
    return {
        "experiment": experiment.name,
        "seed": experiment.seed,
        "dataset_name": experiment.dataset_name,
        "dataset": dataclasses.asdict(experiment.dataset),
        "data": data_digest,
        "model": dataclasses.asdict(experiment.model),
        "train": dataclasses.asdict(experiment.train),
    }


def config_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return a line for each value in which the configurations of two trainings differ.

    What a model does not use does not count: up to version 0.2.0, a configuration had the keys of
    all models.
    """
    return differences(_drop_unused_keys(ours), _drop_unused_keys(theirs))


def _drop_unused_keys(config: dict[str, Any]) -> dict[str, Any]:
    name = config["model"].get("name")
    if name not in MODELS:
        return config
    return config | {"model": drop_keys_of_others(name, config["model"])}


def read_recorded_model(values: dict[str, Any], where: str) -> ModelConfig:
    """Return the settings of the model that a file records, without keys that it does not use.

    Args:
        where: the file and the section, for errors.

    Raises:
        ConfigError: this version does not have the model or one of its keys.
    """
    name = check_name(values["name"], MODELS, f"{where}.name")
    return read_model(name, drop_keys_of_others(name, values), where)


def save_weights(path: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write weights, with the configuration of their training in the header.

    Args:
        config: what `training_config` returns.
    """
    write_tensors(path, weights, {"config": config})


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights and the configuration that they were trained with.

    Raises:
        StateError: the file cannot be read, or is a state of a training.
    """
    if not path.exists():
        raise StateError(f"{path}: there is no such file; run `python -m workflow.train` first")
    try:
        weights, header = read_tensors(path)
        if "progress" in header:
            raise KeyError("a resume state")
        return weights, header["config"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise StateError(
            f"{path}: not readable as weights of this project ({error}); delete the file and run"
            " again: a finished training is not repeated, it only writes its weights anew"
        ) from error


def read_weights_header(path: Path) -> dict[str, Any]:
    """Return the header of a file of weights or of a state, without reading its tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["srt"])


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a header. The same content always gives the same bytes."""
    # The header has a single entry, because safetensors writes several ones in an order that
    # differs from process to process.
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(contiguous, {"srt": json.dumps(header, sort_keys=True)})
    write_atomically(path, content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header that `write_tensors` wrote."""
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["srt"])


def load_model(path: Path, device: torch.device) -> tuple[SRT, dict[str, Any]]:
    """Return a trained model, ready for inference, and the configuration it was trained with."""
    weights, settings = load_weights(path)
    model = build_model(read_recorded_model(settings["model"], f"{path}: model"), seed=0)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), settings
