"""The training loop, read top to bottom: batch, gradients in groups of rays, step, log, save.

A step counts as done once its weights are updated. At a step that is due for several things the
order is: log, validate, picture, save; so a saved state has seen all that its step brought.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from srt.common.distributed import Processes, Reduction, StopRequest
from srt.common.errors import UserError
from srt.config.schema import Experiment, TrainConfig
from srt.data.batch import Batch, make_view_config
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.data.sampling import Sampler
from srt.evaluation.comparison import compare_views
from srt.evaluation.evaluator import evaluate_items
from srt.evaluation.protocols import protocol_items
from srt.model.decoder import uniforms_per_ray
from srt.tracking.tracker import Tracker
from srt.training.cuda_graph import Step, make_step
from srt.training.energy import EnergyMeter, peak_gigabytes
from srt.training.state import NO_STEP, TrainingState
from srt.training.states import load_latest_state, load_shorter_training, save_state

PICTURED_SCENES = 4
NAMED_SCENES = 8  # of a step that is not finite

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The packed splits that a training reads."""

    train: Scenes
    validation: Scenes


@dataclass(frozen=True)
class Requests:
    """What the user asks of this call beyond its configuration."""

    stop_after: int | None = None
    validate_now: bool = False
    picture_now: bool = False


def fit(
    experiment: Experiment,
    config: dict[str, Any],
    data: TrainingData,
    folder: Path,
    tracker: Tracker,
    processes: Processes,
    stop: StopRequest,
    requests: Requests,
) -> TrainingState:
    """Returns the training as far as it went: `train.steps`, or less if it was told to stop.

    Args:
        config: what the resume states in `folder` must have been made with.
    """
    train, training = experiment.train, TrainingState(experiment, processes.device)
    resume(training, folder, config)
    tracker.rewind(training.step)
    sampler = make_sampler(experiment, processes)
    compute_step = make_step(training.model, processes.device)
    reduction = processes.reduction(training.model.parameters())
    started, used = time.monotonic() - training.seconds, training.joules
    peak = training.peak_gigabytes
    meter = EnergyMeter(processes.device)
    if requests.validate_now:
        log.info("validation: %.4f dB", measure_validation(training, data, processes))
    if requests.picture_now:
        log_pictures(training, data, tracker, processes)

    end = min(train.steps, requests.stop_after or train.steps)
    with progress_bar(training.step, end, experiment.name, processes) as bar:
        for batch in iterate_batches(sampler, data.train, training.step, end):
            rate = learning_rate(training.step, train)
            training.loss_sum += train_step(training, compute_step, batch, rate, reduction)
            training.step += 1
            bar.update()

            last = training.step == end
            stopping = processes.any(bool(stop))
            if training.step % train.log_every == 0:
                training.seconds = time.monotonic() - started
                bar.set_postfix_str(log_step(training, data, rate, tracker, processes))
            if training.step % train.validate_every == 0:
                validate(training, data, tracker, processes)
            if training.step % train.picture_every == 0 or last:
                log_pictures(training, data, tracker, processes)
            if training.step % train.checkpoint_every == 0 or last or stopping:
                training.seconds = time.monotonic() - started
                training.joules = sum_if_known([used, *processes.gather(meter.joules())])
                peaks = [peak, *processes.gather(peak_gigabytes(processes.device))]
                training.peak_gigabytes = max_if_known(peaks)
                training.loss_sum.fill_(check_finite_loss(training, data, processes))
                if processes.main:
                    save_state(folder, training.state(), config)
                    training.saved_step = training.step
                    tracker.release()
                    tracker.deliver_in_background()
            if stopping:
                break
    return training


def train_step(
    training: TrainingState,
    compute_step: Step,
    batch: Batch,
    rate: float,
    reduction: Reduction | None = None,
) -> Tensor:
    """Updates the weights once; returns the loss, on the device: nothing waits for it.

    Args:
        compute_step: what `make_step` returns.
        reduction: over the processes of the training, where there are several.
    """
    training.optimizer.zero_grad(set_to_none=True)
    rays = training.experiment.train.rays_per_group
    loss = compute_step(batch, rays, reduction)
    training.update(rate, loss)
    return loss


def make_sampler(experiment: Experiment, processes: Processes) -> Sampler:
    """Returns the sampler of this process' share of every batch."""
    return Sampler(
        batch_size=experiment.train.batch_size,
        rays_per_scene=experiment.train.rays_per_scene,
        uniforms_per_ray=uniforms_per_ray(experiment.model),
        view_config=make_view_config(experiment),
        seed=experiment.seed,
        rank=processes.rank,
        world_size=processes.world_size,
    )


def resume(training: TrainingState, folder: Path, config: dict[str, Any]) -> None:
    """Takes over the newest state of this configuration, or of a shorter training of it."""
    state = load_latest_state(folder, config) or load_shorter_training(folder, config)
    if state is not None:
        training.restore(state)
        training.saved_step = training.step
        log.info("resuming after step %d", training.step)


