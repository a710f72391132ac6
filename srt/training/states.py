"""Weights and resume states: safetensors files, written atomically, the configuration inside.

A state folder belongs to one configuration of one experiment, and to one training at a time. It
holds the last two states, so that a damaged one falls back to the one before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from srt.common.errors import UserError
from srt.common.files import naming, write_atomically
from srt.common.fingerprint import differences, fingerprint
from srt.config.schema import Experiment

KEPT_STATES = 2

log = logging.getLogger(__name__)


class StateError(UserError):
    """A resume state cannot be used; the text names the file and the difference."""


@dataclass
class State:
    """All that a training needs to go on exactly: tensors, and numbers as `progress`."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


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


def state_folder(root: Path, experiment: Experiment, config: dict[str, Any]) -> Path:
    """Returns `ckpt/<profile>/<experiment>/<fingerprint of the configuration>`."""
    return root / experiment.profile / experiment.name / fingerprint(config)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; raises StateError at once if another training has it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StateError(
                f"{path}: held by {file.read().decode().strip() or 'another process'}: this"
                " experiment is being trained already; wait for it or stop it"
            ) from None
        file.truncate(0)
        with naming(path):  # the first that is written here: where there is no room, it shows now
            file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield


def is_held(folder: Path) -> bool:
    """Returns whether a training holds the folder's lock.

    To see it, the lock is shared for some microseconds; a training that begins just then is refused
    as if there were another.
    """
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def save_state(folder: Path, state: State, config: dict[str, Any]) -> None:
    """Writes the state of a step and deletes all but the last two."""
    header = {"config": config, "progress": state.progress}
    path = folder / f"state-{state.progress['step']:09d}.safetensors"
    _write(path, state.tensors, header)
    for old in _states(folder)[:-KEPT_STATES]:
        old.unlink()


def load_latest_state(folder: Path, config: dict[str, Any]) -> State | None:
    """Returns the newest readable state of the folder, or None. A damaged one is passed over."""
    for path in reversed(_states(folder)):
        try:
            return load_state(path, config)
        except safetensors.SafetensorError as error:
            log.warning("%s: damaged (%s); falling back to the state before", path, error)
    return None


def latest_progress(folder: Path) -> dict[str, Any]:
    """Returns the numbers of the folder's newest readable state, or none."""
    for path in reversed(_states(folder)):
        # Not found: the training has deleted it, and has a newer one by now.
        with contextlib.suppress(safetensors.SafetensorError, FileNotFoundError):
            return read_header(path)["progress"]
    return {}


def load_state(path: Path, config: dict[str, Any]) -> State:
    """Returns the state in `path`; raises StateError, with the differences, if it is of another
    configuration (fewer training steps apart: the first steps of a longer training are the same).
    """
    tensors, header = _read(path)
    state = State(tensors, header["progress"])
    found = differences(config, header["config"])
    if state.progress["step"] <= config["train"]["steps"]:
        found = [line for line in found if not line.startswith("train.steps:")]
    if found:
        raise StateError(f"{path}: a state of another configuration: {'; '.join(found)}")
    return state


def load_shorter_training(folder: Path, config: dict[str, Any]) -> State | None:
    """Returns the newest state of a training that differs in nothing but `train.steps`, or None."""
    candidates = [path for sibling in folder.parent.glob("*") for path in _states(sibling)]
    for path in sorted(candidates, key=lambda path: path.name, reverse=True):
        # Not found: the sibling is being trained, and has a newer state by now.
        with contextlib.suppress(StateError, safetensors.SafetensorError, FileNotFoundError):
            state = load_state(path, config)
            log.info("continuing from %s, a shorter training of this configuration", path)
            return state
    return None


def save_weights(path: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Writes the weights with the training's configuration in the header."""
    _write(path, weights, {"config": config})


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns weights and the configuration they were trained with."""
    try:
        weights, header = _read(path)
        if "progress" in header:
            raise KeyError("a resume state")
        return weights, header["config"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise StateError(
            f"{path}: not readable as weights of this project ({error}); delete it, then run again:"
            " a finished training only writes it anew"
        ) from error


def read_header(path: Path) -> dict[str, Any]:
    """Returns what a file of weights or a state says of itself, without its tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["srt"])


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    # One entry: safetensors writes several in an order that differs from process to process.
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(contiguous, {"srt": json.dumps(header, sort_keys=True)})
    write_atomically(path, content)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["srt"])


def _states(folder: Path) -> list[Path]:
    names = re.compile(r"state-\d{9}\.safetensors")
    return sorted(path for path in folder.glob("state-*") if names.fullmatch(path.name))
