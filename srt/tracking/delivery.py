"""Sends MLflow what a run has logged to its outbox (`srt.tracking.outbox`).

A kill or an outage may interrupt a delivery anywhere. The next one goes on from the positions in
`delivered.json`, and sends some lines a second time. That does no harm:

- a run is found again by its tag;
- MLflow ignores a metric whose key, step, time and value it has, and each line has its time;
- a file replaces itself;
- a picture or a model is sent only if MLflow does not have it.

Only this module, `srt.tracking.mlflow_events` and `srt.tracking.registry` import mlflow. They do so
inside functions, because the import takes seconds and a machine may lack the package.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srt.common.files import wait_for_lock, write_atomically
from srt.tracking import outbox, registry
from srt.tracking.mlflow_events import has_picture, read_metrics, send_event

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The most that MLflow takes in one call.
METRICS_PER_BATCH = 1000
PARAMETERS_PER_BATCH = 100

# Without this tag, MLflow's page asks every user what sort of experiment it shall show.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# The colours of the runs' curves. MLflow's own choice gives the same colour to neighbours.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#80BA5A"),
    *("#A5AA99", "#882255", "#44AA99", "#666666"),
)

# A parent run is found by this tag, and it has these tags in common with its children.
PARENT_TAG = "parent_of"
PARENT_SHARES = ("profile", "dataset", "model", "synthetic")

# Set unless the user has set them. By default, MLflow's client waits minutes for a server.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def deliver(folder: Path, root: Path) -> None:
    """Send all lines that are released and not yet delivered.

    An error of MLflow's ends the delivery; what it has not sent waits for the next one.

    Args:
        folder: the run's outbox.
        root: where mlflow.db and mlruns are, unless MLFLOW_TRACKING_URI names another store.
    """
    with wait_for_lock(folder / "lock"):
        client, artifacts = _connect(root)
        delivery = _Delivery.resume(client, folder, artifacts, root)
        end = outbox.released_end(folder, delivery.start)
        delivery.send_metrics(end)
        delivery.send_status(end)
        delivery.send_items(end)
        delivery.send_models(end)


@dataclass
class _Delivery:
    """A run of MLflow, and how far its lines have been sent.

    The positions are bytes of events.jsonl. Each sort of line has its own: an artifact store that
    refuses files must not hold back the metrics, nor a registry that refuses models the files.
    """

    client: MlflowClient
    folder: Path
    run_id: str
    metrics: int = 0
    items: int = 0  # tags, data sets, files and pictures
    status: int = 0
    models: int = 0

    @property
    def start(self) -> int:
        """The position up to which everything has been sent."""
        return min(self.metrics, self.items, self.status, self.models)

    @classmethod
    def resume(
        cls, client: MlflowClient, folder: Path, artifacts: str | None, root: Path
    ) -> _Delivery:
        """Return the recorded delivery, or a new one if MLflow does not have its run."""
        # The run may have been deleted, or may be in another store.
        path = folder / "delivered.json"
        if path.exists():
            delivery = cls(client, folder, **json.loads(path.read_text()))
            if _is_active(client, delivery.run_id):
                return delivery

        # A new run gets everything from the first line on.
        run = json.loads((folder / "run.json").read_text())
        delivery = cls(client, folder, _create_run(client, run, artifacts, root))
        delivery.record()
        return delivery

    def record(self) -> None:
        """Write the positions to delivered.json."""
        positions = {key: getattr(self, key) for key in ("metrics", "items", "status", "models")}
        content = json.dumps({"run_id": self.run_id} | positions)
        write_atomically(self.folder / "delivered.json", content.encode())

    def send_metrics(self, end: int) -> None:
        """Send all metrics before `end`, in batches."""
        metrics = read_metrics(self.folder, self.metrics, end)
        while batch := list(islice(metrics, METRICS_PER_BATCH)):
            values = [metric for _, metric in batch]
            self.client.log_batch(self.run_id, metrics=values, synchronous=True)

            # The last line may have more values, so the next delivery begins with it.
            self.metrics = batch[-1][0]
            self.record()
        self.metrics = end
        self.record()

    def send_items(self, end: int) -> None:
        """Send all tags, data sets, files and pictures before `end`, one by one."""
        # The last delivery may have sent one item that it could not record. A second picture would
        # be visible, so MLflow is asked whether it has the first.
        unsure = True
        for _, stop, event in outbox.read_events(self.folder, self.items, end):
            sent = (
                unsure
                and "image" in event
                and has_picture(self.client, self.run_id, self.folder, event)
            )
            if sent or send_event(self.client, self.run_id, self.folder, event):
                unsure = False
                self.items = stop
                self.record()
        self.items = end
        self.record()

    def send_models(self, end: int) -> None:
        """Send all models before `end` to the registry."""
        for _, stop, event in outbox.read_events(self.folder, self.models, end):
            if "model" in event:
                registry.send_model(self.client, self.run_id, self.folder, event)
                self.models = stop
                self.record()
        self.models = end
        self.record()

    def send_status(self, end: int) -> None:
        """Send the last status, even if it is not released: a failure must be visible at once."""
        lines = outbox.read_events(self.folder, self.status)
        events = [event for *_, event in lines if "status" in event]
        if events and events[-1]["status"] == "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        elif events:
            self.client.set_terminated(self.run_id, events[-1]["status"], events[-1]["time"])
        self.status = end
        self.record()


def _is_active(client: MlflowClient, run_id: str) -> bool:
    """Return whether the store has the run and nobody has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _create_run(
    client: MlflowClient, run: dict[str, Any], artifacts: str | None, root: Path
) -> str:
    """Return the id of a new run, or of one that an interrupted delivery has created."""
    from mlflow.entities import Param

    experiment = _experiment_id(client, run["experiment"], artifacts)
    condition = f"tags.{outbox.OUTBOX_TAG} = '{run['tags'][outbox.OUTBOX_TAG]}'"
    runs = client.search_runs([experiment], condition)
    run_id = str(runs[0].info.run_id) if runs else _begin_run(client, experiment, run, root)

    # An interrupted delivery may not have sent the parameters. MLflow accepts equal ones again.
    parameters = iter([Param(key, value) for key, value in run["parameters"].items()])
    while batch := list(islice(parameters, PARAMETERS_PER_BATCH)):
        client.log_batch(run_id, params=batch, synchronous=True)
    return run_id


