"""Converts the state of Adam from and to that of a published checkpoint (stelzner/srt, ff8b953)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srt.common.errors import UserError
from srt.published.tensor_names import published_order
from srt.training.loop import learning_rate
from srt.training.state import MOMENTS, TrainingState

# The options of Adam that must equal ours. The learning rate follows from the step.
_ADAM_OPTIONS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")


def load_moments(content: dict[str, Any], training: TrainingState, source: Path) -> None:
    """Give the optimiser the published moments, or raise UserError if they are not Adam's."""
    # An object that has another structure raises one of many errors. Each gets the same message.
    where = f"{source}: optimizer"
    try:
        (group,) = content["optimizer"]["param_groups"]
        states = content["optimizer"]["state"]
        _check_adam(group, training, where)
        for number, (name, parameter) in zip(group["params"], _parameters(training).items()):
            state = states[number]
            moments = {key: state[key] for key in MOMENTS}
            for key, value in moments.items():
                check_like(value, parameter, f"{where}: {key} of {name}")

            # Up to PyTorch 1.11, the step was a Python number.
            step = torch.tensor(float(state["step"]), dtype=torch.float32)
            training.optimizer.state[parameter] = {"step": step, **moments}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{where}: not the state of Adam for all weights of {training.experiment.name}"
            f" ({error!r}); without --data, only the weights are imported"
        ) from error


def _check_adam(group: dict[str, Any], training: TrainingState, where: str) -> None:
    """Raise UserError if the published Adam has other options or another number of tensors."""
    ours = training.optimizer.param_groups[0]
    for key in _ADAM_OPTIONS:
        if key in group and group[key] != ours[key]:
            raise UserError(f"{where}: {key} {ours[key]} here, {group[key]} there")

    count, expected = len(list(group["params"])), len(_parameters(training))
    if count != expected:
        raise UserError(f"{where}: of {count} tensors, not of {expected}")


def published_optimizer(training: TrainingState) -> dict[str, Any]:
    """Return the `state_dict` that the published Adam would have after the same updates."""
    # The last update used the rate of the step before. The published code does not set `fused`.
    optimizer, parameters = training.optimizer, _parameters(training)
    rate = learning_rate(max(training.step - 1, 0), training.experiment.train)
    numbers = list(range(len(parameters)))
    group = {**optimizer.param_groups[0], "lr": rate, "fused": None, "params": numbers}

    states = {
        number: {key: optimizer.state[parameter][key] for key in ("step", *MOMENTS)}
        for number, parameter in zip(numbers, parameters.values())
    }
    return {"state": states, "param_groups": [group]}


def _parameters(training: TrainingState) -> dict[str, torch.nn.Parameter]:
    """Return the model's parameters in the order in which the published optimiser has them."""
    ours = dict(training.model.named_parameters())
    return {name: ours[name] for _, name in published_order(training.experiment.model, ours)}


def check_like(actual: Any, expected: Tensor, what: str) -> None:
    """Raise UserError unless `actual` is a tensor of the expected shape and type."""
    if not isinstance(actual, Tensor):
        raise UserError(f"{what}: {type(actual).__name__} instead of a tensor")
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise UserError(
            f"{what}: {list(actual.shape)} of {actual.dtype} there,"
            f" {list(expected.shape)} of {expected.dtype} here"
        )
