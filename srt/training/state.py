"""A training at a step: the model, its optimiser, its curves; and the state that resumes it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from srt.config.schema import Experiment
from srt.model.srt import build_model
from srt.training.states import SavedState

NO_STEP = -1  # no step
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam averages for each weight


class TrainingState:
    """A model, its optimiser and its curves at a step; goes to and from a `SavedState`."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.experiment = experiment
        self.device = device
        self.model = build_model(experiment.model, experiment.seed).to(device)
        if device.type == "cuda":  # else convolutions' weights are turned over at every step
            convert_conv2d_weight_memory_format(self.model, torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=True)
        self.step = 0
        self.saved_step = 0  # of the state on disk
        self.seconds = 0.0
        self.joules: float | None = 0.0  # of all GPUs; None: not measured from the first step on
        self.peak_gigabytes: float | None = 0.0  # of the GPU that had the most; None: likewise
        self.best_step = 0
        self.best_psnr = -math.inf
        self.best: dict[str, Tensor] = {}
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # since the last log
        self.gradient_norm = torch.zeros((), device=device)  # of the last step, before clipping
        self.first_bad = torch.full((), NO_STEP, device=device)  # step whose update was not finite
        self.ema: dict[str, Tensor] = {}  # the weights' moving average, where there is one
        if experiment.train.ema_decay is not None:
            self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.curve: list[tuple[float, float, float]] = []  # step, training PSNR, learning rate
        self.validation: list[tuple[float, float]] = []  # step, PSNR

    def state(self) -> SavedState:
        """Returns everything that the next steps depend on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["loss_sum"] = self.loss_sum
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float64).view(-1, 3)
        tensors["validation"] = torch.tensor(self.validation, dtype=torch.float64).view(-1, 2)
        kept = ("step", "seconds", "joules", "peak_gigabytes", "best_step")
        progress = {name: getattr(self, name) for name in kept}
        return SavedState(tensors, {**progress, "best_psnr": self.best_psnr})

    def restore(self, state: SavedState) -> None:
        """Takes over a state, exactly."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value.to(self.device)
                for name, value in state.tensors.items()
                if name.startswith(prefix)
            }

        self.model.load_state_dict(part("model."))
        self.best, self.ema = part("best."), part("ema.")
        moments = {key: part(f"optimizer.{key}.") for key in (*MOMENTS, "step")}
        for name, parameter in self.model.named_parameters():
            averages = {key: match_memory_layout(moments[key][name], parameter) for key in MOMENTS}
            step = moments["step"][name]
            if self.device.type == "cpu":  # where Adam counts on the host
                step = step.cpu()
            self.optimizer.state[parameter] = {**averages, "step": step}
            if name in self.ema:
                self.ema[name] = match_memory_layout(self.ema[name], parameter)
        self.loss_sum = state.tensors["loss_sum"].to(self.device)
        self.curve = [tuple(row) for row in state.tensors["curve"].tolist()]
        self.validation = [tuple(row) for row in state.tensors["validation"].tolist()]
        self.joules = self.peak_gigabytes = None  # states of older versions do not have them
        for name, value in state.progress.items():
            setattr(self, name, value)

    def update(self, rate: float, loss: Tensor) -> None:
        """Changes the weights by their gradients, and notes a step that is not finite.

        Nothing waits for the device here: `first_bad` is read when the loss is.
        """
        train, parameters = self.experiment.train, list(self.model.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        bad = ~(torch.isfinite(self.gradient_norm) & torch.isfinite(loss))
        here = torch.where(bad, self.step + 1, NO_STEP).to(self.first_bad)
        self.first_bad = torch.where(self.first_bad == NO_STEP, here, self.first_bad)
        if train.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, train.clip_norm, self.gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if train.ema_decay is not None:
            averages = [self.ema[name] for name, _ in self.model.named_parameters()]
            weights = [parameter.detach() for parameter in parameters]
            torch._foreach_lerp_(averages, weights, 1 - train.ema_decay)

    @contextlib.contextmanager
    def with_average_weights(self) -> Iterator[None]:
        """Gives the model its average weights for a while, where there are any."""
        parameters = dict(self.model.named_parameters())
        current = {name: parameters[name].detach().clone() for name in self.ema}
        self._put(parameters, self.ema)
        try:
            yield
        finally:
            self._put(parameters, current)

    @torch.no_grad()
    def _put(self, parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            parameters[name].copy_(value)


def match_memory_layout(values: Tensor, parameter: Tensor) -> Tensor:
    """Returns values in the order in memory that a parameter's have."""
    return torch.empty_like(parameter).copy_(values)
