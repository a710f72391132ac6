"""What a run logs, first written to files: nothing here waits for a server or imports mlflow.

An outbox is a folder:

    run.json        the run's experiment, name, tags and parameters; written when it is first opened
    events.jsonl    a line for each call of a log function, in order
    files/          copies of the artifacts, pictures and models that the lines name
    delivered.json  the MLflow run and how much of events.jsonl it has (`srt.tracking.delivery`)

A killed training repeats the steps after its last saved state, but MLflow cannot delete a metric.
So training releases its lines once its state is saved, and only released lines are sent. When it
resumes, it drops the unreleased lines of later steps. No step is lost or logged twice.
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

# MLflow finds a run by this tag. Its value is unique to the outbox.
OUTBOX_TAG = "outbox"

# The longest texts that MLflow accepts, in characters.
LONGEST_DIGEST = 36
LONGEST_PARAMETER = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedModel:
    """A model for MLflow's registry, with an example of what it predicts."""

    name: str  # in the registry, which compares the versions of one name
    weights: Path
    loader: str  # the module of this package whose `_load_pyfunc` reads the weights
    inputs: Mapping[str, np.ndarray]  # of the example
    output: np.ndarray  # of the example; only its shape and type are used
    metric: str  # the version with the highest value of this metric is the best one
    value: float
    tags: Mapping[str, str]


class Outbox:
    """Writes an outbox. Without a folder, it discards everything that is logged.

    A full disk must not end a training: what cannot be written waits in memory, or is skipped.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._step = 0
        self._released_steps: dict[str, int] = {}  # the last released step of each key
        self._unwritten = b""  # empty unless the disk is full
        self._lock = threading.Lock()
        self._file = -1
        if folder is None:
            return

        # A full disk or a power cut may have torn the last line. End it, so that it costs no other.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._file = os.open(folder / "events.jsonl", flags, 0o666)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def log_metrics(self, values: Mapping[str, float | int], step: int) -> None:
        """Append the values of a step, except those that had been released before a resumption."""
        self._step = step
        new = {key: float(x) for key, x in values.items() if not self._is_released(key, step)}
        if new:
            self._append({"step": step, "metrics": new})

    def log_image(self, key: str, image: UInt8[np.ndarray, "_ _ 3"], step: int) -> None:
        """Write a picture and append its line. MLflow shows the pictures of a key over steps."""
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
        """Copy a file and append its line. Its stage may replace the original before it is sent."""
        if self.folder is not None and (copy := self._copy(path, folder)):
            self._append({"artifact": folder, "file": copy})

    def log_model(self, model: LoggedModel, step: int) -> None:
        """Copy a model for the registry, with the code that reads it, and append its line."""
        if self.folder is None:
            return
        weights = self._copy(model.weights, "model")
        try:
            _write_code_and_example(self.folder / "files" / "model", model)
        except OSError as error:
            log.warning("%s is not logged: %s", model.weights, error)
            return

        # The line comes last, so that everything it names exists.
        if weights:
            files = {"model": model.name, "loader": model.loader, "file": weights}
            metric = {"metric": model.metric, "value": model.value, "step": step}
            self._append(files | metric | {"version_tags": dict(model.tags)})

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: Mapping[str, str],
        context: str,
        counts: Mapping[str, int],
    ) -> None:
        """Append a data set that the run reads.

        Args:
            source: `uri` (where the data are), and further keys that say where they come from.
            context: what the run uses the data for, such as `training`.
            counts: numbers of scenes, views and the like.
        """
        event = {"dataset": name, "digest": digest[:LONGEST_DIGEST], "context": context}
        self._append(event | {"source": dict(source), "counts": dict(counts)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Append tags. A later value of a tag replaces the earlier one."""
        self._append({"tags": dict(tags)})

    def release(self) -> None:
        """Allow deliveries to send everything that has been logged so far."""
        self._append({"released": True})
        if self._file >= 0:
            try:
                os.fsync(self._file)
            except OSError as error:
                log.warning("%s/events.jsonl: %s", self.folder, error)

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`, because training resumes from the state of this step.

        Released lines may have been sent. They stay, and their steps are not logged again.
        """
        if self.folder is None:
            return

        # Cut the file at the first line that belongs to a later step and is not released.
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

    def _copy(self, path: Path, folder: str) -> str:
        """Copy a file to files/`folder` and return the copy's name, or "" if there is no space."""
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

    def _close_file(self) -> None:
        with self._lock:
            if self._unwritten:
                count = self._unwritten.count(b"\n")
                log.warning("%s/events.jsonl: the disk is full: %d lines lost", self.folder, count)
            os.close(self._file)
            self._file = -1

    def _append(self, event: dict[str, Any]) -> None:
        """Append a line, after the lines that wait in memory. Never raise an error of the disk."""
        entry = json.dumps({"time": _milliseconds()} | event).encode() + b"\n"
        with self._lock:
            if self._file < 0:
                return

            # Write as much as the disk takes. Whatever remains is written with the next line.
            waiting = self._unwritten
            content = waiting + entry
            reason: object = "the disk is full"
            try:
                self._unwritten = content[os.write(self._file, content) :]
            except OSError as error:
                self._unwritten = content
                reason = error
            # Warn once, when the first line has to wait.
            if self._unwritten and not waiting:
                log.warning("%s/events.jsonl: %s; lines wait in memory", self.folder, reason)


def _write_code_and_example(folder: Path, model: LoggedModel) -> None:
    """Write the package's code, and the model's example inputs and output, into a folder."""
    cached = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "code" / PACKAGE.name, ignore=cached, dirs_exist_ok=True)
    content = io.BytesIO()
    arrays: dict[str, Any] = {"output": model.output, **model.inputs}
    np.savez_compressed(content, **arrays)
    write_atomically(folder / "example.npz", content.getvalue())


def describe_run(
    folder: Path,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, Any],
    parent: str,
) -> None:
    """Write run.json, from which a delivery creates the MLflow run."""
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
    """Return nested parameters as texts under dotted names.

    A list of numbers becomes several parameters, such as `image_size.0`. MLflow plots only numbers.
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
    """Yield the lines between two positions: where each begins, where it ends, and its content."""
    with (folder / "events.jsonl").open("rb") as file:
        file.seek(start)
        for entry in file:
            # The last line may be incomplete, because another process is writing it.
            stop = start + len(entry)
            if not entry.endswith(b"\n") or (end is not None and stop > end):
                return
            try:
                yield start, stop, json.loads(entry)
            except json.JSONDecodeError:
                log.debug("%s/events.jsonl: torn line at byte %d", folder, start)
            start = stop


def released_end(folder: Path, start: int = 0) -> int:
    """Return the position after the last released line; `start` if there is none after it."""
    ends = (stop for _, stop, event in read_events(folder, start) if "released" in event)
    return max(ends, default=start)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
