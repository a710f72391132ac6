"""The training loop, read top to bottom: batch, gradients in groups of rays, step, log, save.

A step counts as done once its weights are updated. At a step that is due for several things the
order is: log, validate, picture, save; so a saved state has seen all that its step brought.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srt.checkpoint import State, load_latest_state, load_shorter_training, save_state
from srt.config import Experiment
from srt.data.loading import batches
from srt.data.sampling import Batch, Sampler, presentation
from srt.data.scenes import Scenes
from srt.distributed import Processes, StopRequest
from srt.evaluation import comparison, evaluate_items, protocol_items
from srt.models import SRT, build_model
from srt.models.decoder import draws_per_ray
from srt.schedule import learning_rate
from srt.tracking import Tracker

PICTURED_SCENES = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """The packed splits that a training reads."""

    train: Scenes
    validation: Scenes


@dataclass(frozen=True)
class Requests:
    """What the user asks of this call beyond its configuration."""

    stop_after: int | None = None
    validate_now: bool = False
    picture_now: bool = False


class Training:
    """A model, its optimiser and its curves at a step; goes to and from a `State`."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.experiment = experiment
        self.device = device
        self.model = build_model(experiment.model, experiment.seed).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=device.type == "cuda")
        self.step = 0
        self.seconds = 0.0
        self.best_step = 0
        self.best_psnr = -math.inf
        self.best: dict[str, Tensor] = {}
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # since the last log
        self.curve: list[tuple[float, float, float]] = []  # step, training PSNR, learning rate
        self.validation: list[tuple[float, float]] = []  # step, PSNR

    def state(self) -> State:
        """Returns everything that the next steps depend on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["loss_sum"] = self.loss_sum
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float64).view(-1, 3)
        tensors["validation"] = torch.tensor(self.validation, dtype=torch.float64).view(-1, 2)
        progress = {name: getattr(self, name) for name in ("step", "seconds", "best_step")}
        return State(tensors, {**progress, "best_psnr": self.best_psnr})

    def restore(self, state: State) -> None:
        """Takes over a state, exactly."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value.to(self.device)
                for name, value in state.tensors.items()
                if name.startswith(prefix)
            }

        self.model.load_state_dict(part("model."))
        self.best = part("best.")
        moments = {key: part(f"optimizer.{key}.") for key in ("exp_avg", "exp_avg_sq", "step")}
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {key: moments[key][name] for key in moments}
        for name, parameter in self.model.named_parameters():
            if self.device.type == "cpu":  # where Adam counts on the host
                self.optimizer.state[parameter]["step"] = moments["step"][name].cpu()
        self.loss_sum = state.tensors["loss_sum"].to(self.device)
        self.curve = [tuple(row) for row in state.tensors["curve"].tolist()]
        self.validation = [tuple(row) for row in state.tensors["validation"].tolist()]
        for name, value in state.progress.items():
            setattr(self, name, value)


def fit(
    experiment: Experiment,
    config: dict[str, Any],
    data: Data,
    folder: Path,
    tracker: Tracker,
    processes: Processes,
    stop: StopRequest,
    requests: Requests,
) -> Training:
    """Returns the training as far as it went: `train.steps`, or less if it was told to stop.

    Args:
        config: what the resume states in `folder` must have been made with.
    """
    train, training = experiment.train, Training(experiment, processes.device)
    resume(training, folder, config)
    tracker.rewind(training.step)
    sampler = make_sampler(experiment, processes)
    decode = compiled_decoder(training.model, processes.device)
    started, saved_seconds = time.monotonic(), training.seconds
    if requests.validate_now:
        log.info("validation: %.4f dB", measure_validation(training, data, processes))
    if requests.picture_now:
        picture(training, data, tracker, processes)

    end = min(train.steps, requests.stop_after or train.steps)
    with progress_bar(training.step, end, experiment.name, processes) as bar:
        for batch in batches(sampler, data.train, training.step, end):
            rate = learning_rate(training.step, train)
            training.loss_sum += train_step(training, decode, batch, rate, processes)
            training.step += 1
            bar.update()

            last = training.step == end
            stopping = processes.any(bool(stop))
            if training.step % train.log_every == 0:
                bar.set_postfix_str(log_step(training, rate, tracker, processes))
            if training.step % train.validate_every == 0:
                validate(training, data, tracker, processes)
            if training.step % train.picture_every == 0 or last:
                picture(training, data, tracker, processes)
            if training.step % train.checkpoint_every == 0 or last or stopping:
                training.seconds = saved_seconds + time.monotonic() - started
                training.loss_sum.fill_(finite_loss(training, processes))
                if processes.main:
                    save_state(folder, training.state(), config)
                    tracker.release()
                    tracker.deliver_in_background()
            if stopping:
                break
    return training


