"""The MLflow run of an experiment: the training begins it, and later stages add to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from srt.common.files import sha256_of
from srt.common.fingerprint import fingerprint
from srt.tracking.tracker import Tracker, open_tracker
from srt.training.states import folder_of_config
from workflow import REPOSITORY
from workflow.common.provenance import run_tags, stage_tags


def main_repository(checkout: Path) -> Path:
    """Return the repository whose mlflow.db and ckpt/ a checkout uses.

    A queued `dvc exp run` works in a checkout inside .dvc/tmp of the repository, and deletes it at
    its end. What must last is written to the repository itself.
    """
    return next((path.parent for path in checkout.parents if path.name == ".dvc"), checkout)


ROOT = main_repository(REPOSITORY)

Context = Literal["training", "validation", "evaluation"]


def open_run(
    stage: str,
    profile: str,
    experiment: str,
    settings: dict[str, Any],
    states: Path = ROOT / "ckpt",
    tags: Mapping[str, str] | None = None,
    description: str = "trained elsewhere",
) -> Tracker:
    """Return the tracker of the run that trains a model; begin the run if it does not exist.

    A run is found by the fingerprint of its settings. If a model was trained on another machine,
    the first stage here that uses it begins a new run. Runs of `dvc exp run` have its names, and
    MLflow shows those that started from one commit below one parent.

    Args:
        settings: the training's configuration.
        states: the folder of resume states. What is not yet sent to MLflow waits beside them.
        tags: more tags of a new run.
        description: of a new run.
    """
    # DVC sets these variables for an experiment.
    dvc_name = os.environ.get("DVC_EXP_NAME")
    commit = os.environ.get("DVC_EXP_BASELINE_REV")
    tracker = open_tracker(
        folder_of_config(states / profile / experiment, settings) / "tracking",
        root=ROOT,
        experiment=f"{profile}: {settings['dataset_name']}",
        run_name=f"{experiment} ({dvc_name})" if dvc_name else experiment,
        description=f"{experiment}, profile {profile}: {description}",
        tags=settings_tags(profile, settings) | run_tags(stage) | dict(tags or {}),
        parameters=settings,
        parent=f"{experiment}: dvc exp from {commit[:7]}" if commit else "",
    )

    # The run's tags are of its first stage. Every stage adds where and with which code it ran.
    tracker.set_tags(stage_tags(stage, ROOT))
    return tracker


def settings_tags(profile: str, settings: dict[str, Any]) -> dict[str, str]:
    """Return the tags by which MLflow's table can be sorted and filtered."""
    # Runs with equal `but_for_seed` differ only in their seed, so it groups those to compare.
    return {
        "profile": profile,
        "dataset": settings["dataset_name"],
        "model": settings["model"]["name"],
        "fingerprint": fingerprint(settings),
        "but_for_seed": fingerprint(settings | {"seed": None}),
    }


def log_dataset(tracker: Tracker, dataset: str, origin: str, split: Path, context: Context) -> None:
    """Add a packed split to the inputs of a run.

    Args:
        origin: where the dataset was fetched from.
    """
    # The header of a split has its sizes, and its digest stands for the whole split.
    header = json.loads((split / "scenes.json").read_text())
    counts = {key: header[key] for key in ("views", "height", "width")}
    tracker.log_dataset(
        f"{dataset} {split.name}",
        digest=sha256_of(split / "scenes.json"),
        source={"uri": str(split), "origin": origin},
        context=context,
        counts={"scenes": len(header["names"])} | counts,
    )
