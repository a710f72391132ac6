"""Start one process for each GPU, on one machine or on all nodes of a Slurm job.

Training and evaluation are started as one process. Where there are several GPUs, that process
becomes torchrun, which starts the same command once for each of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import torch

from srt.common.distributed import Processes, join_processes
from srt.common.errors import UserError
from workflow.common.gpus import claim_gpus


def start_processes(module: str) -> Processes:
    """Start one process for each GPU that this job may use, and return them, in all of them."""
    claim_gpus()
    start_torchrun(module)
    return join_processes()


def start_torchrun(module: str) -> None:
    """Become torchrun with one process for each visible GPU; return where one process is enough.

    In a Slurm job of several nodes torchrun starts on each of them, and they meet at this one.

    Args:
        module: that the processes run, with the arguments of this process.
    """
    # torchrun sets this variable, so this is one of its processes already.
    if "WORLD_SIZE" in os.environ:
        return
    job = os.environ.get("SLURM_JOB_ID")
    gpus = torch.cuda.device_count()
    nodes = slurm_nodes(job) if job else 1
    if gpus < 2 and nodes < 2:
        return

    # This process is replaced: whoever started it waits for torchrun now, and can stop it.
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={max(gpus, 1)}"]
    command = on_all_nodes(command, job, nodes) if job and nodes > 1 else [*command, "--standalone"]
    os.execvp(command[0], [*command, "-m", module, *sys.argv[1:]])


def on_all_nodes(torchrun: list[str], job: str, nodes: int) -> list[str]:
    """Return the command that starts torchrun on each node of a Slurm job."""
    # Jobs may share a node, so the number of the job chooses the port.
    address = f"{socket.gethostname()}:{20000 + int(job) % 10000}"
    meeting = ["--rdzv-backend=c10d", f"--rdzv-id={job}", f"--rdzv-endpoint={address}"]

    # srun starts one torchrun on each node; where one fails, it ends the others.
    tasks = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return ["srun", *tasks, "--kill-on-bad-exit=1", *torchrun, f"--nnodes={nodes}", *meeting]


def slurm_nodes(job: str) -> int:
    """Return how many nodes a Slurm job has.

    Slurm is asked, because inside a step of the job its variables may name fewer nodes.
    """
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%D"]
    try:
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"SLURM_JOB_ID is {job}, but Slurm does not answer ({error}); unset it to train on this"
            " machine alone"
        ) from error
    return int(result.stdout)
