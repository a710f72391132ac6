"""Checkpoints of stelzner/srt (train.py and srt/checkpoint.py at ff8b953) <-> a `TrainingState`.

Such a file is what `torch.save` makes of a dictionary: `encoder` and `decoder` (weights by name),
`optimizer` (Adam's, by place), `it`, `epoch_it`, `t` (seconds), `loss_val_best` and `run_id`.
It is saved before the update that `it` counts, so `it` updates have been made: our step. Processes
under DDP save the modules they wrap, so no name begins with `module.`.
"""

from __future__ import annotations

import io
import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srt.common.errors import UserError
from srt.common.files import write_atomically
from srt.config.schema import Experiment
from srt.published.tensor_names import published_order
from srt.training.loop import learning_rate
from srt.training.state import MOMENTS, TrainingState

KEYS = ("encoder", "decoder", "optimizer", "it", "epoch_it", "t", "loss_val_best", "run_id")
_ADAM = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
# What the pickle of a number like numpy.float64(27.3) calls, by its name in NumPy 1 and 2.
_SCALAR = np.float64(0).__reduce__()[0]
_OF_NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]

log = logging.getLogger(__name__)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's dictionary; nothing in the file is run.

    Raises UserError for a damaged file, and for one that holds anything but tensors, numbers, text
    and collections of them.
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not look at the checksums
        with safe_globals(_OF_NUMPY_NUMBERS):
            refused = get_unsafe_globals_in_checkpoint(path)
            content = None if damaged or refused else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # broken archives and pickles raise anything
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: damaged, or not what torch.save writes ({type(error).__name__}: {reason});"
            " fetch it again"
        ) from error
    if damaged:
        raise UserError(f"{path}: damaged: {damaged} does not have its checksum; fetch it again")
    if refused:
        raise UserError(
            f"{path}: holds {', '.join(sorted(refused))}, which would be run in order to read it;"
            " a checkpoint may hold tensors, numbers and text, so this one is not read"
        )
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), dict) for part in ("encoder", "decoder")
    ):
        found = list(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: a published checkpoint has encoder and decoder, this: {found}")
    if others := [key for key in content if key not in KEYS]:
        log.warning("%s: has %s too, which is not taken over", path, ", ".join(map(str, others)))
    return content


def to_training(
    content: dict[str, Any], experiment: Experiment, optimizer: bool, source: Path
) -> TrainingState:
    """Returns the training that a checkpoint is a state of, with the optimiser's state or without.

    Its weights count as the best so far: which were, a checkpoint does not say. Raises UserError
    that names what is missing or of another shape, or an Adam with other settings.
    """
    training = TrainingState(experiment, torch.device("cpu"))
    training.model.load_state_dict(_weights(content, training, source))
    if training.ema:  # begins with the weights there are
        training.ema = {n: p.detach().clone() for n, p in training.model.named_parameters()}
    if optimizer:
        _take_moments(content, training, source)
    training.step = training.best_step = _count(content, "it", source)
    training.seconds = _number(content, "t", source)
    training.joules = training.peak_gigabytes = None
    training.best_psnr = _number(content, "loss_val_best", source)
    training.best = {name: t.detach().clone() for name, t in training.model.state_dict().items()}
    if math.isfinite(training.best_psnr):  # else nothing has been validated
        training.validation = [(training.step, training.best_psnr)]
    return training


def origin(content: dict[str, Any], source: Path) -> dict[str, Any]:
    """Returns what a checkpoint says of its run and a `TrainingState` has no place for."""
    if not isinstance(content.get("run_id"), (str, type(None))):
        raise UserError(f"{source}: run_id: {content['run_id']!r} is no text")
    return {"epoch_it": _count(content, "epoch_it", source), "run_id": content.get("run_id")}


def from_training(training: TrainingState, epoch: int, run: str | None) -> dict[str, Any]:
    """Returns the published form of a training's weights, its optimiser's state and its progress.

    Args:
        epoch: the published training's; ours counts none.
        run: the name that Weights & Biases has given it.
    """
    tensors = training.model.state_dict()
    content: dict[str, Any] = {"encoder": {}, "decoder": {}}
    for theirs, ours in published_order(training.experiment.model, tensors):
        part, _, name = theirs.partition(".")
        content[part][name] = tensors[ours]
    if training.optimizer.state:
        content["optimizer"] = _published_optimizer(training)
    numbers = {"epoch_it": epoch, "it": training.step, "t": training.seconds}
    return {**content, **numbers, "loss_val_best": training.best_psnr, "run_id": run}


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes the file, as `torch.save` does."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def _weights(content: dict[str, Any], training: TrainingState, source: Path) -> dict[str, Tensor]:
    """Returns the weights by our names: all that the model has, and no others."""
    expected = training.model.state_dict()
    order = published_order(training.experiment.model, expected)
    found = {f"{part}.{n}": t for part in ("encoder", "decoder") for n, t in content[part].items()}
    model = f"{training.experiment.name}'s model"
    if missing := [theirs for theirs, _ in order if theirs not in found]:
        raise UserError(f"{source}: {', '.join(missing)} of {model} missing")
    if unknown := sorted(found.keys() - dict(order).keys()):
        raise UserError(f"{source}: {', '.join(unknown)}: not of {model}")
    weights: dict[str, Tensor] = {}
    for theirs, ours in order:
        _check_like(found[theirs], expected[ours], f"{source}: {theirs}")
        if not torch.equal(weights.setdefault(ours, found[theirs]), found[theirs]):
            raise UserError(
                f"{source}: {theirs} differs from the coarse net's: give the experiment"
                " model.separate_fine_net: true"
            )
    return weights


def _take_moments(content: dict[str, Any], training: TrainingState, source: Path) -> None:
    """Gives the optimiser its state; raises UserError for another optimiser's, or an incomplete."""
    parameters = _parameters(training)
    where = f"{source}: optimizer"
    try:
        (group,) = content["optimizer"]["param_groups"]
        places, states = list(group["params"]), content["optimizer"]["state"]
        ours = training.optimizer.param_groups[0]
        for key in _ADAM:
            if key in group and group[key] != ours[key]:
                raise UserError(f"{where}: {key} {ours[key]} here, {group[key]} there")
        if len(places) != len(parameters):
            raise UserError(f"{where}: of {len(places)} tensors, not of {len(parameters)}")
        for place, (name, parameter) in zip(places, parameters.items()):
            state = states[place]
            moments = {key: state[key] for key in MOMENTS}
            for key, value in moments.items():
                _check_like(value, parameter, f"{where}: {key} of {name}")
            # PyTorch counted in a Python number until 1.12.
            step = torch.tensor(float(state["step"]), dtype=torch.float32)
            training.optimizer.state[parameter] = {"step": step, **moments}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{where}: not the state of Adam over all of {training.experiment.name}'s weights"
            f" ({error!r}); without --data its weights alone are imported"
        ) from error


