"""Weights and resume states: safetensors files, written atomically, the configuration inside.

A state folder belongs to one configuration of one experiment, and to one training at a time. It
holds the last two states, so that a damaged one falls back to the one before.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from srt.common.files import name_file_in_errors
from srt.common.fingerprint import differences, fingerprint
from srt.config.schema import Experiment
from srt.model.weights import StateError, read_tensors, read_weights_header, write_tensors

STATES_TO_KEEP = 2

log = logging.getLogger(__name__)


@dataclass
class SavedState:
    """All that a training needs to go on exactly: tensors, and numbers as `progress`."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def state_folder(root: Path, experiment: Experiment, config: dict[str, Any]) -> Path:
    """Returns `ckpt/<profile>/<experiment>/<fingerprint of the configuration>`."""
    return root / experiment.profile / experiment.name / fingerprint(config)


@contextlib.contextmanager
def lock_states(folder: Path) -> Iterator[None]:
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
        with name_file_in_errors(path):  # the first that is written here: where there is no room, it shows now
            file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield


def is_locked(folder: Path) -> bool:
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


def save_state(folder: Path, state: SavedState, config: dict[str, Any]) -> None:
    """Writes the state of a step and deletes all but the last two."""
    header = {"config": config, "progress": state.progress}
    path = folder / f"state-{state.progress['step']:09d}.safetensors"
    write_tensors(path, state.tensors, header)
    for old in _states(folder)[:-STATES_TO_KEEP]:
        old.unlink()


def load_latest_state(folder: Path, config: dict[str, Any]) -> SavedState | None:
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
            return read_weights_header(path)["progress"]
    return {}


def load_state(path: Path, config: dict[str, Any]) -> SavedState:
    """Returns the state in `path`; raises StateError, with the differences, if it is of another
    configuration (fewer training steps apart: the first steps of a longer training are the same).
    """
    tensors, header = read_tensors(path)
    state = SavedState(tensors, header["progress"])
    found = differences(config, header["config"])
    if state.progress["step"] <= config["train"]["steps"]:
        found = [line for line in found if not line.startswith("train.steps:")]
    if found:
        raise StateError(f"{path}: a state of another configuration: {'; '.join(found)}")
    return state


def load_shorter_training(folder: Path, config: dict[str, Any]) -> SavedState | None:
    """Returns the newest state of a training that differs in nothing but `train.steps`, or None."""
    candidates = [path for sibling in folder.parent.glob("*") for path in _states(sibling)]
    for path in sorted(candidates, key=lambda path: path.name, reverse=True):
        # Not found: the sibling is being trained, and has a newer state by now.
        with contextlib.suppress(StateError, safetensors.SafetensorError, FileNotFoundError):
            state = load_state(path, config)
            log.info("continuing from %s, a shorter training of this configuration", path)
            return state
    return None


def _states(folder: Path) -> list[Path]:
    names = re.compile(r"state-\d{9}\.safetensors")
    return sorted(path for path in folder.glob("state-*") if names.fullmatch(path.name))
