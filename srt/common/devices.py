"""The processors and devices of this process, its worker processes, and its end with its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

# The number of Linux's prctl option that sets the signal a process gets when its parent dies.
PR_SET_PDEATHSIG = 1


def count_cpus() -> int:
    """Return how many processors this process may use."""
    # A cluster may give a job fewer processors than the machine has. macOS cannot tell.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def shared_device() -> torch.device:
    """Return the GPU that this process of a pool uses, or the CPU if there is no GPU."""
    # The processes of a pool have consecutive ids, more or less, so this spreads them evenly.
    count = torch.cuda.device_count()
    return torch.device("cuda", os.getpid() % count) if count else torch.device("cpu")


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent dies, so that no orphan goes on.

    The signal is SIGKILL, because an orphan must not write anything more. Only Linux can do this;
    elsewhere this function does nothing.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    # If the parent died while this process started, no signal will come.
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def run_in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yield the result of `work` for each job, in the order of the jobs, with a progress bar.

    Args:
        work: runs in the worker processes, so it must be a function that pickle can name.
        workers: the number of processes.
    """
    from tqdm import tqdm

    # "spawn" starts fresh processes. Forked ones would inherit threads and a CUDA that cannot fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker) as pool:
        results = pool.map(work, jobs, chunksize=4)
        yield from tqdm(results, total=len(jobs), desc="synthetic scenes", unit="scene")


def start_worker() -> None:
    """Prepare a process of a pool: it computes with one thread and dies with its parent."""
    # There is a process for each processor already. One thread also makes all of them round in the
    # same way, whatever the number of processors.
    torch.set_num_threads(1)
    die_with_parent()
