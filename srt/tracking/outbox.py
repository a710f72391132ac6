"""What a run logs, as files: nothing here waits for a server or needs mlflow. A folder holds

    run.json        the run's experiment, name, tags and parameters, written when it is first opened
    events.jsonl    one line for each thing logged, in order
    files/          copies of the artifacts, pictures and models that the lines name
    delivered.json  the MLflow run, and how many bytes of events.jsonl it has (`srt.tracking.delivery`)

Training may be killed and repeat steps, and MLflow cannot unsay a metric. So a delivery sends only
lines that are released, which training does once it has saved its state, and resuming drops lines
that are not released and lie beyond that state: no step is lost, and none is logged twice.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srt import PACKAGE
from srt.common.files import write_atomically
from srt.common.shapes import UInt8
from srt.visualization.pictures import write_picture

OUTBOX_TAG = "outbox"  # its value is this folder's own: MLflow finds the run by it
LONGEST_DIGEST = 36  # MLflow's limit
LONGEST_PARAMETER = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedModel:
    """A model for MLflow's registry: its weights, and what it gives for what."""

    name: str  # in the registry, where versions of one name are compared
    weights: Path
    loader: str  # the module of this package whose `_load_pyfunc` reads the weights
    inputs: Mapping[str, np.ndarray]  # an example
    output: np.ndarray  # of the example: its shape and type count
    metric: str  # the version with the highest value of it is the best
    value: float
    tags: Mapping[str, str]


