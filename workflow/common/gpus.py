"""Jobs side by side on one machine: each sees GPUs that no other job has.

With `GPUS_PER_JOB=1` in the environment, eight trainings run on eight GPUs; without it a job sees
all of them. Snakemake counts GPUs, but does not say which one a job has (its issue 281). A GPU is
had by whoever holds the lock of its file, which the system takes from a process that dies;
torchrun, which a training becomes, keeps it.
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
SECONDS = 5.0  # between two looks for a free GPU

log = logging.getLogger(__name__)


def claim_gpus() -> None:
    """Has this process, and what it becomes or starts, see its own GPUs alone; waits for them.

    To be called before anything asks CUDA.

    Raises:
        UserError: where more are asked for than there are.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None or "WORLD_SIZE" in os.environ:  # torchrun's processes share what it has
        return
    if not asked.isdecimal() or int(asked) < 1:
        raise UserError(f"{VARIABLE} is {asked!r}, not a number of GPUs; set it to 1, say")
    visible, count = visible_gpus(), int(asked)
    if not visible:  # nothing to share
        return
    if count > len(visible):
        raise UserError(f"{VARIABLE} is {count}, but {len(visible)} are visible; set it to less")
    taken = wait_for_gpus(visible, count)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    log.info("GPU %s", ", ".join(taken))


def visible_gpus() -> list[str]:
    """Returns the GPUs that jobs of this user may take, as CUDA names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def wait_for_gpus(visible: list[str], count: int) -> list[str]:
    """Returns so many of the GPUs, locked; one job looks at a time: no two wait with half."""
    folder = Path(tempfile.gettempdir()) / f"srt-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with wait_for_lock(folder / "turn"):
        taken: list[str] = []
        while True:
            for name in visible:
                path = folder / name.replace("/", "-")  # which a MIG slice's name may hold
                if len(taken) < count and name not in taken and lock_gpu(path):
                    taken.append(name)
            if len(taken) == count:
                return taken
            log.info("all of %s taken: waiting for %d", ", ".join(visible), count - len(taken))
            time.sleep(SECONDS)


def lock_gpu(path: Path) -> bool:
    """Locks a file for as long as this process lives, also as another program."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(handle, True)
        return True
    os.close(handle)
    return False
