"""A training at a step: the model, its optimiser and its curves, and their way to and from disk."""

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

# Stands for "no step" where a step's number is expected.
NO_STEP = -1

# The two moving averages that Adam has of each weight's gradient: of its value and of its square.
MOMENTS = ("exp_avg", "exp_avg_sq")

# The numbers that a resume state has, beside its tensors.
PROGRESS = ("step", "seconds", "joules", "peak_gigabytes", "best_step", "best_psnr")


class TrainingState:
    """A model, its optimiser and its curves at a step; goes to and from a `SavedState`."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.experiment = experiment
        self.device = device

        # The seed gives the model its initial weights. On a GPU, convolutions want their weights
        # channels last; in another layout they would be converted at every step.
        self.model = build_model(experiment.model, experiment.seed).to(device)
        if device.type == "cuda":
            convert_conv2d_weight_memory_format(self.model, torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=True)

        # How many steps are done, how many of them the last saved state has, and what they cost.
        self.step = 0
        self.saved_step = 0
        self.seconds = 0.0
        self.joules: float | None = 0.0  # of all GPUs; None: not measured from the first step on
        self.peak_gigabytes: float | None = 0.0  # of the GPU with the most; None: not measured

        # The weights with the best validation so far. They become the trained model.
        self.best_step = 0
        self.best_psnr = -math.inf
        self.best: dict[str, Tensor] = {}

        # Figures of the steps. They stay on the device, so that nothing waits for it at every step.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # since the last log
        self.gradient_norm = torch.zeros((), device=device)  # of the last step, before clipping
        self.first_bad_step = torch.full((), NO_STEP, device=device)  # not finite

        # The moving average of the weights, if the experiment has one.
        self.ema: dict[str, Tensor] = {}
        if experiment.train.ema_decay is not None:
            self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}

        # The learning curves.
        self.curve: list[tuple[float, float, float]] = []  # step, training PSNR, learning rate
        self.validation: list[tuple[float, float]] = []  # step, PSNR

    def state(self) -> SavedState:
        """Return everything that the next steps depend on."""
        # The weights: the current ones, the best ones and the average.
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.items()}

        # Adam's averages and step, under the names of the parameters.
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value

        # The curves.
        tensors["loss_sum"] = self.loss_sum
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float64).view(-1, 3)
        tensors["validation"] = torch.tensor(self.validation, dtype=torch.float64).view(-1, 2)
        return SavedState(tensors, {name: getattr(self, name) for name in PROGRESS})

    def restore(self, state: SavedState) -> None:
        """Make this training equal to the one that `state` was saved from."""
        # The weights.
        self.model.load_state_dict(self._select(state, "model."))
        self.best = self._select(state, "best.")
        self.ema = self._select(state, "ema.")
        self._restore_optimizer(state)

        # The curves, as lists of tuples again.
        self.loss_sum = state.tensors["loss_sum"].to(self.device)
        self.curve = [tuple(row) for row in state.tensors["curve"].tolist()]
        self.validation = [tuple(row) for row in state.tensors["validation"].tolist()]

        # The numbers. States of older versions have no cost: it then is not known.
        self.joules = self.peak_gigabytes = None
        for name, value in state.progress.items():
            setattr(self, name, value)

    def _select(self, state: SavedState, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix`, on the device, without the prefix."""
        return {
            name.removeprefix(prefix): value.to(self.device)
            for name, value in state.tensors.items()
            if name.startswith(prefix)
        }

    def _restore_optimizer(self, state: SavedState) -> None:
        """Give Adam its averages and steps, and all averages the memory layout of the weights."""
        # A file holds tensors row by row. Here they get the layout of the weights, which Adam gives
        # to averages that it makes itself.
        saved = {key: self._select(state, f"optimizer.{key}.") for key in (*MOMENTS, "step")}
        for name, parameter in self.model.named_parameters():
            averages = {key: match_memory_layout(saved[key][name], parameter) for key in MOMENTS}
            if name in self.ema:
                self.ema[name] = match_memory_layout(self.ema[name], parameter)

            # On a CPU, Adam counts its steps on the host.
            step = saved["step"][name]
            if self.device.type == "cpu":
                step = step.cpu()
            self.optimizer.state[parameter] = {**averages, "step": step}

    def update(self, rate: float, loss: Tensor) -> None:
        """Update the weights by their gradients, and record a step that is not finite.

        Nothing here waits for the device: `first_bad_step` is read when the loss is read.

        Args:
            rate: the learning rate of this step.
            loss: of this step, on the device.
        """
        # Measure the gradients before they are clipped.
        train = self.experiment.train
        parameters = list(self.model.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        self._record_bad_step(loss)

        # Clip the gradients, if the experiment says so, and let Adam update the weights.
        if train.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, train.clip_norm, self.gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

        # average = decay * average + (1 - decay) * weights, for all weights in one call.
        if train.ema_decay is not None:
            averages = [self.ema[name] for name, _ in self.model.named_parameters()]
            weights = [parameter.detach() for parameter in parameters]
            torch._foreach_lerp_(averages, weights, 1 - train.ema_decay)

    def _record_bad_step(self, loss: Tensor) -> None:
        """Record the step that is being done, if it is the first one that is not finite."""
        # A norm is finite only if all gradients are. No `if` here: it would wait for the device.
        bad = ~(torch.isfinite(self.gradient_norm) & torch.isfinite(loss))
        bad_step = torch.where(bad, self.step + 1, NO_STEP).to(self.first_bad_step)
        self.first_bad_step = torch.where(
            self.first_bad_step == NO_STEP, bad_step, self.first_bad_step
        )

    @contextlib.contextmanager
    def with_average_weights(self) -> Iterator[None]:
        """Within this context the model has its average weights, if the experiment has them."""
        # Without an average, `ema` is empty and nothing is exchanged.
        parameters = dict(self.model.named_parameters())
        current = {name: parameters[name].detach().clone() for name in self.ema}
        self._set_weights(parameters, self.ema)
        try:
            yield
        finally:
            self._set_weights(parameters, current)

    @torch.no_grad()
    def _set_weights(self, parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
        """Copy values into the memory of the parameters of the same names."""
        for name, value in values.items():
            parameters[name].copy_(value)


def match_memory_layout(values: Tensor, parameter: Tensor) -> Tensor:
    """Return a copy of `values` whose memory is in the order of the parameter's memory."""
    return torch.empty_like(parameter).copy_(values)
