"""Converts checkpoints of stelzner/srt (ff8b953: train.py, srt/checkpoint.py) from and to ours.

Such a file is a dictionary that `torch.save` has written:

    encoder, decoder    the weights by name
    optimizer           Adam's state; tensors are numbered in the order of `published_order`
    it                  the iteration. The file is saved before this iteration's update, so `it`
                        updates have been made: it equals our step
    epoch_it            the epoch
    t                   seconds of training
    loss_val_best       the best validation's PSNR
    run_id              the name of the run at Weights & Biases

No name begins with `module.`: the published code unwraps its modules before it saves them.
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
from srt.config.schema import Experiment, ModelConfig
from srt.model.srt import SRT
from srt.published.adam_state import check_like, load_moments, published_optimizer
from srt.published.tensor_names import published_order
from srt.training.state import TrainingState

KEYS = ("encoder", "decoder", "optimizer", "it", "epoch_it", "t", "loss_val_best", "run_id")

# What the pickle of a number such as numpy.float64(27.3) calls. NumPy 2 has renamed its module.
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_GLOBALS: list[Any] = [
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]

log = logging.getLogger(__name__)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the dictionary of a checkpoint. No code in the file is run.

    Raises:
        UserError: if the file is damaged, or holds anything but tensors, numbers, text and
            collections of them.
    """
    # Without encoder and decoder, it is the file of another program.
    content = _unpickle(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(module), dict) for module in ("encoder", "decoder")
    ):
        actual = list(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path}: a published checkpoint has encoder and decoder, but this file has: {actual}"
        )

    # Other versions of the published code may save more. It has no counterpart here.
    if ignored := [key for key in content if key not in KEYS]:
        log.warning("%s: these keys are ignored: %s", path, ", ".join(map(str, ignored)))
    return content


def _unpickle(path: Path) -> Any:
    """Return the content of a file of `torch.save` if everything in it is harmless."""
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    # torch.load does not look at the archive's checksums, and would read a damaged weight. Broken
    # archives and pickles raise errors of any type.
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        with safe_globals(_NUMPY_GLOBALS):
            refused = get_unsafe_globals_in_checkpoint(path)
            content = None if damaged or refused else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: damaged, or not written by torch.save ({type(error).__name__}: {reason});"
            " fetch it again"
        ) from error

    if damaged:
        raise UserError(f"{path}: damaged: {damaged} does not have its checksum; fetch it again")
    if refused:
        raise UserError(
            f"{path}: holds {', '.join(sorted(refused))}, and reading them would run code; a"
            " checkpoint may hold only tensors, numbers and text, so it is not read"
        )
    return content


def training_from_checkpoint(
    content: dict[str, Any], experiment: Experiment, optimizer: bool, source: Path
) -> TrainingState:
    """Return the training whose state a checkpoint is.

    A checkpoint does not say which weights were the best, so its own ones count as the best.

    Args:
        optimizer: also take over the state of the optimiser.
        source: the checkpoint's file, for errors.

    Raises:
        UserError: if tensors are missing or have other shapes, or Adam had other options.
    """
    # The weights, from which a moving average begins anew.
    training = TrainingState(experiment, torch.device("cpu"))
    owner = f"{experiment.name}'s model"
    weights = published_weights(content, training.model, experiment.model, owner, source)
    training.model.load_state_dict(weights)
    if training.ema:
        training.ema = {n: p.detach().clone() for n, p in training.model.named_parameters()}
    if optimizer:
        load_moments(content, training, source)

    _load_progress(content, training, source)
    return training


def _load_progress(content: dict[str, Any], training: TrainingState, source: Path) -> None:
    """Give the training the checkpoint's progress; what is not recorded counts as not measured."""
    training.step = training.best_step = _count(content, "it", source)
    training.seconds = _number(content, "t", source)
    training.joules = training.peak_gigabytes = None
    training.best_psnr = _number(content, "loss_val_best", source)
    training.best = {name: t.detach().clone() for name, t in training.model.state_dict().items()}

    # Before the first validation, the best PSNR is minus infinity.
    if math.isfinite(training.best_psnr):
        training.validation = [(training.step, training.best_psnr)]


def checkpoint_origin(content: dict[str, Any], source: Path) -> dict[str, Any]:
    """Return the run's name and epoch, for which `TrainingState` has no fields."""
    if not isinstance(content.get("run_id"), (str, type(None))):
        raise UserError(f"{source}: run_id: {content['run_id']!r} is not text")
    return {"epoch_it": _count(content, "epoch_it", source), "run_id": content.get("run_id")}


def checkpoint_from_training(
    training: TrainingState, epoch: int, run: str | None
) -> dict[str, Any]:
    """Return the published checkpoint with a training's weights, optimiser and progress.

    Args:
        epoch: of the published training; ours does not count epochs.
        run: the name of the run at Weights & Biases.
    """
    # A tensor that has two published names is saved under both.
    tensors = training.model.state_dict()
    content: dict[str, Any] = {"encoder": {}, "decoder": {}}
    for theirs, ours in published_order(training.experiment.model, tensors):
        module, _, name = theirs.partition(".")
        content[module][name] = tensors[ours]

    # The optimiser has no state before the first step.
    if training.optimizer.state:
        content["optimizer"] = published_optimizer(training)
    progress = {"epoch_it": epoch, "it": training.step, "t": training.seconds}
    return {**content, **progress, "loss_val_best": training.best_psnr, "run_id": run}


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write the file as `torch.save` does, but completely or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def published_weights(
    content: dict[str, Any], network: SRT, config: ModelConfig, owner: str, source: Path
) -> dict[str, Tensor]:
    """Return a checkpoint's weights by our names, exactly those that a network has.

    Args:
        content: what `read_checkpoint` returns.
        config: of the network.
        owner: what the network is, for errors.
        source: the checkpoint's file, for errors.

    Raises:
        UserError: if tensors are missing, are too many or have other shapes.
    """
    expected = network.state_dict()
    order = published_order(config, expected)
    published = {
        f"{module}.{name}": tensor
        for module in ("encoder", "decoder")
        for name, tensor in content[module].items()
    }

    # The checkpoint must have every tensor of the model, and no other.
    if missing := [theirs for theirs, _ in order if theirs not in published]:
        raise UserError(f"{source}: {', '.join(missing)} of {owner} missing")
    if unknown := sorted(published.keys() - dict(order).keys()):
        raise UserError(f"{source}: {', '.join(unknown)}: not of {owner}")

    # Two names of one tensor must have equal values: VSRT's fine net may be its coarse net.
    weights: dict[str, Tensor] = {}
    for theirs, ours in order:
        check_like(published[theirs], expected[ours], f"{source}: {theirs}")
        if not torch.equal(weights.setdefault(ours, published[theirs]), published[theirs]):
            raise UserError(
                f"{source}: {theirs} differs from the coarse net's: give the experiment"
                " model.separate_fine_net: true"
            )
    return weights


def _number(content: dict[str, Any], key: str, source: Path) -> float:
    """Return a number of the checkpoint. True and False are not numbers."""
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise UserError(f"{source}: {key}: {value!r} is not a number")
    return float(value)


def _count(content: dict[str, Any], key: str, source: Path) -> int:
    """Return a whole number of the checkpoint that is not negative."""
    value = content.get(key)
    if type(value) is not int or value < 0:
        raise UserError(f"{source}: {key}: {value!r} is not a number from 0 on")
    return value
