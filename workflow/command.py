"""What every stage's command line shares: arguments from a signature, errors as one clear line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from srt.checkpoint import load_weights
from srt.config import ModelConfig, fingerprint
from srt.errors import UserError
from srt.models import SRT, build_model
from srt.strict import read
from srt.tracking import Tracker, open_tracker

ROOT = Path(__file__).parents[1]  # the repository: mlflow.db and ckpt/ are there


def run(stage: Callable[..., Any]) -> None:
    """Runs a stage with the arguments of this process; exits with 1 and a line if it is refused."""
    import tyro

    from srt.distributed import die_with_parent

    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        tyro.cli(stage)
    except UserError as error:
        sys.exit(f"error: {error}")


def cpus() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
