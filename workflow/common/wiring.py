"""What the Snakefile asks: of dvc.yaml, so that it stands once, and of the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from workflow import REPOSITORY

STAGES: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


def code_dependencies(stage: str) -> list[str]:
    """Returns the files and folders of code whose change makes a stage's outputs again."""
    return [path for path in _stage(stage)["deps"] if path.startswith(("srt/", "workflow/"))]


def has_gpu(driver: Path = Path("/proc/driver/nvidia")) -> bool:
    """Returns whether this machine has a GPU that trainings would use."""
    return driver.exists()


def tracked_parameters(stage: str, config: Mapping[str, Any], key: str = "") -> str:
    """Returns the parameters that a stage depends on, as text: Snakemake compares text.

    Args:
        config: params.yaml, as Snakemake read it.
        key: the dataset, weight file or experiment, as in dvc.yaml's `foreach`.
    """
    values = {name: _lookup(config, name) for name in tracked_parameter_names(stage, config, key)}
    return json.dumps(values, sort_keys=True)


def tracked_parameter_names(stage: str, config: Mapping[str, Any], key: str) -> list[str]:
    """Returns the dotted names of those parameters."""
    known = {"profile": config["profile"], "key": key}
    known["item.dataset"] = config["experiments"].get(key, {}).get("dataset", "")
    return [
        re.sub(r"\$\{([\w.]+)\}", lambda match: known[match[1]], name)
        for name in _stage(stage)["params"]
    ]


def _stage(stage: str) -> dict[str, Any]:
    definition: dict[str, Any] = STAGES[stage]
    return definition.get("do", definition)


def _lookup(config: Mapping[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value
