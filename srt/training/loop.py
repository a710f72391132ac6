"""The training loop. `fit` is the whole of it, to be read from top to bottom.

One step of training is:

1. Draw a batch from (seed, step) alone: scenes, input views and target rays
   (srt/data/sampling.py).
2. Predict the colours of the rays, and compute the gradients of the squared error, in groups of
   rays (srt/training/gradients.py).
3. Set the learning rate, and let Adam update the weights (srt/training/state.py).

Some steps are followed by a log, a validation, pictures or a save, always in this order. A saved
state therefore has everything that its step has brought.

A training can be killed at any time. The same command then goes on from the last saved state, and
repeats the steps after it. Since batches depend on the step alone, and the state has all the rest,
the result on a CPU is bit for bit that of a training that was never stopped.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from srt.common.distributed import Processes, StopRequest
from srt.common.errors import UserError
from srt.config.schema import Experiment, TrainConfig
from srt.data.batch import Batch, make_view_config
from srt.data.prefetch import iterate_batches
from srt.data.sampling import Sampler
from srt.model.decoder import uniforms_per_ray
from srt.tracking.tracker import Tracker
from srt.training.cuda_graph import Step, make_step
from srt.training.energy import CostMeter
from srt.training.monitoring import (
    TrainingData,
    describe_progress,
    log_pictures,
    measure_validation,
    progress_bar,
    validate,
)
from srt.training.state import NO_STEP, TrainingState
from srt.training.states import load_latest_state, load_shorter_training, save_state

# How many scenes of a step that is not finite the error names.
SCENES_IN_ERROR = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Requests:
    """What the user wants of this call beyond the configuration. It does not change the result."""

    stop_after: int | None = None  # save and stop when so many steps are done
    validate_now: bool = False  # before the first step
    picture_now: bool = False  # before the first step


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
    """Train an experiment and return it after `train.steps` steps, or earlier if it has to stop.

    Args:
        config: everything that the training depends on; states in `folder` must have the same.
        folder: of the resume states, locked by this training.
    """
    # Go on from the last saved state. What was logged after it is dropped: it will be logged again.
    train = experiment.train
    training = TrainingState(experiment, processes.device)
    resume(training, folder, config)
    tracker.rewind(training.step)

    # Prepare what every step needs: its batch, its gradients, and their sum over the processes.
    sampler = make_sampler(experiment, processes)
    reduction = processes.reduction(training.model.parameters())
    compute_step = make_step(training.model, processes.device, train.rays_per_group, reduction)
    costs = CostMeter(training, processes)
    look_before_first_step(training, data, tracker, processes, requests)

    end = min(train.steps, requests.stop_after or train.steps)
    with progress_bar(training.step, end, experiment.name, processes) as bar:
        for batch in iterate_batches(sampler, data.train, training.step, end):
            # Update the weights. A step counts as done from here on.
            rate = learning_rate(training.step, train)
            training.loss_sum += train_step(training, compute_step, batch, rate)
            training.step += 1
            bar.update()

            # A stop signal may reach the processes at different steps, but all must stop together:
            # the rest would wait forever for the gradients of one that has left.
            last = training.step == end
            stopping = processes.any(bool(stop))

            # Look at the training from time to time, and save it last.
            if training.step % train.log_every == 0:
                costs.measure_seconds()
                log_step(training, data, rate, tracker, processes)
            if training.step % train.validate_every == 0:
                validate(training, data, tracker, processes)
            bar.set_postfix_str(describe_progress(training), refresh=False)
            if training.step % train.picture_every == 0 or last:
                log_pictures(training, data, tracker, processes)
            if training.step % train.checkpoint_every == 0 or last or stopping:
                costs.measure()
                save(training, data, folder, config, tracker, processes)
            if stopping:
                break
    return training


def resume(training: TrainingState, folder: Path, config: dict[str, Any]) -> None:
    """Load the newest state of this configuration, or of a shorter training of it, if any."""
    state = load_latest_state(folder, config) or load_shorter_training(folder, config)
    if state is not None:
        training.restore(state)
        training.saved_step = training.step
        log.info("resuming after step %d", training.step)


def make_sampler(experiment: Experiment, processes: Processes) -> Sampler:
    """Return the sampler that draws this process' share of every batch."""
    return Sampler(
        batch_size=experiment.train.batch_size,
        rays_per_scene=experiment.train.rays_per_scene,
        uniforms_per_ray=uniforms_per_ray(experiment.model),
        view_config=make_view_config(experiment),
        seed=experiment.seed,
        rank=processes.rank,
        world_size=processes.world_size,
    )


