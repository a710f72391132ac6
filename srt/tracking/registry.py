"""Trained models in MLflow's registry: one version for each run, the best of them by an alias.

A model's folder there has its weights as safetensors and a copy of this package, whose code reads
them: nothing in it is a pickle, and it needs no checkout to be loaded.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

NEEDED = ("mlflow", "numpy", "pyyaml", "safetensors", "torch")  # by the code that reads the weights
BEST = "best"  # the alias: models:/NAME@best


def send_model(client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]) -> None:
    """Logs a run's model and registers it; goes on with what an earlier, cut delivery made."""
    model = _logged_model(client, run_id, folder, event)
    _make_registered_model(client, event["model"])
    value = float(event["value"])
    if not client.search_model_versions(f"name = '{event['model']}' and run_id = '{run_id}'"):
        client.create_model_version(
            event["model"],
            source=model.artifact_location,
            run_id=run_id,
            tags=event["version_tags"] | {event["metric"]: repr(value)},
            model_id=model.model_id,
        )
    versions = client.search_model_versions(f"name = '{event['model']}'")
    values = {version.version: version.tags.get(event["metric"], "-inf") for version in versions}
    best = max(values, key=lambda version: (float(values[version]), -int(version)))
    client.set_registered_model_alias(event["model"], BEST, best)


def _logged_model(
    client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]
) -> LoggedModel:
    """Returns the run's model, complete."""
    from mlflow.entities import LoggedModelOutput, Metric

    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    model = found[0] if found else client.create_logged_model(experiment, event["model"], run_id)
    if model.status != "READY":
        with _model_folder(folder, event, model.model_id) as files:
            client.log_model_artifacts(model.model_id, str(files))
        client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["step"])])
    bar = Metric(event["metric"], event["value"], event["time"], step=0, model_id=model.model_id)
    client.log_batch(run_id, metrics=[bar], synchronous=True)
    return model


@contextmanager
def _model_folder(folder: Path, event: dict[str, Any], model_id: str) -> Iterator[Path]:
    """Makes a model's folder as MLflow wants it, from what the outbox keeps."""
    import mlflow.pyfunc
    from mlflow.models import Model, infer_signature

    weights = folder / event["file"]
    with np.load(weights.with_name("example.npz")) as example:
        inputs = {name: example[name] for name in example.files if name != "output"}
        signature = infer_signature(inputs, example["output"])
    with TemporaryDirectory(dir=folder) as place:
        mlflow.pyfunc.save_model(
            Path(place) / "model",
            loader_module=event["loader"],
            data_path=str(weights),
            code_paths=[str(code) for code in (weights.parent / "code").iterdir()],
            signature=signature,
            input_example=inputs,
            pip_requirements=[f"{name}=={_version(name)}" for name in NEEDED],
            mlflow_model=Model(model_id=model_id),
        )
        yield Path(place) / "model"


def _make_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(package: str) -> str:
    """Returns an installed version as a registry knows it: `2.13.0`, not `2.13.0+cpu`."""
    return importlib.metadata.version(package).split("+")[0]
