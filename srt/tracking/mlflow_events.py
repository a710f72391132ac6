"""How the lines of an outbox become calls of MLflow's client.

`srt.tracking.delivery` decides which lines are sent, and when. Here is how a line of each sort is
sent: metrics, tags, data sets, files and pictures. Models are in `srt.tracking.registry`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srt.tracking import outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

# MLflow's own size of a picture's preview: pixels of the longer side.
PREVIEW_SIZE = 256


def read_metrics(folder: Path, start: int, end: int) -> Iterator[tuple[int, Metric]]:
    """Yield each value between two positions, with the position of its line, to go on from."""
    from mlflow.entities import Metric

    for position, _, event in outbox.read_events(folder, start, end):
        for key, value in event.get("metrics", {}).items():
            yield position, Metric(key, value, event["time"], event["step"])


def send_event(client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]) -> bool:
    """Send a line with tags, a data set, a file or a picture. Return False for any other line."""
    from mlflow.entities import RunTag
    from PIL import Image

    if "tags" in event:
        tags = [RunTag(key, value) for key, value in event["tags"].items()]
        client.log_batch(run_id, tags=tags, synchronous=True)
    elif "dataset" in event:
        _send_dataset(client, run_id, event)
    elif "artifact" in event:
        client.log_artifact(run_id, str(folder / event["file"]), event["artifact"] or None)
    elif "image" in event:
        # The client writes the picture and then its preview, under a name that holds all three.
        labels = {"key": event["image"], "step": event["step"], "timestamp": event["time"]}
        with Image.open(folder / event["file"]) as image:
            client.log_image(run_id, image, synchronous=True, **labels)
    else:
        return False
    return True


def _send_dataset(client: MlflowClient, run_id: str, event: dict[str, Any]) -> None:
    """Add a data set to the run's inputs. MLflow wants its source and its counts as JSON text."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    description = {
        "source_type": "local",
        "source": json.dumps(event["source"]),
        "profile": json.dumps(event["counts"]),
    }
    dataset = Dataset(event["dataset"], event["digest"], **description)
    context = InputTag("mlflow.data.context", event["context"])
    client.log_inputs(run_id, [DatasetInput(dataset, [context])])


def has_picture(client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]) -> bool:
    """Return whether MLflow has the picture of a line. Send its preview if only that is missing."""
    # The client names a picture's files by its key, step and time, and adds a random end.
    key, step, moment = event["image"].replace("/", "~"), event["step"], event["time"]
    prefix = f"images/{key}+step+{step}+timestamp+{moment}+"
    files = client.list_artifacts(run_id, "images")
    paths = [file.path for file in files if file.path.startswith(prefix)]

    # One file is the picture alone: the delivery was interrupted before it sent the preview.
    if len(paths) == 1:
        _send_preview(client, run_id, folder / event["file"], Path(paths[0]).stem)
    return bool(paths)


def _send_preview(client: MlflowClient, run_id: str, picture: Path, name: str) -> None:
    """Send what `log_image` sends after a picture: a small copy, and the tag that pictures exist.

    Args:
        name: the name without its ending that `log_image` gave the picture.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}+compressed.webp"
        with Image.open(picture) as image:
            image.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
            image.save(path)
        client.log_artifact(run_id, str(path), "images")
    client.set_tag(run_id, "mlflow.loggedImages", True)
