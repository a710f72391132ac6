"""Jobs side by side: each has GPUs of its own, for as long as it lives."""

import os
import signal
import subprocess
import sys
import time

import pytest

from srt.common.errors import UserError
from workflow.common import gpus

# Takes GPUs, then becomes another program, as a training becomes torchrun.
JOB = """
import os, sys
from workflow import gpus
gpus.SECONDS = 0.05
gpus.take_gpus()
script = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); input()"
os.execv(sys.executable, [sys.executable, "-c", script])
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Locks of this test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # or it would be remembered
    for name in ("WORLD_SIZE", "GPUS_PER_JOB", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start():
    """Returns what starts a job that lives until it is killed."""
    jobs = []

    def started(count, visible="3,5"):
        environment = {**os.environ, "GPUS_PER_JOB": str(count), "CUDA_VISIBLE_DEVICES": visible}
        command, pipe = [sys.executable, "-c", JOB], subprocess.PIPE
        jobs.append(
            subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
        )
        return jobs[-1]

    yield started
    for job in jobs:
        job.kill()
        job.wait()
        for stream in (job.stdin, job.stdout, job.stderr):
            stream.close()


def seen_by(job):
    """Returns the GPUs that a job sees, once it has them."""
    return job.stdout.readline().decode().strip().split(",")


def test_each_job_has_a_gpu_of_its_own_and_the_next_waits_for_one_that_ends(start):
    jobs = [start(1), start(1)]
    taken = [seen_by(job) for job in jobs]
    assert sorted(taken) == [["3"], ["5"]]
    waiting = start(1)
    time.sleep(3)  # long enough to have started, and looked
    assert waiting.poll() is None
    os.set_blocking(waiting.stdout.fileno(), False)
    assert not waiting.stdout.read()
    os.set_blocking(waiting.stdout.fileno(), True)
    jobs[1].send_signal(signal.SIGKILL)
    assert seen_by(waiting) == taken[1]


def test_a_job_of_several_gpus_has_them_all_and_waits_with_none_of_them(start):
    alone = start(1, "0,1,2")
    assert seen_by(alone) == ["0"]
    assert seen_by(start(2, "0,1,2")) == ["1", "2"]


def test_without_the_variable_nothing_changes(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    gpus.claim_gpus()
    monkeypatch.setenv("GPUS_PER_JOB", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")  # of torchrun, which has the GPUs already
    gpus.claim_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_where_there_is_no_gpu_none_is_taken(monkeypatch):
    monkeypatch.setenv("GPUS_PER_JOB", "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    gpus.claim_gpus()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_without_a_list_cuda_is_asked(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert gpus.visible_gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12, 4")
    assert gpus.visible_gpus() == ["GPU-12", "4"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("3", "GPUS_PER_JOB is 3, but 2 are visible"), ("0", "is '0', not"), ("all", "is 'all', not")],
)
def test_what_cannot_be_had_is_refused(monkeypatch, asked, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("GPUS_PER_JOB", asked)
    with pytest.raises(UserError, match=said):
        gpus.claim_gpus()
