"""Weights as safetensors files, written atomically, the configuration in the header."""

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
from srt.config.schema import Experiment, ModelConfig
from srt.config.strict import read
from srt.model.srt import SRT, build_model


class StateError(UserError):
    """A resume state cannot be used; the text names the file and the difference."""


def training_config(experiment: Experiment, data_digest: str) -> dict[str, Any]:
    """Returns all that a training depends on, as plain values."""
    return {
        "experiment": experiment.name,
        "seed": experiment.seed,
        "dataset_name": experiment.dataset_name,
        "dataset": dataclasses.asdict(experiment.dataset),
        "data": data_digest,
        "model": dataclasses.asdict(experiment.model),
        "train": dataclasses.asdict(experiment.train),
    }


def save_weights(path: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Writes the weights with the training's configuration in the header."""
    write_tensors(path, weights, {"config": config})


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns weights and the configuration they were trained with."""
    try:
        weights, header = read_tensors(path)
        if "progress" in header:
            raise KeyError("a resume state")
        return weights, header["config"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise StateError(
            f"{path}: not readable as weights of this project ({error}); delete it, then run again:"
            " a finished training only writes it anew"
        ) from error


def read_weights_header(path: Path) -> dict[str, Any]:
    """Returns what a file of weights or a state says of itself, without its tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["srt"])


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    # One entry: safetensors writes several in an order that differs from process to process.
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(contiguous, {"srt": json.dumps(header, sort_keys=True)})
    write_atomically(path, content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["srt"])


def load_model(path: Path, device: torch.device) -> tuple[SRT, dict[str, Any]]:
    """Returns a trained model, ready to be used, and the configuration it was trained with."""
    weights, settings = load_weights(path)
    model = build_model(read(ModelConfig, settings["model"], f"{path}: model"), seed=0)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), settings
