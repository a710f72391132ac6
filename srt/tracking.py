"""Sends MLflow what the runs' outboxes hold (`srt.outbox`). Only this module imports mlflow.

A delivery may be cut anywhere by a kill or an outage: the next one goes on from the positions in
`delivered.json`. What is sent twice counts once: a run is found again by its tag, and MLflow leaves
out a metric whose key, step, time and value it already has (the lines carry their times).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srt import outbox
from srt.machine import Machine

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS_PER_BATCH = 1000  # MLflow's limits
PARAMETERS_PER_BATCH = 100
ENVIRONMENT = {  # unless the user has set them; by default a call waits minutes for a server
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

log = logging.getLogger(__name__)


def open_tracker(
    folder: Path,
    *,
    root: Path,
    experiment: str,
    run_name: str,
    description: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> Tracker:
    """Returns the tracker of a run. A folder that has a run keeps its description: stages share it.

    Args:
        root: where mlflow.db and mlruns are, unless MLFLOW_TRACKING_URI names another store.
        experiment: MLflow's heading for the runs that are compared with each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "run.json").exists():
        own_tags = {"mlflow.note.content": description} | outbox.origin_tags(root)
        outbox.describe_run(folder, experiment, run_name, own_tags | dict(tags), parameters)
    return Tracker(folder, root)


class Tracker(outbox.Outbox):
    """A run's outbox and its deliveries; `Tracker()` has no folder and forgets everything."""

    def __init__(self, folder: Path | None = None, root: Path = Path()) -> None:
        super().__init__(folder)
        self.root = root
        self._delivery = threading.Thread()
        self._closed = threading.Event()
        self._warned = False

    def watch_machine(self, interval: float | int) -> None:
        """Logs the machine's load every `interval` seconds, at the step that was logged last."""
        if self.folder is not None:
            threading.Thread(target=self._watch_machine, args=(interval,), daemon=True).start()

    def deliver_in_background(self) -> None:
        """Starts a delivery, unless one is under way."""
        if self.folder is not None and not self._delivery.is_alive():
            folder = (self.folder,)
            self._delivery = threading.Thread(target=self._deliver, args=folder, daemon=True)
            self._delivery.start()

    def close(self, status: str, timeout: float | int = 60) -> None:
        """Logs how the stage ended, FINISHED, FAILED or KILLED, and waits for a last delivery.

        FINISHED releases everything. What has not arrived after `timeout` seconds stays in the
        folder, for the next stage or run that opens it.
        """
        if self.folder is None:
            return
        self._closed.set()
        self._append({"status": status})
        if status == "FINISHED":
            self.release()
        end = time.monotonic() + timeout
        if self._delivery.is_alive():  # it may have begun before the last lines
            self._delivery.join(timeout)
        self._warned = False  # an outage that lasts is said once more, at the end
        self.deliver_in_background()
        self._delivery.join(max(0.0, end - time.monotonic()))
        if self._delivery.is_alive():
            self._warn(f"not done after {timeout:g} s")
        self._close_file()

    def _deliver(self, folder: Path) -> None:
        try:
            deliver(folder, self.root)
            self._warned = False
        except Exception as error:  # whatever it is, it must not end the training
            self._warn(f"{type(error).__name__}: {error}"[:400])

    def _warn(self, reason: str) -> None:
        if not self._warned:
            log.warning("MLflow: %s; what was logged is kept in %s", reason, self.folder)
        self._warned = True

    def _watch_machine(self, interval: float | int) -> None:
        try:
            machine = Machine()
            while not self._closed.wait(interval):
                self._append({"step": self._step, "metrics": machine.sample()})
        except Exception as error:  # an odd machine must not end the training
            log.warning("no system metrics: %s", error)


def deliver(folder: Path, root: Path) -> None:
    """Sends what is released and not delivered; after an error of MLflow's, the rest waits."""
    with outbox.locked(folder / "lock"):
        client, artifacts = _connect(root)
        delivery = _Delivery.resume(client, folder, artifacts)
        end = outbox.released_end(folder, min(delivery.metrics, delivery.items, delivery.status))
        delivery.send_metrics(end)
        delivery.send_status(end)
        delivery.send_items(end)


