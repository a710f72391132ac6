"""What the stages that use a trained model share: the model, and the MLflow run it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from srt.checkpoint import load_weights
from srt.config import ModelConfig, fingerprint
from srt.models import SRT, build_model
from srt.strict import read
from srt.tracking import Tracker, open_tracker

ROOT = Path(__file__).parents[1]  # the repository: mlflow.db and ckpt/ are there


def load_model(path: Path, device: torch.device) -> tuple[SRT, dict[str, Any]]:
    """Returns a trained model, ready to be used, and the configuration it was trained with."""
    weights, settings = load_weights(path)
    model = build_model(read(ModelConfig, settings["model"], f"{path}: model"), seed=0)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), settings


def open_run(profile: str, experiment: str, settings: dict[str, Any]) -> Tracker:
    """Returns the tracker of the run that trained a model, to go on with it.

    Where the training was somewhere else and only its model came here, a new run begins.
    """
    return open_tracker(
        ROOT / "ckpt" / profile / experiment / fingerprint(settings) / "tracking",
        root=ROOT,
        experiment=f"{profile}: {settings['dataset_name']}",
        run_name=experiment,
        description=f"{experiment}, profile {profile}: trained elsewhere",
        tags={"profile": profile},
        parameters=settings,
    )
