"""A trained model from wherever it is: a run, a file of weights, MLflow, or a published run."""

from __future__ import annotations

from pathlib import Path

import torch

from srt.common.devices import best_device
from srt.common.errors import UserError
from srt.config.strict import load_yaml
from srt.model.srt import build_model
from srt.published.checkpoint import published_weights, read_checkpoint
from srt.published.config import read_published_run
from srt.serving import TrainedModel, load_trained_model

# The weights in the folder of a run, and the files of a run of stelzner/srt.
WEIGHTS = "model.safetensors"
PUBLISHED = "config.yaml"
CHECKPOINTS = ("model_best.pt", "model.pt")


def load(source: str | Path, device: str | torch.device | None = None) -> TrainedModel:
    """Return a trained model.

    Args:
        source: the folder of a run, such as `outputs/bench/nmr_srt`; a file of weights; a model of
            MLflow, such as `models:/bench-nmr_srt@best`; or the folder of a run of the published
            code, with config.yaml and model_best.pt or model.pt.
        device: None: a GPU if there is one.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    target = torch.device(device) if device is not None else best_device()
    if str(source).startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return load_registered(str(source), target)

    path = Path(source)
    if (path / WEIGHTS).is_file():
        return load_trained_model(path / WEIGHTS, target)
    if (path / PUBLISHED).is_file():
        return load_published(path, target)
    if path.is_file():
        return load_trained_model(path, target)
    raise UserError(
        f"{source}: no model is here: neither a file of weights, nor a folder with {WEIGHTS} (of a"
        f" finished training) or {PUBLISHED} (of a run of stelzner/srt)"
    )


def load_registered(address: str, device: torch.device) -> TrainedModel:
    """Return a model of MLflow, whose store MLFLOW_TRACKING_URI names as for MLflow itself."""
    from mlflow.artifacts import download_artifacts

    folder = Path(download_artifacts(address))
    files = sorted(folder.rglob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"{address}: has {len(files)} files of weights, where a model has one")
    return load_trained_model(files[0], device)


def load_published(folder: Path, device: torch.device) -> TrainedModel:
    """Return the model of a run of stelzner/srt, at its best step if that was saved."""
    # The best step's checkpoint goes before the last one's.
    checkpoints = [folder / name for name in CHECKPOINTS if (folder / name).is_file()]
    if not checkpoints:
        raise UserError(f"{folder}: has {PUBLISHED}, but neither of {', '.join(CHECKPOINTS)}")

    config = folder / PUBLISHED
    model, view_config = read_published_run(load_yaml(config), config)
    network = build_model(model, seed=0)
    content = read_checkpoint(checkpoints[0])
    owner = f"the model of {config}"
    network.load_state_dict(published_weights(content, network, model, owner, checkpoints[0]))
    return TrainedModel(network.to(device).eval().requires_grad_(False), view_config)