def _published_optimizer(training: TrainingState) -> dict[str, Any]:
    """Returns what the published Adam's `state_dict` would, after the same updates."""
    optimizer, parameters = training.optimizer, _parameters(training)
    rate = learning_rate(max(training.step - 1, 0), training.experiment.train)
    places = range(len(parameters))
    # `fused` is a matter of the machine; the published code leaves it open.
    group = {**optimizer.param_groups[0], "lr": rate, "fused": None, "params": list(places)}
    states = {
        place: {key: optimizer.state[parameter][key] for key in ("step", *MOMENTS)}
        for place, parameter in zip(places, parameters.values())
    }
    return {"state": states, "param_groups": [group]}


def _parameters(training: TrainingState) -> dict[str, torch.nn.Parameter]:
    """Returns the model's parameters in the order in which the published optimiser has them."""
    ours = dict(training.model.named_parameters())
    return {name: ours[name] for _, name in published_order(training.experiment.model, ours)}


def _check_like(found: Any, expected: Tensor, what: str) -> None:
    """Raises UserError for what is no tensor of the expected shape and type."""
    if not isinstance(found, Tensor):
        raise UserError(f"{what}: {type(found).__name__} instead of a tensor")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise UserError(
            f"{what}: {list(found.shape)} of {found.dtype} there,"
            f" {list(expected.shape)} of {expected.dtype} here"
        )


def _number(content: dict[str, Any], key: str, source: Path) -> float:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise UserError(f"{source}: {key}: {value!r} is not a number")
    return float(value)


def _count(content: dict[str, Any], key: str, source: Path) -> int:
    value = content.get(key)
    if type(value) is not int or value < 0:
        raise UserError(f"{source}: {key}: {value!r} is not a number from 0 on")
    return value
