"""One command becomes torchrun where there are several GPUs, or several nodes of a Slurm job."""

import importlib
import os
import sys

import pytest
import torch
from support.tiny_training import PARAMS

from srt.common.errors import UserError
from workflow.common import torchrun


@pytest.fixture(autouse=True)
def plain_process(monkeypatch):
    """A process with arguments of its own, without a Slurm job and without torchrun."""
    for name in ("WORLD_SIZE", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py", "--profile", "quick"])


def torchrun_command(monkeypatch, gpus):
    """Return the command that this process becomes with this number of GPUs; None if it stays."""
    commands = [None]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "execvp", lambda program, command: commands.append(command))
    torchrun.start_torchrun("workflow.train")
    return commands[-1]


def enter_slurm_job(nodes, monkeypatch, tmp_path):
    """Make this process one of a Slurm job with so many nodes; None: Slurm does not answer.

    A script replaces `squeue`, which says how many nodes the job has.
    """
    answer = f"echo {nodes}" if nodes else "echo no such job >&2; exit 1"
    (tmp_path / "squeue").write_text(f'#!/bin/sh\n[ "$2" = --jobs=17 ] && {answer}\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "17")


class StartedError(Exception):
    """Raised in place of starting torchrun, with the module that it would run."""


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_training_and_evaluation_use_all_gpus(monkeypatch, tmp_path, name):
    def start(module):
        raise StartedError(module)

    stage = importlib.import_module(f"workflow.{name}")
    monkeypatch.setattr(torchrun, "start_torchrun", start)

    # None of these files exists: torchrun starts before anything is read.
    arguments = {"profile": "quick", "experiment": "nmr_srt", "params": PARAMS}
    arguments |= {"data": tmp_path / "packed", "out": tmp_path / "out"}
    if name == "evaluate":
        arguments |= {"model": tmp_path / "model.safetensors", "lpips": tmp_path / "manifest.json"}
    with pytest.raises(StartedError, match=f"^workflow.{name}$"):
        getattr(stage, name)(**arguments)


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_is_enough_for_one_gpu(monkeypatch, gpus):
    assert torchrun_command(monkeypatch, gpus) is None


def test_torchrun_starts_the_same_command_once(monkeypatch):
    command = torchrun_command(monkeypatch, 4)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[3:5] == ["--nproc-per-node=4", "--standalone"]
    assert command[5:] == ["-m", "workflow.train", "--profile", "quick"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert torchrun_command(monkeypatch, 4) is None


def test_a_slurm_job_of_one_node_is_like_any_machine(monkeypatch, tmp_path):
    enter_slurm_job(1, monkeypatch, tmp_path)
    assert torchrun_command(monkeypatch, 1) is None
    assert "--standalone" in torchrun_command(monkeypatch, 2)


@pytest.mark.parametrize("gpus", [0, 8])
def test_on_several_nodes_srun_starts_one_torchrun_on_each_node(monkeypatch, tmp_path, gpus):
    enter_slurm_job(3, monkeypatch, tmp_path)
    command = torchrun_command(monkeypatch, gpus)
    assert command[0] == "srun"
    assert {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1"} < set(command)
    assert {"--nnodes=3", "--rdzv-id=17", f"--nproc-per-node={gpus or 1}"} < set(command)
    assert f"--rdzv-endpoint={os.uname().nodename}:20017" in command
    assert command[-4:] == ["-m", "workflow.train", "--profile", "quick"]


def test_a_slurm_that_does_not_answer_is_named(monkeypatch, tmp_path):
    enter_slurm_job(None, monkeypatch, tmp_path)
    with pytest.raises(UserError, match="SLURM_JOB_ID is 17, but Slurm does not answer"):
        torchrun_command(monkeypatch, 1)
