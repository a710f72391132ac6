"""A trained model is in MLflow's registry once, and can be loaded without this repository."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support import tiny_training

from srt.data.packed.reader import Scenes
from srt.model.srt import build_model
from srt.model.weights import save_weights
from srt.serving import make_example
from srt.tracking import registry
from srt.tracking.outbox import LoggedModel

NAME = "quick-nmr_srt"


@pytest.fixture(scope="module")
def make_model(tmp_path_factory):
    """Return a function that returns a model as training logs it, with the given PSNR."""
    folder = tmp_path_factory.mktemp("trained")
    experiment = tiny_training.tiny_experiment(folder)
    weights = build_model(experiment.model, seed=0).state_dict()
    save_weights(folder / "model.safetensors", weights, tiny_training.make_config(experiment))
    packed = tiny_training.write_packed(folder / "packed")
    inputs, output = make_example(Scenes(packed / "val", tiny_training.CPU), input_views=1)

    def make(psnr=20.0):
        return LoggedModel(
            name=NAME,
            weights=folder / "model.safetensors",
            loader="srt.serving",
            inputs=inputs,
            output=output,
            metric="validation/best_psnr",
            value=psnr,
            tags={"dataset": "nmr"},
        )

    return make


def log_model(store, model, folder="ckpt"):
    tracker = store.open_run(folder)
    tracker.log_model(model, step=600)
    tracker.close("FINISHED")


def versions(store):
    return store.client.search_model_versions(f"name = '{NAME}'")


# A program that loads the best version, renders its example, and prints what it has used.
LOAD = """
import json, sys
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
import srt
inputs = model.input_example
views = model.predict({name: numpy.array(value) for name, value in inputs.items()})
schema = model.metadata.signature.inputs
print(json.dumps([srt.__file__, views.tolist(), schema.input_names()]))
"""


def test_a_model_is_loaded_without_this_repository_and_renders_its_example(
    store, make_model, tmp_path
):
    model = make_model()
    log_model(store, model)
    uri = f"sqlite:///{store.root}/mlflow.db"
    command = [sys.executable, "-c", LOAD, uri, f"models:/{NAME}@best"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    package, views, names = json.loads(process.stdout.splitlines()[-1])

    # The code is the registry's copy, and nothing in the registry is a pickle.
    assert str(store.root / "mlruns") in package
    assert names == list(model.inputs)
    assert np.shape(views) == model.output.shape
    files = [path for path in (store.root / "mlruns").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    assert {"model.safetensors", "input_example.json"} <= {path.name for path in files}


def test_a_version_has_its_run_and_its_metric(store, make_model):
    log_model(store, make_model(psnr=21.5))
    (version,) = versions(store)
    assert version.run_id == store.run().info.run_id
    assert version.tags == {"dataset": "nmr", "validation/best_psnr": "21.5"}
    (output,) = store.run().outputs.model_outputs
    assert output.step == 600
    assert store.points("validation/best_psnr") == [(0, 21.5)]


def test_the_best_model_has_the_alias(store, make_model):
    for folder, psnr in (("first", 20.0), ("second", 22.0), ("third", 21.0)):
        log_model(store, make_model(psnr), folder)
    best = store.client.get_model_version_by_alias(NAME, registry.BEST)
    assert best.tags["validation/best_psnr"] == "22.0"
    assert len(versions(store)) == 3


@pytest.mark.parametrize("call", ["log_model_artifacts", "finalize_logged_model", "log_outputs"])
def test_an_interrupted_delivery_leaves_one_model(store, make_model, monkeypatch, call):
    from mlflow import MlflowClient

    def die(*_, **__):
        raise OSError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, die)
        log_model(store, make_model())
    assert not store.client.search_registered_models()
    store.open_run().close("FINISHED")
    assert len(versions(store)) == 1
    experiment = store.run().info.experiment_id
    assert len(store.client.search_logged_models([experiment])) == 1


def test_a_registry_that_refuses_models_holds_back_nothing_else(store, make_model, monkeypatch):
    from mlflow import MlflowClient

    def refuse(*_, **__):
        raise PermissionError("no models here")

    monkeypatch.setattr(MlflowClient, "create_logged_model", refuse)
    tracker = store.open_run()
    tracker.log_model(make_model(), step=600)
    tracker.log_metrics({"loss": 1.0}, step=601)
    tracker.set_tags({"note": "seen"})
    tracker.close("FINISHED")
    assert store.points() == [(601, 1.0)]
    assert store.run().data.tags["note"] == "seen"
