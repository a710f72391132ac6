"""A trained model from its file, for all that use one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from srt.config.schema import ModelConfig
from srt.config.strict import read
from srt.model.srt import SRT, build_model
from srt.training.states import load_weights


def load_model(path: Path, device: torch.device) -> tuple[SRT, dict[str, Any]]:
    """Returns a trained model, ready to be used, and the configuration it was trained with."""
    weights, settings = load_weights(path)
    model = build_model(read(ModelConfig, settings["model"], f"{path}: model"), seed=0)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), settings