def train_step(
    training: Training, decode: Any, batch: Batch, rate: float, processes: Processes
) -> Tensor:
    """Updates the weights once; returns the loss, on the device: nothing waits for it."""
    training.optimizer.zero_grad(set_to_none=True)
    rays = training.experiment.train.rays_per_group
    loss = accumulate_gradients(training.model, decode, batch, rays)
    processes.average_gradients(training.model.parameters())
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.step()
    return loss


def accumulate_gradients(model: SRT, decode: Any, batch: Batch, rays_per_group: int) -> Tensor:
    """Adds the gradients of the loss; returns the mean squared error of the colours.

    The loss is that error, and where there are coarse colours theirs too. Rays do not see each
    other: they are decoded and back-propagated in groups, into the gradient of the scenes' keys and
    values, and the encoder runs backward once. The gradient is the same as of all rays at once; the
    memory is that of one group.
    """
    with precision(batch.images.device):
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = model.decoder.keys_values(tokens)
    leaves = [
        (key.detach().requires_grad_(), value.detach().requires_grad_())
        for key, value in keys_values
    ]
    mse = torch.zeros((), dtype=torch.float64, device=tokens.device)
    scenes, rays, _ = batch.colours.shape
    most = max(1, rays_per_group // model.decoder.queries_per_ray)
    size = group_size(scenes, rays, most)
    for group, colours in zip(batch.rays.split(size), batch.colours.split(size, dim=1)):
        with precision(colours.device):
            predicted = decode(leaves, group)
        parts = (predicted.colours, predicted.coarse_colours)
        errors = [(part.float() - colours).square().sum() for part in parts if part is not None]
        (sum(errors) / batch.colours.numel()).backward()
        mse += errors[0].detach() / batch.colours.numel()
    flat = [tensor for pair in keys_values for tensor in pair]
    torch.autograd.backward(flat, [leaf.grad for pair in leaves for leaf in pair])
    return mse


def group_size(scenes: int, rays: int, rays_per_group: int) -> int:
    """Returns how many rays of each scene to decode at once: equal groups, of one shape."""
    groups = math.ceil(scenes * rays / rays_per_group)
    while rays % groups:
        groups += 1
        if groups >= rays:
            return 1
    return rays // groups


def precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Products in bfloat16 on a GPU; the ray encoding, norms and loss stay in float32."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.autocast("cuda", torch.bfloat16)


def compiled_decoder(model: SRT, device: torch.device) -> Any:
    """Returns the decoder, fused by the compiler on a GPU: there it is bound by memory traffic."""
    return torch.compile(model.decoder, dynamic=False) if device.type == "cuda" else model.decoder


def make_sampler(experiment: Experiment, processes: Processes) -> Sampler:
    """Returns the sampler of this process' share of every batch."""
    return Sampler(
        batch_size=experiment.train.batch_size,
        rays_per_scene=experiment.train.rays_per_scene,
        draws_per_ray=draws_per_ray(experiment.model),
        shown=presentation(experiment),
        seed=experiment.seed,
        rank=processes.rank,
        world_size=processes.world_size,
    )


def resume(training: Training, folder: Path, config: dict[str, Any]) -> None:
    """Takes over the newest state of this configuration, or of a shorter training of it."""
    state = load_latest_state(folder, config) or load_shorter_training(folder, config)
    if state is not None:
        training.restore(state)
        log.info("resuming after step %d", training.step)


def log_step(training: Training, rate: float, tracker: Tracker, processes: Processes) -> str:
    """Logs the mean since the last log; returns it as text."""
    mse = finite_loss(training, processes) / training.experiment.train.log_every
    training.loss_sum.zero_()
    psnr = -10 * math.log10(max(mse, 1e-10))
    training.curve.append((training.step, psnr, rate))
    values = {"train/mse": mse, "train/psnr": psnr, "train/learning_rate": rate}
    tracker.log_metrics(values, training.step)
    return f"train {psnr:.2f} dB, validation {training.best_psnr:.2f} dB"


def finite_loss(training: Training, processes: Processes) -> float:
    """Returns the sum since the last log; raises FloatingPointError for NaN, so none is saved."""
    loss = processes.mean(training.loss_sum)
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"{training.experiment.name}: the loss is {loss} in the steps before {training.step};"
            " the last saved state is from before: lower train.learning_rate, then run again"
        )
    return loss


