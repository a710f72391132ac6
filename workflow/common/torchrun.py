"""One command, as many processes as there are GPUs: on one machine, or over a Slurm job's nodes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import torch

from srt.common.errors import UserError


def start_torchrun(module: str) -> None:
    """Becomes torchrun, one process for each visible GPU; returns where that is not needed.

    In a Slurm job of several nodes torchrun starts on each of them, and they meet at this one.
    """
    if "WORLD_SIZE" in os.environ:  # torchrun has started this process
        return
    job = os.environ.get("SLURM_JOB_ID")
    gpus, nodes = torch.cuda.device_count(), slurm_nodes(job) if job else 1
    if gpus < 2 and nodes < 2:
        return
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={max(gpus, 1)}"]
    if job and nodes > 1:
        address = f"{socket.gethostname()}:{20000 + int(job) % 10000}"  # nodes may be shared
        command += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job}"]
        command += [f"--rdzv-endpoint={address}"]
        tasks = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
        command = ["srun", *tasks, "--kill-on-bad-exit=1", *command]
    else:
        command += ["--standalone"]
    os.execvp(command[0], [*command, "-m", module, *sys.argv[1:]])


def slurm_nodes(job: str) -> int:
    """Returns how many nodes a Slurm job has; asks Slurm, since a step's variables may say less."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%D"]
    try:
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"SLURM_JOB_ID is {job}, but Slurm does not answer ({error}); unset it to train on this"
            " machine alone"
        ) from error
    return int(result.stdout)
