"""The notebook runs from its first cell to its last, and its pictures stay small."""

import json

import nbclient
import nbformat
import pytest
from support import tiny_training
from support.paths import REPOSITORY

from srt.model.srt import build_model
from srt.model.weights import save_weights

NOTEBOOK = REPOSITORY / "examples" / "novel_views.ipynb"
LARGEST = 100_000  # bytes, with its outputs


@pytest.fixture
def model(tmp_path):
    """A run's folder with a model of random weights."""
    experiment = tiny_training.tiny_experiment(tmp_path)
    network = build_model(experiment.model, seed=0)
    settings = tiny_training.make_config(experiment)
    save_weights(tmp_path / "model.safetensors", network.state_dict(), settings)
    return tmp_path


def test_the_notebook_runs_with_any_model(model, monkeypatch):
    monkeypatch.setenv("SRT_MODEL", str(model))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=200, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2


def test_the_notebook_is_small_and_has_been_run():
    assert NOTEBOOK.stat().st_size < LARGEST
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in cell]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
