"""Share the GPUs of a machine among jobs that run side by side: each job sees its own GPUs only.

With `GPUS_PER_JOB=1` in the environment, eight trainings run on eight GPUs. Without it, a job sees
all of them. Snakemake counts GPUs, but does not say which one a job may use (its issue 281).

Each GPU has a file, and the job that holds the lock of the file has the GPU. The system frees the
lock when the process ends, however it ends. A training that becomes torchrun keeps its locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path

import torch

from srt.common.errors import UserError
from srt.common.files import wait_for_lock

VARIABLE = "GPUS_PER_JOB"
SECONDS = 5.0  # between two tries to find a free GPU

log = logging.getLogger(__name__)


def claim_gpus() -> None:
    """Wait for `GPUS_PER_JOB` free GPUs; this process and those it starts see only these.

    Call it before anything uses CUDA, which reads CUDA_VISIBLE_DEVICES only once.

    Raises:
        UserError: there are fewer GPUs than the job needs, or the variable is no number.
    """
    # The processes of torchrun share the GPUs that it has claimed.
    number = os.environ.get(VARIABLE)
    if number is None or "WORLD_SIZE" in os.environ:
        return

    # On a machine without a GPU there is nothing to claim.
    count = parse_count(number)
    visible = visible_gpus()
    if not visible:
        return
    if count > len(visible):
        raise UserError(f"{VARIABLE} is {count}, but {len(visible)} are visible; set it to less")

    # CUDA reads this variable, and all processes that are started from here inherit it.
    names = wait_for_gpus(visible, count)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    log.info("GPU %s", ", ".join(names))


def parse_count(text: str) -> int:
    """Return the number of GPUs that the variable asks for."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{VARIABLE} is {text!r}, not a number of GPUs; set it to 1, for example")
    return int(text)


def visible_gpus() -> list[str]:
    """Return the GPUs that this job may claim, as CUDA names them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is not None:
        return [name.strip() for name in names.split(",") if name.strip()]

    # Counting asks the driver and does not start CUDA.
    return [str(number) for number in range(torch.cuda.device_count())]


def wait_for_gpus(visible: list[str], count: int) -> list[str]:
    """Lock `count` of the GPUs, wait for them if needed, and return their names.

    Only one job searches at a time. Otherwise two jobs could each hold half of what both need.
    """
    folder = Path(tempfile.gettempdir()) / f"srt-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with wait_for_lock(folder / "turn"):
        claimed: list[str] = []
        while True:
            candidates = [name for name in visible if name not in claimed]
            claimed += lock_free_gpus(folder, candidates, count - len(claimed))
            missing = count - len(claimed)
            if not missing:
                return claimed
            names = ", ".join(visible)
            log.info("waiting for %d of the GPUs %s, which other jobs use", missing, names)
            time.sleep(SECONDS)


def lock_free_gpus(folder: Path, names: list[str], count: int) -> list[str]:
    """Lock those of the GPUs that are free, but not more than `count`, and return their names."""
    taken: list[str] = []
    for name in names:
        path = folder / name.replace("/", "-")  # the name of a MIG slice may have a slash
        if len(taken) < count and lock_gpu(path):
            taken.append(name)
    return taken


def lock_gpu(path: Path) -> bool:
    """Lock a file for as long as this process lives, also as another program."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(handle, True)
        return True
    os.close(handle)
    return False