def _begin_run(client: MlflowClient, experiment: str, run: dict[str, Any], root: Path) -> str:
    """Create a run, below its parent if it has one, and return its id."""
    # Each new run takes the next colour of its experiment.
    count = len(client.search_runs([experiment], max_results=1000))
    tags = run["tags"] | {"mlflow.runColor": COLOURS[count % len(COLOURS)]}
    if run.get("parent"):
        with wait_for_lock(root / "mlflow.db.parents.lock"):  # one tree makes one parent
            tags["mlflow.parentRunId"] = _parent_run(client, experiment, run)
    created = client.create_run(experiment, run["start_time"], tags, run["name"])
    return str(created.info.run_id)


def _parent_run(client: MlflowClient, experiment: str, run: dict[str, Any]) -> str:
    """Return the id of the parent run. The first of its children creates it."""
    name = run["parent"]
    condition = f"tags.{PARENT_TAG} = '{name}'"
    created = ""
    if not client.search_runs([experiment], condition):
        shared = {key: value for key, value in run["tags"].items() if key in PARENT_SHARES}
        tags = {PARENT_TAG: name} | shared
        created = client.create_run(experiment, run["start_time"], tags, name).info.run_id
        client.set_terminated(created, "FINISHED", run["start_time"])

    # Two machines that began at the same moment have created one each. All take the oldest, and
    # whoever created another deletes it.
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    oldest, *duplicates = client.search_runs([experiment], condition, order_by=order)
    for duplicate in duplicates:
        if duplicate.info.run_id == created:
            client.delete_run(created)
    return str(oldest.info.run_id)


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment, which is created if the store does not have it."""
    from mlflow.exceptions import MlflowException

    if experiment := client.get_experiment_by_name(name):
        return experiment.experiment_id
    try:
        return client.create_experiment(name, artifacts, tags=EXPERIMENT_TAGS)
    except MlflowException:
        # Another process may have created it in the meantime.
        if experiment := client.get_experiment_by_name(name):
            return experiment.experiment_id
        raise


def _connect(root: Path) -> tuple[MlflowClient, str | None]:
    """Return the store's client and the address of its artifacts; None if a server decides it."""
    # MLflow reads some of these variables when it is imported, so they are set before.
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)

    # At its own level, this logger writes a line for each attempt to reach a server.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"
    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri), None

    # The first search creates the default experiment, so only one process may be here at a time.
    database = Path(uri.removeprefix("sqlite:///")).absolute()
    with wait_for_lock(database.with_name(f"{database.name}.lock")):
        if not database.exists():
            _create_database(database)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client, (database.parent / "mlruns").as_uri()


def _create_database(database: Path) -> None:
    """Create MLflow's tables in another process, which takes 8 s.

    The file gets its name at the end, so that a kill never leaves half a database.
    """
    partial = database.with_name(f"{database.name}.part")
    partial.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{partial}"]
    subprocess.run(command, check=True, capture_output=True)
    partial.replace(database)
