"""Several processes of one training, under torchrun, on one node or many; and how they stop."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 8_000_000  # numbers that are sent together: few messages, and the first ones early

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

    def reduction(self, parameters: Iterable[Tensor]) -> Reduction | None:
        """Returns what adds these parameters' gradients; a process alone needs nothing."""
        return Reduction(parameters, self.world_size) if self.world_size > 1 else None

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


class Reduction:
    """Replaces each gradient by its sum over the processes, once a step.

    Gradients of a step's last backward pass are final as they arrive: they are sent in buckets
    while the pass goes on, so that what it computes hides the network. They are added where they
    stand: a copy of them, and a division, take nearly half as long as the sending by NVLink.
    On a GPU all of this can be recorded in a CUDA graph.
    """

    def __init__(self, parameters: Iterable[Tensor], world_size: int) -> None:
        self.parameters, self.world_size = list(parameters), world_size
        self._ready: list[Tensor] = []  # final, and not sent yet
        self._sent: list[tuple[dist.Work, list[Tensor]]] = []
        self._last = False
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    @contextlib.contextmanager
    def last_backward(self) -> Iterator[None]:
        """Within it, a parameter whose gradient arrives has its whole gradient of the step."""
        self._last = True
        yield
        self._last = False
        known = {id(part) for _, parts in self._sent for part in parts}
        known |= {id(part) for part in self._ready}
        earlier = [p for p in self.parameters if p.grad is not None and id(p) not in known]
        self._send([*self._ready, *earlier])
        for work, _ in self._sent:
            work.wait()
        self._sent = []

    def _arrived(self, parameter: Tensor) -> None:
        if self._last:
            self._ready.append(parameter)
            if sum(part.numel() for part in self._ready) >= BUCKET:
                self._send(self._ready)

    def _send(self, parts: list[Tensor]) -> None:
        self._ready = []
        gradients = [part.grad for part in parts if part.grad is not None]
        if gradients:
            everyone = dist.group.WORLD
            assert everyone is not None  # `join_processes` came before
            options = dist.AllreduceCoalescedOptions()  # a sum; nothing waits for it
            self._sent.append((everyone.allreduce_coalesced(gradients, options), parts))


def processor(threads: int) -> str:
    """Returns what computes where there is no GPU, e.g. `x86_64 CPU, 2 threads`."""
    return f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"


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