class Outbox:
    """The writing end of an outbox; without a folder it forgets everything."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._step = 0
        self._released_steps: dict[str, int] = {}
        self._unwritten = b""  # more than nothing only while the disk is full
        self._lock = threading.Lock()
        self._file = -1
        if folder is not None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            self._file = os.open(folder / "events.jsonl", flags, 0o666)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # ends a line that a full disk or a power cut tore

    def log_metrics(self, values: Mapping[str, float | int], step: int) -> None:
        """Appends one step's values, but for those that were released before the run resumed."""
        self._step = step
        new = {key: float(x) for key, x in values.items() if not self._is_released(key, step)}
        if new:
            self._append({"step": step, "metrics": new})

    def log_image(self, key: str, image: UInt8[np.ndarray, "_ _ 3"], step: int) -> None:
        """Keeps a picture; MLflow shows the pictures of a key over the steps."""
        if self.folder is None or self._is_released(key, step):
            return
        path = self.folder / "files" / "images" / key / f"{step:09d}.png"
        try:
            write_picture(path, image)
        except OSError as error:
            log.warning("the picture %s of step %d is not logged: %s", key, step, error)
            return
        self._append({"step": step, "image": key, "file": str(path.relative_to(self.folder))})

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keeps a copy of a file: by the time it is sent, its stage may be replacing it."""
        if self.folder is not None and (copy := self._keep(path, folder)):
            self._append({"artifact": folder, "file": copy})

    def log_model(self, model: LoggedModel, step: int) -> None:
        """Keeps a copy of a model, for the registry, with the code that reads it."""
        if self.folder is None:
            return
        weights = self._keep(model.weights, "model")
        code = self.folder / "files" / "model" / "code" / PACKAGE.name
        example = self.folder / "files" / "model" / "example.npz"
        try:
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PACKAGE, code, ignore=unwanted, dirs_exist_ok=True)
            content = io.BytesIO()
            arrays: dict[str, Any] = {"output": model.output, **model.inputs}
            np.savez_compressed(content, **arrays)
            write_atomically(example, content.getvalue())
        except OSError as error:
            log.warning("%s is not logged: %s", model.weights, error)
            return
        if weights:
            told = {"model": model.name, "loader": model.loader, "file": weights}
            best = {"metric": model.metric, "value": model.value, "step": step}
            self._append(told | best | {"version_tags": dict(model.tags)})

    def _keep(self, path: Path, folder: str) -> str:
        """Returns the name of a file's copy, in this folder; nothing where there is no room."""
        assert self.folder is not None
        copy = self.folder / "files" / folder / path.name
        partial = copy.with_name(f".{copy.name}.part")
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial)
            partial.replace(copy)
        except OSError as error:
            partial.unlink(missing_ok=True)
            log.warning("%s is not logged: %s", path, error)
            return ""
        return str(copy.relative_to(self.folder))

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: Mapping[str, str],
        context: str,
        counts: Mapping[str, int],
    ) -> None:
        """Appends a data set that the run reads.

        Args:
            source: `uri`, where it is, and what else is known of where it comes from.
            context: what for, such as `training`.
            counts: how much it has of what.
        """
        told = {"dataset": name, "digest": digest[:LONGEST_DIGEST], "context": context}
        self._append(told | {"source": dict(source), "counts": dict(counts)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Appends tags; a later value of a tag replaces the earlier one."""
        self._append({"tags": dict(tags)})

    def release(self) -> None:
        """Lets deliveries send what has been logged so far: it will not be taken back."""
        self._append({"released": True})
        if self._file >= 0:
            try:
                os.fsync(self._file)
            except OSError as error:
                log.warning("%s/events.jsonl: %s", self.folder, error)

    def rewind(self, step: int) -> None:
        """Drops what was logged after `step`, whose state training goes on from.

        Released lines may have been sent: they stay, and are not logged again as training comes by.
        """
        if self.folder is None:
            return
        released = released_end(self.folder)
        for start, _, event in read_events(self.folder):
            if start >= released and event.get("step", 0) > step:
                os.ftruncate(self._file, start)
                break
            for key in event.get("metrics", [event["image"]] if "image" in event else []):
                self._released_steps[key] = event["step"]
        self._step = step
        self._append({"status": "RUNNING"})

    def _is_released(self, key: str, step: int) -> bool:
        return step <= self._released_steps.get(key, -1)

    def _close_file(self) -> None:
        with self._lock:
            if self._unwritten:
                lines = self._unwritten.count(b"\n")
                log.warning("%s/events.jsonl: the disk is full: %d lines lost", self.folder, lines)
            os.close(self._file)
            self._file = -1

    def _append(self, event: dict[str, Any]) -> None:
        line = json.dumps({"time": _milliseconds()} | event).encode() + b"\n"
        with self._lock:
            if self._file < 0:
                return
            waiting, line = self._unwritten, self._unwritten + line
            reason: object = "the disk is full"
            try:
                self._unwritten = line[os.write(self._file, line) :]
            except OSError as error:  # it must not end the training
                self._unwritten, reason = line, error
            if self._unwritten and not waiting:
                log.warning("%s/events.jsonl: %s; lines wait in memory", self.folder, reason)


def describe_run(
    folder: Path,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, Any],
    parent: str,
) -> None:
    """Writes run.json, what a delivery creates the run from."""
    run = {
        "experiment": experiment,
        "name": name,
        "parent": parent,
        "start_time": _milliseconds(),
        "tags": {OUTBOX_TAG: uuid.uuid4().hex} | dict(tags),
        "parameters": flatten(parameters),
    }
    write_atomically(folder / "run.json", json.dumps(run, indent=1).encode())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns the leaves of nested parameters as text, under dotted names.

    Numbers in lists are leaves too, `image_size.0`: MLflow's axes show numbers, not lists.
    """
    leaves: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value):
            value = {str(index): x for index, x in enumerate(value)} or "[]"
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = str(value)[:LONGEST_PARAMETER]
    return leaves


def read_events(
    folder: Path, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields where each line between two positions begins and ends, and what it says."""
    with (folder / "events.jsonl").open("rb") as file:
        file.seek(start)
        for line in file:
            stop = start + len(line)
            if not line.endswith(b"\n") or (end is not None and stop > end):
                return  # the last line may be half written
            try:
                yield start, stop, json.loads(line)
            except json.JSONDecodeError:
                log.debug("%s/events.jsonl: torn line at byte %d", folder, start)
            start = stop


def released_end(folder: Path, start: int = 0) -> int:
    """Returns the position after the last line that may be sent."""
    ends = (stop for _, stop, event in read_events(folder, start) if "released" in event)
    return max(ends, default=start)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
