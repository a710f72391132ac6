"""The MLflow run of an experiment: the training begins it, every later stage goes on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from srt.common.files import sha256_of
from srt.common.fingerprint import fingerprint
from srt.tracking.tracker import Tracker, open_tracker
from workflow import REPOSITORY
from workflow.common.provenance import run_tags, stage_tags


def home(checkout: Path) -> Path:
    """Returns the repository whose mlflow.db and ckpt/ a checkout uses.

    That of a queued `dvc exp run` lies in .dvc/tmp of the repository, and is deleted at its end.
    """
    return next((path.parent for path in checkout.parents if path.name == ".dvc"), checkout)


ROOT = home(REPOSITORY)

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
    """Returns the tracker of the run that trains a model, to begin it or to go on with it.

    Where the training was somewhere else and only its model came here, a new run begins. The runs
    of `dvc exp run` bear its names, and those from one commit are shown below one parent.

    Args:
        settings: the training's configuration.
        states: the folder of resume states; the run waits beside them.
        tags: what else there is to know of a new run.
        description: of a new run.
    """
    name, commit = os.environ.get("DVC_EXP_NAME"), os.environ.get("DVC_EXP_BASELINE_REV")
    digest = fingerprint(settings)
    own_tags = {
        "profile": profile,
        "dataset": settings["dataset_name"],
        "model": settings["model"]["name"],
        "fingerprint": digest,
        "but_for_seed": fingerprint(settings | {"seed": None}),  # group by it to compare seeds
    }
    tracker = open_tracker(
        states / profile / experiment / digest / "tracking",
        root=ROOT,
        experiment=f"{profile}: {settings['dataset_name']}",
        run_name=f"{experiment} ({name})" if name else experiment,
        description=f"{experiment}, profile {profile}: {description}",
        tags=own_tags | run_tags(stage) | dict(tags or {}),
        parameters=settings,
        parent=f"{experiment}: dvc exp from {commit[:7]}" if commit else "",
    )
    tracker.set_tags(stage_tags(stage, ROOT))
    return tracker


def log_dataset(tracker: Tracker, dataset: str, origin: str, split: Path, context: Context) -> None:
    """Names a packed split as the run's input.

    Args:
        origin: where the dataset was fetched from.
    """
    header = json.loads((split / "scenes.json").read_text())
    counts = {key: header[key] for key in ("views", "height", "width")}
    tracker.log_dataset(
        f"{dataset} {split.name}",
        digest=sha256_of(split / "scenes.json"),
        source={"uri": str(split), "origin": origin},
        context=context,
        counts={"scenes": len(header["names"])} | counts,
    )
