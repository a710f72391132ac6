"""The MLflow run of an experiment, which every stage after the training goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srt.fingerprint import fingerprint
from srt.tracking import Tracker, open_tracker

ROOT = Path(__file__).parents[1]  # the repository: mlflow.db and ckpt/ are there


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
