"""Resume states on disk: everything that a training needs to go on exactly where it stopped.

The states of a training are in a folder of their own, ckpt/<profile>/<experiment>/<fingerprint>:

    state-000001000.safetensors     tensors, and in the header the configuration and the progress
    state-000002000.safetensors     only the last two states are kept
    lock                            held by the training that writes here

The fingerprint is of the configuration, so a changed configuration has another folder. A training
keeps the folder in which it began, even if a newer version of the code records its configuration
with other keys and therefore computes another fingerprint (`folder_of_config`). Two states
are kept so that, if the newest is damaged, the one before it can be used.
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
from srt.common.fingerprint import fingerprint
from srt.config.schema import Experiment
from srt.model.weights import (
    StateError,
    config_differences,
    read_tensors,
    read_weights_header,
    write_tensors,
)

STATES_TO_KEEP = 2

log = logging.getLogger(__name__)


@dataclass
class SavedState:
    """All that a training needs to go on exactly: its tensors, and its numbers as `progress`."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def state_folder(root: Path, experiment: Experiment, config: dict[str, Any]) -> Path:
    """Return the folder of a training's states, `<root>/<profile>/<experiment>/<fingerprint>`."""
    return folder_of_config(root / experiment.profile / experiment.name, config)


def folder_of_config(parent: Path, config: dict[str, Any]) -> Path:
    """Return the folder of the states of a configuration.

    It bears the configuration's fingerprint. Up to version 0.2.0, a configuration had the keys of
    all models, so it had another fingerprint. The states of such a training say that they are of
    this configuration, and the training goes on in their folder.

    Args:
        parent: the folder of an experiment; all its configurations have folders in it.
    """
    folder = parent / fingerprint(config)
    if folder.exists():
        return folder
    for path in (state for other in sorted(parent.glob("*/")) for state in _list_states(other)):
        # Damaged states are skipped, and those that a running training has just deleted.
        with contextlib.suppress(safetensors.SafetensorError, FileNotFoundError):
            if not config_differences(config, read_weights_header(path)["config"]):
                return path.parent
    return folder


@contextlib.contextmanager
def lock_states(folder: Path) -> Iterator[None]:
    """Make a state folder and hold its lock. The lock ends with the process, even if it is killed.

    Raises:
        StateError: another training holds the lock. This function does not wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with path.open("a+b", buffering=0) as file:
        # If another training holds the lock, the file says which process that is.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode().strip() or "another process"
            raise StateError(
                f"{path}: held by {holder}: this experiment is being trained already; wait for it"
                " or stop it"
            ) from None

        # This is the first write of a training. If the disk is full, the error comes here.
        file.truncate(0)
        with name_file_in_errors(path):
            file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a training holds the folder's lock.

    To find out, this function shares the lock for some microseconds. A training that starts in this
    moment is refused.
    """
    # A folder without a lock file has never been trained in.
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def save_state(folder: Path, state: SavedState, config: dict[str, Any]) -> None:
    """Write the state of a step, then delete all states but the last two."""
    header = {"config": config, "progress": state.progress}
    path = folder / f"state-{state.progress['step']:09d}.safetensors"
    write_tensors(path, state.tensors, header)

    # The new state is complete on the disk, so old ones can go.
    for old in _list_states(folder)[:-STATES_TO_KEEP]:
        old.unlink()


def load_latest_state(folder: Path, config: dict[str, Any]) -> SavedState | None:
    """Return the newest readable state of a folder, or None if there is none.

    Raises:
        StateError: the state is of another configuration.
    """
    # A damaged state costs some steps, but does not stop the training.
    for path in reversed(_list_states(folder)):
        try:
            return load_state(path, config)
        except safetensors.SafetensorError as error:
            log.warning("%s: damaged (%s); falling back to the state before", path, error)
    return None


def latest_progress(folder: Path) -> dict[str, Any]:
    """Return the `progress` of the newest readable state of a folder, or {} if there is none."""
    for path in reversed(_list_states(folder)):
        # A file that is not found has been deleted by the training, which has newer states by now.
        with contextlib.suppress(safetensors.SafetensorError, FileNotFoundError):
            return read_weights_header(path)["progress"]
    return {}


def load_state(path: Path, config: dict[str, Any]) -> SavedState:
    """Return the state in a file.

    Raises:
        StateError: the state is of another configuration; the error lists the differences.
    """
    tensors, header = read_tensors(path)
    state = SavedState(tensors, header["progress"])

    # Trainings that differ only in their number of steps have the same first steps. So a state may
    # have another `train.steps`, as long as it is not beyond the end of this training.
    changes = config_differences(config, header["config"])
    if state.progress["step"] <= config["train"]["steps"]:
        changes = [change for change in changes if not change.startswith("train.steps:")]
    if changes:
        raise StateError(
            f"{path}: a state of another configuration: {'; '.join(changes)}. Change the"
            " configuration back, or delete this file"
        )
    return state


def load_shorter_training(folder: Path, config: dict[str, Any]) -> SavedState | None:
    """Return the newest state of a training that differs only in `train.steps`, or None.

    Args:
        folder: of this training; the folders of its other configurations are beside it.
    """
    # A longer training need not repeat what a shorter one has done. Try the newest states first.
    candidates = [path for sibling in folder.parent.glob("*") for path in _list_states(sibling)]
    for path in sorted(candidates, key=lambda path: path.name, reverse=True):
        # A file that is not found has been deleted by a training that is running there.
        with contextlib.suppress(StateError, safetensors.SafetensorError, FileNotFoundError):
            state = load_state(path, config)
            log.info("continuing from %s, a shorter training of this configuration", path)
            return state
    return None


def _list_states(folder: Path) -> list[Path]:
    """Return the complete states of a folder, the oldest first."""
    # Files that are being written have other names, and are no states yet.
    pattern = re.compile(r"state-\d{9}\.safetensors")
    return sorted(path for path in folder.glob("state-*") if pattern.fullmatch(path.name))
