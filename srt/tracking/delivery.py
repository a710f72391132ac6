"""Sends MLflow what the runs' outboxes hold (`srt.tracking.outbox`). This and `srt.tracking.registry` know mlflow.

A delivery may be cut anywhere by a kill or an outage: the next one goes on from the positions in
`delivered.json`. What is sent twice counts once: a run is found again by its tag, MLflow leaves out
a metric whose key, step, time and value it already has (the lines carry their times), a file
replaces itself, and a picture or a model is looked for first.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srt.common.files import wait_for_lock, write_atomically
from srt.tracking import outbox, registry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS_PER_BATCH = 1000  # MLflow's limits
PARAMETERS_PER_BATCH = 100
PREVIEW = 256  # pixels of its longer side, as MLflow's
EXPERIMENT_TAGS = {  # else MLflow's page asks which kind of experiment it is to show
    "mlflow.experimentKind": "custom_model_development",
}
COLOURS = (  # of the curves: MLflow's own choice gives neighbours the same
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#80BA5A"),
    *("#A5AA99", "#882255", "#44AA99", "#666666"),
)
PARENT_TAG = "parent_of"
PARENT_HAS = ("profile", "dataset", "model", "synthetic")  # what its runs have in common
ENVIRONMENT = {  # unless the user has set them; by default a call waits minutes for a server
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def deliver(folder: Path, root: Path) -> None:
    """Sends what is released and not delivered; after an error of MLflow's, the rest waits."""
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
    """A run of MLflow, and the position in events.jsonl up to which it has each kind of line.

    Each kind has its own: an artifact store that refuses files does not keep the metrics back, nor
    a registry that refuses models the files.
    """

    client: MlflowClient
    folder: Path
    run_id: str
    metrics: int = 0
    items: int = 0
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
        """Returns the delivery that was recorded, or a new one if MLflow does not have its run."""
        path = folder / "delivered.json"
        if path.exists():
            delivery = cls(client, folder, **json.loads(path.read_text()))
            if _is_active(client, delivery.run_id):
                return delivery
        run = json.loads((folder / "run.json").read_text())
        delivery = cls(client, folder, _create_run(client, run, artifacts, root))
        delivery.record()
        return delivery

    def record(self) -> None:
        positions = {key: getattr(self, key) for key in ("metrics", "items", "status", "models")}
        content = json.dumps({"run_id": self.run_id} | positions)
        write_atomically(self.folder / "delivered.json", content.encode())

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
        unsure = True  # the delivery before may have been cut before it recorded its last item
        for _, stop, event in outbox.read_events(self.folder, self.items, end):
            known = unsure and "image" in event and self._has_picture(event)
            if known or _send_item(self.client, self.run_id, self.folder, event):
                unsure = False
                self.items = stop
                self.record()
        self.items = end
        self.record()

    def _has_picture(self, event: dict[str, Any]) -> bool:
        """Returns whether MLflow has a picture; sends its preview if the cut was before that."""
        key, step, moment = event["image"].replace("/", "~"), event["step"], event["time"]
        name = f"images/{key}+step+{step}+timestamp+{moment}+"
        files = self.client.list_artifacts(self.run_id, "images")
        found = [file.path for file in files if file.path.startswith(name)]
        if len(found) == 1:
            self._send_preview(event, Path(found[0]).stem)
        return bool(found)

    def _send_preview(self, event: dict[str, Any], name: str) -> None:
        """Sends what `log_image` sends after a picture, under the name that it gave it."""
        from PIL import Image

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}+compressed.webp"
            with Image.open(self.folder / event["file"]) as image:
                image.thumbnail((PREVIEW, PREVIEW))
                image.save(path)
            self.client.log_artifact(self.run_id, str(path), "images")
        self.client.set_tag(self.run_id, "mlflow.loggedImages", True)

    def send_models(self, end: int) -> None:
        for _, stop, event in outbox.read_events(self.folder, self.models, end):
            if "model" in event:
                registry.send_model(self.client, self.run_id, self.folder, event)
                self.models = stop
                self.record()
        self.models = end
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
        described = {
            "source_type": "local",
            "source": json.dumps(event["source"]),
            "profile": json.dumps(event["counts"]),
        }
        dataset = Dataset(event["dataset"], event["digest"], **described)
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


def _create_run(
    client: MlflowClient, run: dict[str, Any], artifacts: str | None, root: Path
) -> str:
    """Returns the id of a new run, or of the one that a delivery created just before it was cut."""
    from mlflow.entities import Param

    experiment = _experiment_id(client, run["experiment"], artifacts)
    own = f"tags.{outbox.OUTBOX_TAG} = '{run['tags'][outbox.OUTBOX_TAG]}'"
    if found := client.search_runs([experiment], own):
        run_id = str(found[0].info.run_id)
    else:
        count = len(client.search_runs([experiment], max_results=1000))
        tags = run["tags"] | {"mlflow.runColor": COLOURS[count % len(COLOURS)]}
        if run.get("parent"):
            with wait_for_lock(root / "mlflow.db.parents.lock"):  # one tree makes one parent
                tags["mlflow.parentRunId"] = _parent_run(client, experiment, run)
        described = (experiment, run["start_time"], tags, run["name"])
        run_id = str(client.create_run(*described).info.run_id)
    parameters = iter([Param(key, value) for key, value in run["parameters"].items()])
    while batch := list(islice(parameters, PARAMETERS_PER_BATCH)):
        client.log_batch(run_id, params=batch, synchronous=True)
    return run_id


def _parent_run(client: MlflowClient, experiment: str, run: dict[str, Any]) -> str:
    """Returns the id of the run under which runs of one parent are shown; the first makes it."""
    name = run["parent"]
    own = f"tags.{PARENT_TAG} = '{name}'"
    made = ""
    if not client.search_runs([experiment], own):
        common = {key: value for key, value in run["tags"].items() if key in PARENT_HAS}
        described = (experiment, run["start_time"], {PARENT_TAG: name} | common, name)
        made = client.create_run(*described).info.run_id
        client.set_terminated(made, "FINISHED", run["start_time"])
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    oldest, *others = client.search_runs([experiment], own, order_by=order)
    for other in others:  # trees on two machines that began at the same moment made one each
        if other.info.run_id == made:
            client.delete_run(made)
    return str(oldest.info.run_id)


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, artifacts, tags=EXPERIMENT_TAGS)
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
    with wait_for_lock(database.with_name(f"{database.name}.lock")):
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
