"""This process and its parent: what it computes on, and what happens when the parent dies."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

if TYPE_CHECKING:
    import torch


def cpus() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_device() -> torch.device:
    """Returns the GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def shared_device() -> torch.device:
    """Returns one of the GPUs, by the number of this process: so those of a pool share them out."""
    import torch

    count = torch.cuda.device_count()
    return torch.device("cuda", os.getpid() % count) if count else torch.device("cpu")


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies, so that nothing is orphaned.

    SIGKILL, since an orphan must not go on to write: what is lost is what any kill loses.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # it died while this process started
            os._exit(1)


def in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yields each job's result, in the jobs' order, and shows how far it has come."""
    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker) as pool:
        done = pool.map(work, jobs, chunksize=4)
        yield from tqdm(done, total=len(jobs), desc="synthetic scenes", unit="scene")


def start_worker() -> None:
    """Prepares a process of a pool."""
    torch.set_num_threads(1)  # the workers are the threads; and then they all round alike
    die_with_parent()