@dataclass
class _Delivery:
    """A run of MLflow, and the position in events.jsonl up to which it has each kind of line.

    Each kind has its own: an artifact store that refuses files does not keep the metrics back.
    """

    client: MlflowClient
    folder: Path
    run_id: str
    metrics: int = 0
    items: int = 0
    status: int = 0

    @classmethod
    def resume(cls, client: MlflowClient, folder: Path, artifacts: str | None) -> _Delivery:
        """Returns the delivery that was recorded, or a new one if MLflow does not have its run."""
        path = folder / "delivered.json"
        if path.exists():
            delivery = cls(client, folder, **json.loads(path.read_text()))
            if _is_active(client, delivery.run_id):
                return delivery
        run = json.loads((folder / "run.json").read_text())
        delivery = cls(client, folder, _create_run(client, run, artifacts))
        delivery.record()
        return delivery

    def record(self) -> None:
        positions = {"metrics": self.metrics, "items": self.items, "status": self.status}
        outbox.write_json(self.folder / "delivered.json", {"run_id": self.run_id} | positions)

    def send_metrics(self, end: int) -> None:
        lines = _metrics(self.folder, self.metrics, end)
        while batch := list(islice(lines, METRICS_PER_BATCH)):
            values = [metric for _, metric in batch]
            self.client.log_batch(self.run_id, metrics=values, synchronous=True)
            self.metrics = batch[-1][0]
            self.record()
        self.metrics = end
        self.record()

    def send_items(self, end: int) -> None:
        for _, stop, event in outbox.read_events(self.folder, self.items, end):
            if _send_item(self.client, self.run_id, self.folder, event):
                self.items = stop
                self.record()
        self.items = end
        self.record()

    def send_status(self, end: int) -> None:
        """Sends the last status, released or not: a run that failed is to be seen at once."""
        lines = outbox.read_events(self.folder, self.status)
        events = [event for *_, event in lines if "status" in event]
        if events and events[-1]["status"] == "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        elif events:
            self.client.set_terminated(self.run_id, events[-1]["status"], events[-1]["time"])
        self.status = end
        self.record()


def _metrics(folder: Path, start: int, end: int) -> Iterator[tuple[int, Metric]]:
    """Yields each value with the position of its line, from which a cut delivery goes on."""
    from mlflow.entities import Metric

    for position, _, event in outbox.read_events(folder, start, end):
        for key, value in event.get("metrics", {}).items():
            yield position, Metric(key, value, event["time"], event["step"])


def _send_item(client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]) -> bool:
    """Sends a line that is no metric; returns False if there is nothing to send."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag
    from PIL import Image

    if "tags" in event:
        tags = [RunTag(key, value) for key, value in event["tags"].items()]
        client.log_batch(run_id, tags=tags, synchronous=True)
    elif "dataset" in event:
        source = json.dumps({"uri": event["source"]})
        dataset = Dataset(event["dataset"], event["digest"], source_type="local", source=source)
        context = InputTag("mlflow.data.context", event["context"])
        client.log_inputs(run_id, [DatasetInput(dataset, [context])])
    elif "artifact" in event:
        client.log_artifact(run_id, str(folder / event["file"]), event["artifact"] or None)
    elif "image" in event:
        place = {"key": event["image"], "step": event["step"], "timestamp": event["time"]}
        with Image.open(folder / event["file"]) as image:
            client.log_image(run_id, image, synchronous=True, **place)
    else:
        return False
    return True


def _is_active(client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _create_run(client: MlflowClient, run: dict[str, Any], artifacts: str | None) -> str:
    """Returns the id of a new run, or of the one that a delivery created just before it was cut."""
    from mlflow.entities import Param

    experiment = _experiment_id(client, run["experiment"], artifacts)
    own = f"tags.{outbox.OUTBOX_TAG} = '{run['tags'][outbox.OUTBOX_TAG]}'"
    found = client.search_runs([experiment], own)
    described = (experiment, run["start_time"], run["tags"], run["name"])
    run_id: str = (found[0] if found else client.create_run(*described)).info.run_id
    parameters = iter([Param(key, value) for key, value in run["parameters"].items()])
    while batch := list(islice(parameters, PARAMETERS_PER_BATCH)):
        client.log_batch(run_id, params=batch, synchronous=True)
    return run_id


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, artifacts)
    except MlflowException:
        if found := client.get_experiment_by_name(name):  # another process made it meanwhile
            return found.experiment_id
        raise


def _connect(root: Path) -> tuple[MlflowClient, str | None]:
    """Returns the store's client, and where its artifacts go unless a server decides that."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # else a line for each try
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"
    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri), None
    database = Path(uri.removeprefix("sqlite:///")).absolute()
    with outbox.locked(database.with_name(f"{database.name}.lock")):
        if not database.exists():
            _create_database(database)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)  # the first to look makes the default experiment
    return client, (database.parent / "mlruns").as_uri()


def _create_database(database: Path) -> None:
    """Makes MLflow's tables, which takes 8 s in another process; the name appears at the end."""
    partial = database.with_name(f"{database.name}.part")
    partial.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{partial}"]
    subprocess.run(command, check=True, capture_output=True)
    partial.replace(database)
