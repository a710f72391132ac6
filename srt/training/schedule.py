"""The published learning-rate schedule: linear warm-up, then exponential decay."""

from __future__ import annotations

from srt.config.schema import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Returns the learning rate of a step; step 0 has none (stelzner/srt, train.py)."""
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    since_peak = step - config.warmup_steps
    return float(config.learning_rate * config.decay_rate ** (since_peak / config.decay_steps))
