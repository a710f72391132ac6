"""Jobs side by side on one machine: each has GPUs of its own for as long as it lives."""

import os
import signal
import subprocess
import sys
import time

import pytest

from srt.common.errors import UserError
from workflow.common import gpus

# A job claims GPUs and then becomes another program, as a training becomes torchrun. The other
# program prints which GPUs it sees, and lives until it is killed.
JOB = """
import os, sys
from workflow.common import gpus
gpus.SECONDS = 0.05
gpus.claim_gpus()
script = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); input()"
os.execv(sys.executable, [sys.executable, "-c", script])
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Lock files of this test alone, and no variables of the machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # forget the folder that is cached
    for name in ("WORLD_SIZE", "GPUS_PER_JOB", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start_job():
    """A function that starts a job; all jobs are killed at the end."""
    jobs = []

    def start(count, visible="3,5"):
        environment = {**os.environ, "GPUS_PER_JOB": str(count), "CUDA_VISIBLE_DEVICES": visible}
        job = subprocess.Popen(
            [sys.executable, "-c", JOB],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.kill()
        job.wait()
        for stream in (job.stdin, job.stdout, job.stderr):
            stream.close()


def gpus_of(job):
    """Return the GPUs that a job sees; wait until it has them."""
    return job.stdout.readline().decode().strip().split(",")


def test_each_job_has_a_gpu_of_its_own_and_the_next_waits_for_one_that_ends(start_job):
    jobs = [start_job(1), start_job(1)]
    claimed = [gpus_of(job) for job in jobs]
    assert sorted(claimed) == [["3"], ["5"]]

    # The third job has had time to start and to search, and waits.
    waiting = start_job(1)
    time.sleep(3)
    assert waiting.poll() is None
    os.set_blocking(waiting.stdout.fileno(), False)
    assert not waiting.stdout.read()
    os.set_blocking(waiting.stdout.fileno(), True)

    # A job that is killed leaves its GPU.
    jobs[1].send_signal(signal.SIGKILL)
    assert gpus_of(waiting) == claimed[1]


def test_a_job_with_several_gpus_gets_all_of_them_from_those_that_are_free(start_job):
    single = start_job(1, "0,1,2")
    assert gpus_of(single) == ["0"]
    assert gpus_of(start_job(2, "0,1,2")) == ["1", "2"]


def test_without_the_variable_nothing_changes(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    gpus.claim_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_processes_of_torchrun_share_its_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("GPUS_PER_JOB", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    gpus.claim_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_without_a_gpu_none_is_claimed(monkeypatch):
    monkeypatch.setenv("GPUS_PER_JOB", "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    gpus.claim_gpus()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_all_gpus_are_visible_unless_a_variable_lists_some(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert gpus.visible_gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12, 4")
    assert gpus.visible_gpus() == ["GPU-12", "4"]


@pytest.mark.parametrize(
    ("number", "message"),
    [("3", "GPUS_PER_JOB is 3, but 2 are visible"), ("0", "is '0', not"), ("all", "is 'all', not")],
)
def test_a_number_of_gpus_that_is_impossible_is_refused(monkeypatch, number, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("GPUS_PER_JOB", number)
    with pytest.raises(UserError, match=message):
        gpus.claim_gpus()
