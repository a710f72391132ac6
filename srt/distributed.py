"""Several processes of one training, under torchrun, on one node or many; and how they stop."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. Control goes over gloo, gradients over NCCL on GPUs."""

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None

    @property
    def main(self) -> bool:
        """True in the process that writes."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces each gradient by its mean over the processes: one reduction a step."""
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: Tensor) -> float:
        """Returns the mean over the processes of a value that each has for its equal share."""
        return sum(self.gather(value.item())) / self.world_size

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process; all get the same answer."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, group=self.control)
        return bool(flags.item())

    def gather(self, value: Any) -> list[Any]:
        """Returns every process' value, by rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def leave(self) -> None:
        """Takes this process out of the group."""
        if self.world_size > 1:
            dist.destroy_process_group()


def best_device() -> torch.device:
    """Returns the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def join_processes() -> Processes:
    """Returns this process' place among those that torchrun started, or alone."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world_size == 1:
        return Processes(0, 1, device, None)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    control = dist.new_group(backend="gloo")
    return Processes(dist.get_rank(), world_size, device, control)


class StopRequest:
    """Set by SIGTERM (a cluster's notice) or SIGINT: training saves and ends. A second kills."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def __bool__(self) -> bool:
        return self.number > 0

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(number).name
        log.warning("%s: saving the state and stopping after this step", name)