def validate(training: Training, data: Data, tracker: Tracker, processes: Processes) -> None:
    """Measures full validation images and keeps the weights if they are the best so far."""
    psnr = measure_validation(training, data, processes)
    training.validation.append((training.step, psnr))
    tracker.log_metrics({"validation/psnr": psnr}, training.step)
    if psnr > training.best_psnr:
        training.best_psnr, training.best_step = psnr, training.step
        weights = training.model.state_dict()
        training.best = {name: value.detach().clone() for name, value in weights.items()}


def measure_validation(training: Training, data: Data, processes: Processes) -> float:
    """Returns the PSNR of full validation images at fixed views, by protocol `stelzner`."""
    train, scenes = training.experiment.train, data.validation
    shown = presentation(training.experiment)
    items = protocol_items(scenes, "stelzner", shown.input_views, train.validation_items)
    with precision(scenes.device):
        rows = evaluate_items(
            training.model,
            scenes,
            items,
            "stelzner",
            mean_colour=(0.0, 0.0, 0.0),
            lpips=None,
            shown=shown,
            rays_per_group=train.rays_per_group,
            processes=processes,
        )
    return float(sum(row["psnr"] for row in rows) / len(rows))


def picture(training: Training, data: Data, tracker: Tracker, processes: Processes) -> None:
    """Logs inputs, targets, predictions and errors of a few training and validation scenes."""
    if not processes.main:
        return
    shown = presentation(training.experiment)
    for split, scenes in (("validation", data.validation), ("train", data.train)):
        with precision(scenes.device):
            image = comparison(
                training.model,
                scenes,
                protocol_items(scenes, "stelzner", shown.input_views, PICTURED_SCENES),
                shown=shown,
                rays_per_group=training.experiment.train.rays_per_group,
            )
        tracker.log_image(f"pictures/{split}", image, training.step)


@contextlib.contextmanager
def progress_bar(done: int, steps: int, name: str, processes: Processes) -> Iterator[Any]:
    """Shows steps, rate and the time left, in the main process."""
    from tqdm import tqdm

    with tqdm(
        total=steps, initial=done, desc=f"train {name}", unit="step", disable=not processes.main
    ) as bar:
        yield bar


def learning_curve(training: Training) -> str:
    """Returns history.csv: no time and no run in it, so the same training writes the same bytes."""
    validation = dict(training.validation)
    rows = {step: (psnr, rate) for step, psnr, rate in training.curve}
    lines = ["step,train_psnr,learning_rate,validation_psnr"]
    for step in sorted(rows.keys() | validation.keys()):
        psnr, rate = (f"{value:.6g}" for value in rows[step]) if step in rows else ("", "")
        measured = f"{validation[step]:.6g}" if step in validation else ""
        lines.append(f"{step:.0f},{psnr},{rate},{measured}")
    return "\n".join(lines) + "\n"