def look_before_first_step(
    training: TrainingState,
    data: TrainingData,
    tracker: Tracker,
    processes: Processes,
    requests: Requests,
) -> None:
    """Measure and show the model as it is now, if the user wants to see it."""
    if requests.validate_now:
        log.info("validation: %.4f dB", measure_validation(training, data, processes))
    if requests.picture_now:
        log_pictures(training, data, tracker, processes)


def train_step(
    training: TrainingState,
    compute_step: Step,
    batch: Batch,
    rate: float,
) -> Tensor:
    """Update the weights once and return the loss, on the device, without waiting for it.

    Args:
        compute_step: what `make_step` returns.
        rate: the learning rate.
    """
    # Gradients are added to those of the parameters, so there must be none from the last step.
    training.optimizer.zero_grad(set_to_none=True)
    loss = compute_step(batch)
    training.update(rate, loss)
    return loss


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate at a step: a linear warm-up, then an exponential decay.

    The schedule is that of stelzner/srt, train.py. It begins with a rate of 0.

    Args:
        step: how many steps have been done before.
    """
    # Warm up from 0 to the peak.
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps

    # Decay exponentially: by `decay_rate` in every `decay_steps` steps.
    since_peak = step - config.warmup_steps
    decays = since_peak / (config.decay_steps or config.steps)
    return float(config.learning_rate * config.decay_rate**decays)


def log_step(
    training: TrainingState, data: TrainingData, rate: float, tracker: Tracker, processes: Processes
) -> None:
    """Log the mean loss of the steps since the last log, and its PSNR.

    Args:
        rate: the learning rate of the last step.
    """
    # Take the mean over the steps since the last log and over all processes, and begin a new sum.
    mse = check_finite_loss(training, data, processes) / training.experiment.train.log_every
    training.loss_sum.zero_()
    psnr = -10 * math.log10(max(mse, 1e-10))
    training.curve.append((training.step, psnr, rate))

    # The seconds make a time axis without the interruptions.
    values = {"train/mse": mse, "train/psnr": psnr, "train/learning_rate": rate}
    values["train/gradient_norm"] = training.gradient_norm.item()
    values["train/seconds"] = training.seconds
    tracker.log_metrics(values, training.step)


def save(
    training: TrainingState,
    data: TrainingData,
    folder: Path,
    config: dict[str, Any],
    tracker: Tracker,
    processes: Processes,
) -> None:
    """Save the training's state, unless its loss is not finite, and send MLflow what was logged."""
    # Every process will resume with the sum that the main process saves, so make it their mean.
    training.loss_sum.fill_(check_finite_loss(training, data, processes))
    if not processes.main:
        return

    # Once the state is saved, these steps will not be repeated: their logs are final.
    save_state(folder, training.state(), config)
    training.saved_step = training.step
    tracker.release()
    tracker.deliver_in_background()


class NotFiniteError(UserError):
    """The training has diverged. The text names the step, its scenes and the last good state."""


def check_finite_loss(training: TrainingState, data: TrainingData, processes: Processes) -> float:
    """Return the sum of the losses since the last log, as the mean over the processes.

    This waits for the device, so it is called only before a log and before a save.

    Raises:
        NotFiniteError: the loss or a gradient of a step was not finite in any process.
    """
    # Exchange the sums and the first bad steps, so that all processes raise the error together.
    loss = processes.mean(training.loss_sum)
    first_bad_step = int(training.first_bad_step.item())
    bad_steps = [step for step in processes.gather(first_bad_step) if step != NO_STEP]
    if not bad_steps and math.isfinite(loss):
        return loss

    # Name the scenes of that step, because one of them may be faulty.
    step = min(bad_steps, default=training.step)
    names = scene_names(training, data, step, processes)
    raise NotFiniteError(
        f"{training.experiment.name}: the loss or a gradient of step {step} is not finite; its"
        f" scenes were {names}. The last good state is of step {training.saved_step}: look at these"
        " scenes, lower train.learning_rate or set train.clip_norm, then run again"
    )


def scene_names(
    training: TrainingState, data: TrainingData, step: int, processes: Processes
) -> str:
    """Return the first names of this process' scenes of a step, and how many more there are."""
    # Batches depend on the step alone, so that of an earlier step can be drawn again.
    sampler = make_sampler(training.experiment, processes)
    scenes = sampler.batch_indices(data.train, step - 1).scene.tolist()
    names = ", ".join(data.train.names[scene] for scene in scenes[:SCENES_IN_ERROR])
    if len(scenes) > SCENES_IN_ERROR:
        names += f" and {len(scenes) - SCENES_IN_ERROR} more"
    return names
