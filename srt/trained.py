"""A trained model from its file, for all that use one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from srt.checkpoint import load_weights
from srt.config import ModelConfig
from srt.models import SRT, build_model
from srt.strict import read


def load_model(path: Path, device: torch.device) -> tuple[SRT, dict[str, Any]]:
    """Returns a trained model, ready to be used, and the configuration it was trained with."""
    weights, settings = load_weights(path)
    model = build_model(read(ModelConfig, settings["model"], f"{path}: model"), seed=0)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), settings
