"""Trained models in MLflow's registry: each run has one version, and an alias names the best one.

A version holds the weights as safetensors, and a copy of this package, whose code reads them. So it
is loaded without a checkout of this repository, and nothing in it is a pickle.
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

# What the code that reads the weights imports.
REQUIREMENTS = ("mlflow", "numpy", "pyyaml", "safetensors", "torch")

# The alias of the best version: models:/NAME@best.
BEST = "best"


def send_model(client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]) -> None:
    """Log the model of a line and register it.

    Each step looks first for what an earlier, interrupted delivery has created.
    """
    # Log the model, and make a version of it. Its tag holds the metric exactly.
    model = _log_model(client, run_id, folder, event)
    _create_registered_model(client, event["model"])
    value = float(event["value"])
    if not client.search_model_versions(f"name = '{event['model']}' and run_id = '{run_id}'"):
        client.create_model_version(
            event["model"],
            source=model.artifact_location,
            run_id=run_id,
            tags=event["version_tags"] | {event["metric"]: repr(value)},
            model_id=model.model_id,
        )

    _name_best_version(client, event["model"], event["metric"])


def _name_best_version(client: MlflowClient, name: str, metric: str) -> None:
    """Give the alias to the version with the highest value, and among equal ones to the oldest."""
    versions = client.search_model_versions(f"name = '{name}'")
    values = {version.version: version.tags.get(metric, "-inf") for version in versions}
    best = max(values, key=lambda version: (float(values[version]), -int(version)))
    client.set_registered_model_alias(name, BEST, best)


def _log_model(
    client: MlflowClient, run_id: str, folder: Path, event: dict[str, Any]
) -> LoggedModel:
    """Return the run's model, after all its files have been sent."""
    from mlflow.entities import LoggedModelOutput, Metric

    # MLflow marks a model as READY once its files are complete.
    experiment = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    model = models[0] if models else client.create_logged_model(experiment, event["model"], run_id)
    if model.status != "READY":
        with _model_folder(folder, event, model.model_id) as files:
            client.log_model_artifacts(model.model_id, str(files))
        client.finalize_logged_model(model.model_id, "READY")

    # Link the model to its run and to the metric by which versions are compared.
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["step"])])
    metric = Metric(event["metric"], event["value"], event["time"], step=0, model_id=model.model_id)
    client.log_batch(run_id, metrics=[metric], synchronous=True)
    return model


@contextmanager
def _model_folder(folder: Path, event: dict[str, Any], model_id: str) -> Iterator[Path]:
    """Yield a temporary folder with the model in MLflow's layout, made from the outbox's copies."""
    import mlflow.pyfunc
    from mlflow.models import Model, infer_signature

    # The signature states the names, shapes and types of inputs and output.
    weights = folder / event["file"]
    with np.load(weights.with_name("example.npz")) as example:
        inputs = {name: example[name] for name in example.files if name != "output"}
        signature = infer_signature(inputs, example["output"])

    with TemporaryDirectory(dir=folder) as temporary:
        target = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            target,
            loader_module=event["loader"],
            data_path=str(weights),
            code_paths=[str(code) for code in (weights.parent / "code").iterdir()],
            signature=signature,
            input_example=inputs,
            pip_requirements=[f"{name}=={_package_version(name)}" for name in REQUIREMENTS],
            mlflow_model=Model(model_id=model_id),
        )
        yield target


def _create_registered_model(client: MlflowClient, name: str) -> None:
    """Create the registry's entry for a name, unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _package_version(package: str) -> str:
    """Return an installed version as package indexes name it: `2.13.0`, not `2.13.0+cpu`."""
    return importlib.metadata.version(package).split("+")[0]