def log_step(
    training: TrainingState, data: TrainingData, rate: float, tracker: Tracker, processes: Processes
) -> str:
    """Logs the mean since the last log; returns it as text."""
    mse = check_finite_loss(training, data, processes) / training.experiment.train.log_every
    training.loss_sum.zero_()
    psnr = -10 * math.log10(max(mse, 1e-10))
    training.curve.append((training.step, psnr, rate))
    values = {"train/mse": mse, "train/psnr": psnr, "train/learning_rate": rate}
    values["train/gradient_norm"] = training.gradient_norm.item()
    values["train/seconds"] = training.seconds  # an axis without the interruptions
    tracker.log_metrics(values, training.step)
    return f"train {psnr:.2f} dB, validation {training.best_psnr:.2f} dB"


def sum_if_known(terms: Sequence[float | None]) -> float | None:
    """Returns a sum; None where a part is not known."""
    known = [part for part in terms if part is not None]
    return sum(known) if len(known) == len(terms) else None


def max_if_known(terms: Sequence[float | None]) -> float | None:
    """Returns a maximum; None where a part is not known."""
    known = [part for part in terms if part is not None]
    return max(known) if len(known) == len(terms) else None


class NotFiniteError(UserError):
    """The training has diverged; the text names the step, its scenes and the last good state."""


def check_finite_loss(training: TrainingState, data: TrainingData, processes: Processes) -> float:
    """Returns the sum since the last log; raises NotFiniteError, so that no bad state is saved."""
    loss, bad = processes.mean(training.loss_sum), int(training.first_bad.item())
    bads = [step for step in processes.gather(bad) if step != NO_STEP]
    if not bads and math.isfinite(loss):
        return loss
    step = min(bads, default=training.step)
    sampler = make_sampler(training.experiment, processes)
    drawn = sampler.batch_indices(data.train, step - 1).scene.tolist()
    raise NotFiniteError(
        f"{training.experiment.name}: the loss or a gradient of step {step} is not finite; its"
        f" scenes were {', '.join(data.train.names[scene] for scene in drawn[:NAMED_SCENES])}"
        f"{f' and {len(drawn) - NAMED_SCENES} more' if len(drawn) > NAMED_SCENES else ''}. The last"
        f" good state is of step {training.saved_step}: look at these scenes, lower"
        " train.learning_rate or set train.clip_norm, then run again"
    )


def validate(
    training: TrainingState, data: TrainingData, tracker: Tracker, processes: Processes
) -> None:
    """Measures full validation images and keeps the weights if they are the best so far."""
    with training.with_average_weights():
        psnr = measure_validation(training, data, processes)
        training.validation.append((training.step, psnr))
        tracker.log_metrics({"validation/psnr": psnr}, training.step)
        if psnr > training.best_psnr:
            training.best_psnr, training.best_step = psnr, training.step
            weights = training.model.state_dict()
            training.best = {name: value.detach().clone() for name, value in weights.items()}


def measure_validation(training: TrainingState, data: TrainingData, processes: Processes) -> float:
    """Returns the PSNR of full validation images at fixed views, by protocol `stelzner`."""
    train, scenes = training.experiment.train, data.validation
    view_config = make_view_config(training.experiment)
    items = protocol_items(scenes, "stelzner", view_config.input_views, train.validation_items)
    rows = evaluate_items(
        training.model,
        scenes,
        items,
        "stelzner",
        mean_colour=None,
        lpips=None,
        view_config=view_config,
        rays_per_group=train.rays_per_group,
        processes=processes,
        mixed_precision=True,
    )
    return float(sum(row["psnr"] for row in rows) / len(rows))


def log_pictures(
    training: TrainingState, data: TrainingData, tracker: Tracker, processes: Processes
) -> None:
    """Logs inputs, targets, predictions and errors of a few training and validation scenes."""
    if not processes.main:
        return
    view_config = make_view_config(training.experiment)
    for split, scenes in (("validation", data.validation), ("train", data.train)):
        image = compare_views(
            training.model,
            scenes,
            protocol_items(scenes, "stelzner", view_config.input_views, PICTURED_SCENES),
            view_config=view_config,
            rays_per_group=training.experiment.train.rays_per_group,
            mixed_precision=True,
        )
        tracker.log_image(f"views/{split}", image, training.step)


@contextlib.contextmanager
def progress_bar(done: int, steps: int, name: str, processes: Processes) -> Iterator[Any]:
    """Shows steps, rate and the time left, in the main process."""
    from tqdm import tqdm

    with tqdm(
        total=steps,
        initial=done,
        desc=f"train {name}",
        unit="step",
        disable=not processes.main,
        mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds: a log keeps every line
    ) as bar:
        yield bar


def learning_curve(training: TrainingState) -> str:
    """Returns history.csv: no time and no run in it, so the same training writes the same bytes."""
    validation = dict(training.validation)
    rows = {step: (psnr, rate) for step, psnr, rate in training.curve}
    lines = ["step,train_psnr,learning_rate,validation_psnr"]
    for step in sorted(rows.keys() | validation.keys()):
        psnr, rate = (f"{value:.6g}" for value in rows[step]) if step in rows else ("", "")
        measured = f"{validation[step]:.6g}" if step in validation else ""
        lines.append(f"{step:.0f},{psnr},{rate},{measured}")
    return "\n".join(lines) + "\n"


def learning_rate(step: int, config: TrainConfig) -> float:
    """Returns the learning rate of a step; step 0 has none (stelzner/srt, train.py)."""
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    decays = (step - config.warmup_steps) / (config.decay_steps or config.steps)
    return float(config.learning_rate * config.decay_rate**decays)
