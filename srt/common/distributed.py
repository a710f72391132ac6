"""Several processes of one training, started by torchrun on one node or many, and how they stop.

Each process has one GPU and an equal share of every batch. `Processes` lets them talk about single
values, `Reduction` adds up their gradients, and `StopRequest` ends a training in good order.
"""

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

# How many numbers make a message. Few large messages are faster than many small ones, but the first
# message should leave early.
BUCKET = 8_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Single values are exchanged over gloo (`control`), gradients over NCCL if there are GPUs. All
    processes must call the methods that exchange something, in the same order.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None  # None: this process is alone

    @property
    def main(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def reduction(self, parameters: Iterable[Tensor]) -> Reduction | None:
        """Return a `Reduction` of these parameters' gradients, or None for a process alone."""
        return Reduction(parameters, self.world_size) if self.world_size > 1 else None

    def mean(self, value: Tensor) -> float:
        """Return the mean of a value over the processes, whose shares of a batch are equal."""
        return sum(self.gather(value.item())) / self.world_size

    def any(self, flag: bool) -> bool:
        """Return True in every process if the flag is set in any of them."""
        if self.world_size == 1:
            return flag

        # A sum over the processes: it is 0 if none has the flag.
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, group=self.control)
        return bool(flags.item())

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, ordered by rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def leave(self) -> None:
        """Take this process out of the group."""
        if self.world_size > 1:
            dist.destroy_process_group()


class Reduction:
    """Replaces each gradient by its sum over the processes, once in a step.

    A step has several backward passes, because it works in groups of rays. In the last pass the
    gradients become final one by one. They are sent in buckets while the pass goes on, so that its
    computation hides the network.

    The sum is written to where the gradient is, without a copy and without a division: both
    together would take nearly half as long as sending by NVLink. (`compute_gradients` divides the
    loss by the number of processes instead.) On a GPU all of this can be recorded in a CUDA graph.
    """

    def __init__(self, parameters: Iterable[Tensor], world_size: int) -> None:
        self.parameters, self.world_size = list(parameters), world_size
        self._ready: list[Tensor] = []  # parameters whose gradients are final, but not sent
        self._pending: list[tuple[dist.Work, list[Tensor]]] = []  # messages and their parameters
        self._in_last_backward = False

        # PyTorch calls the hook when a backward pass has completed a parameter's gradient.
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self._on_gradient)

    @contextlib.contextmanager
    def last_backward(self) -> Iterator[None]:
        """Within this context runs the last backward pass of the step, then the sums are complete.

        On leaving the context, every parameter has its gradient of all processes.
        """
        # The hooks send gradients from here on: no later pass adds to them.
        self._in_last_backward = True
        yield
        self._in_last_backward = False

        # Send what did not fill a bucket, and what an earlier pass completed.
        self._send([*self._ready, *self._missed_parameters()])

        # Wait until all sums have arrived. On a GPU only its stream waits, not this process.
        for work, _ in self._pending:
            work.wait()
        self._pending = []

    def _missed_parameters(self) -> list[Tensor]:
        """Return the parameters with gradients that the last pass did not come by."""
        complete = {id(parameter) for _, bucket in self._pending for parameter in bucket}
        complete |= {id(parameter) for parameter in self._ready}
        return [p for p in self.parameters if p.grad is not None and id(p) not in complete]

    def _on_gradient(self, parameter: Tensor) -> None:
        """Send a bucket as soon as it is full."""
        if not self._in_last_backward:
            return
        self._ready.append(parameter)
        if sum(ready.numel() for ready in self._ready) >= BUCKET:
            self._send(self._ready)

    def _send(self, bucket: list[Tensor]) -> None:
        """Start to add up the gradients of some parameters over the processes."""
        self._ready = []
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        if not gradients:
            return

        # One message for all of them. The default operation is a sum, and the call does not wait.
        group = dist.group.WORLD
        assert group is not None  # `join_processes` has made it
        options = dist.AllreduceCoalescedOptions()
        self._pending.append((group.allreduce_coalesced(gradients, options), bucket))


def describe_cpu(threads: int) -> str:
    """Return the name of this machine's processor, such as `x86_64 CPU, 2 threads`."""
    unit = "threads" if threads > 1 else "thread"
    return f"{platform.machine()} CPU, {threads} {unit}"


def join_processes() -> Processes:
    """Join the processes that torchrun has started, and return this process among them.

    Without torchrun, the process is alone.
    """
    # torchrun tells each process by environment variables how many there are.
    device = choose_device()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Processes(0, 1, device, None)

    # Two groups: the default one for gradients, and one for values that are on the host.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    control = dist.new_group(backend="gloo")
    return Processes(dist.get_rank(), world_size, device, control)


def choose_device() -> torch.device:
    """Return this process' device: each process of a node has one of the node's GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


class StopRequest:
    """True once this process was asked to stop: by SIGTERM (a cluster's notice) or SIGINT.

    The training then saves its state and ends. The second signal kills it at once.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal; 0: none has come
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def __bool__(self) -> bool:
        return self.number > 0

    def _request(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal and let the next one have its usual effect."""
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(number).name
        log.warning("%s: saving the state and stopping after this step", name)
