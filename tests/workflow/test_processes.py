"""`python -m workflow.train` as processes that are killed, stopped or orphaned.

Also two trainings at once, and one training of two processes.
"""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import torch
from support.paths import REPOSITORY
from support.tiny_training import write_packed, write_params

from srt.training.states import lock_states

STEPS = 120
TIMEOUT = 120  # seconds, on a busy machine
WITHOUT_END = 10**6


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that is started as a process, and the files that it writes."""

    root: Path  # has params.yaml, the data, and an empty module in training of mlflow
    name: str  # of a folder in root, for its outputs and resume states
    options: tuple[str, ...] = ()

    @property
    def out(self):
        return self.root / self.name / "out"

    @property
    def weights(self):
        return (self.out / "model.safetensors").read_bytes()

    @property
    def folder(self):
        """The folder of the resume states, or None before there is one."""
        return next(iter((self.root / self.name / "states").glob("quick/nmr_srt/*")), None)

    def states(self):
        """Return the steps of the resume states."""
        paths = self.folder.glob("state-*") if self.folder else ()
        return sorted(int(path.stem.removeprefix("state-")) for path in paths)

    def logged_step(self):
        """Return the last step that was logged."""
        # The last line of the log may be half written.
        path = self.folder and self.folder / "tracking" / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path and path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return max((event["step"] for event in events if "metrics" in event), default=0)

    def start(self, launcher=("-m",), **options):
        """Start the training as a user does, and return the process."""
        arguments = {
            "profile": "quick",
            "experiment": "nmr_srt",
            "data": self.root / "packed",
            "out": self.out,
            "params": self.root / f"{options.pop('params', 'params')}.yaml",
            "states": self.root / self.name / "states",
        }
        command = [sys.executable, *launcher, "workflow.train"]
        command += [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
        command += self.options

        # Importing MLflow takes seconds, so another module has its name.
        path = os.pathsep.join((str(self.root / "stand-in"), str(REPOSITORY)))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, text=True, stderr=subprocess.PIPE, **options
        )

    def finish(self, launcher=("-m",)):
        """Train to the end, and return the log."""
        process = self.start(launcher)
        _, output = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, output
        assert self.states()[-1] == STEPS
        return output


def wait_until(condition, process):
    """Return when a condition is true; fail if the process ends before, or at the deadline."""
    # A step takes milliseconds, so ask often.
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    write_packed(root / "packed")
    steps = {"log_every": 3, "validate_every": 40, "picture_every": 80, "checkpoint_every": 20}
    write_params(root / "params.yaml", steps=STEPS, decay_steps=STEPS, **steps)
    steps |= {"validate_every": WITHOUT_END, "picture_every": WITHOUT_END}
    write_params(root / "endless.yaml", steps=WITHOUT_END, **steps)
    (root / "stand-in").mkdir()
    (root / "stand-in" / "mlflow.py").write_text("raise ImportError('not in this test')")
    return root


@pytest.fixture(scope="module")
def uninterrupted(root):
    training = Training(root, "uninterrupted")
    training.finish()
    return training


def check_equal_outputs(first, second):
    assert first.weights == second.weights
    histories = [(training.out / "history.csv").read_bytes() for training in (first, second)]
    assert histories[0] == histories[1]


def test_a_training_killed_at_any_moment_ends_with_the_same_bytes(root, uninterrupted):
    # Kill it at a random moment after its first state, another one in every test run.
    training = Training(root, "killed")
    moment = random.uniform(0, 0.2)
    process = training.start()
    wait_until(training.states, process)
    end = time.monotonic() + moment
    wait_until(lambda: time.monotonic() > end, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not training.out.exists()
    newest = training.states()[-1]
    process.stderr.close()
    assert f"resuming after step {newest}\n" in training.finish()
    check_equal_outputs(training, uninterrupted)


def test_sigterm_saves_the_current_step_and_the_next_run_goes_on(root, uninterrupted):
    # Stop it at a random step, another one in every test run.
    training = Training(root, "stopped")
    step = random.randint(3, 50)
    process = training.start()
    wait_until(lambda: training.logged_step() >= step, process)
    process.terminate()
    _, output = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM == 143, output
    stopped = training.states()[-1]
    assert stopped < STEPS
    assert f"stopped after step {stopped};" in output

    # The log ends at the last step that was due, by log_every or validate_every.
    logged = max(stopped - stopped % 3, stopped - stopped % 40)
    assert training.logged_step() == logged
    assert not training.out.exists()
    assert f"resuming after step {stopped}\n" in training.finish()
    check_equal_outputs(training, uninterrupted)


def test_two_processes_give_the_weights_of_one(root, uninterrupted):
    training = Training(root, "two")
    training.finish(("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"))
    paths = [each.out / "model.safetensors" for each in (training, uninterrupted)]
    with safetensors.safe_open(paths[0], "pt") as two, safetensors.safe_open(paths[1], "pt") as one:
        names = list(one.keys())
        assert list(two.keys()) == names
        for name in names:
            torch.testing.assert_close(
                two.get_tensor(name), one.get_tensor(name), atol=1e-5, rtol=1e-5, msg=name
            )
    costs = [
        json.loads((each.out / "training.json").read_text()) for each in (training, uninterrupted)
    ]
    assert costs[0]["best_step"] == costs[1]["best_step"]


def test_another_seed_changes_the_weights_but_no_other_setting(root, uninterrupted):
    training = Training(root, "seed", ("--seed", "7"))
    training.finish()
    assert training.weights != uninterrupted.weights
    costs = [
        json.loads((each.out / "training.json").read_text()) for each in (training, uninterrupted)
    ]
    assert [cost["seed"] for cost in costs] == [7, 0]
    assert [cost["peak_gigabytes"] for cost in costs] == [None, None]  # of a GPU
    assert costs[0]["but_for_seed"] == costs[1]["but_for_seed"]
    assert training.folder.name != uninterrupted.folder.name  # no state of the other is taken


# A program that starts another one and waits for it.
PARENT = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def test_a_second_training_is_refused_and_none_outlives_its_parent(root):
    training = Training(root, "endless")
    parent = training.start(("-c", PARENT, sys.executable, "-m"), params="endless")
    try:
        wait_until(training.states, parent)
        child = int((training.folder / "lock").read_text().split()[1])
        assert child != parent.pid
        second = training.start(params="endless")
        _, output = second.communicate(timeout=TIMEOUT)
        assert second.returncode == 1
        assert f"error: {training.folder / 'lock'}: held by process {child} on" in output
        assert "Traceback" not in output
    finally:
        parent.kill()
    try:
        parent.communicate(timeout=TIMEOUT)  # their common standard error ends with the training
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with lock_states(training.folder):
        pass
