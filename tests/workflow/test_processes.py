"""`python -m workflow.train` as processes: killed, stopped, orphaned, twice at once, several."""

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
PATIENCE = 120  # seconds, on a busy machine
WITHOUT_END = 10**6


@dataclasses.dataclass(frozen=True)
class Place:
    """Where trainings of one configuration keep what they write."""

    root: Path  # of params.yaml, the data and a stand-in for mlflow, which takes seconds to import
    name: str
    more: tuple[str, ...] = ()  # options

    @property
    def out(self):
        return self.root / self.name / "out"

    @property
    def weights(self):
        return (self.out / "model.safetensors").read_bytes()

    @property
    def folder(self):
        """The folder of the states, once there is one."""
        return next(iter((self.root / self.name / "states").glob("quick/nmr_srt/*")), None)

    def states(self):
        """Returns the steps that are saved."""
        paths = self.folder.glob("state-*") if self.folder else ()
        return sorted(int(path.stem.removeprefix("state-")) for path in paths)

    def logged_step(self):
        """Returns the last step that was logged."""
        path = self.folder and self.folder / "tracking" / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path and path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return max((event["step"] for event in events if "metrics" in event), default=0)

    def start(self, launcher=("-m",), **options):
        """Starts a training, as a user does."""
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
        command += self.more
        path = os.pathsep.join((str(self.root / "stand-in"), str(REPOSITORY)))
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | own
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, text=True, stderr=subprocess.PIPE, **options
        )

    def finish(self, launcher=("-m",)):
        """Trains to the end and returns what it said."""
        process = self.start(launcher)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert self.states()[-1] == STEPS
        return said


def wait_until(condition, process):
    """Polls often: a step takes milliseconds."""
    end = time.monotonic() + PATIENCE
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
    place = Place(root, "uninterrupted")
    place.finish()
    return place


def same_outputs(first, second):
    assert first.weights == second.weights
    history = "history.csv"
    assert (first.out / history).read_bytes() == (second.out / history).read_bytes()


def test_a_training_killed_at_any_moment_ends_with_the_same_bytes(root, uninterrupted):
    place, moment = Place(root, "killed"), random.uniform(0, 0.2)  # another in every test run
    process = place.start()
    wait_until(place.states, process)
    end = time.monotonic() + moment
    wait_until(lambda: time.monotonic() > end, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not place.out.exists()
    newest = place.states()[-1]
    process.stderr.close()
    assert f"resuming after step {newest}\n" in place.finish()
    same_outputs(place, uninterrupted)


def test_sigterm_saves_the_very_step_and_the_next_run_goes_on(root, uninterrupted):
    place, step = Place(root, "stopped"), random.randint(3, 50)  # another in every test run
    process = place.start()
    wait_until(lambda: place.logged_step() >= step, process)
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM == 143, said
    stopped = place.states()[-1]
    assert stopped < STEPS
    assert f"stopped after step {stopped};" in said
    logged = max(stopped - stopped % 3, stopped - stopped % 40)  # by log_every, validate_every
    assert place.logged_step() == logged
    assert not place.out.exists()
    assert f"resuming after step {stopped}\n" in place.finish()
    same_outputs(place, uninterrupted)


def test_two_processes_give_the_weights_of_one(root, uninterrupted):
    place = Place(root, "two")
    place.finish(("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"))
    paths = [where.out / "model.safetensors" for where in (place, uninterrupted)]
    with safetensors.safe_open(paths[0], "pt") as two, safetensors.safe_open(paths[1], "pt") as one:
        names = list(one.keys())
        assert list(two.keys()) == names
        for name in names:
            torch.testing.assert_close(
                two.get_tensor(name), one.get_tensor(name), atol=1e-5, rtol=1e-5, msg=name
            )
    costs = [
        json.loads((where.out / "training.json").read_text()) for where in (place, uninterrupted)
    ]
    assert costs[0]["best_step"] == costs[1]["best_step"]


def test_another_seed_changes_the_weights_and_nothing_that_is_not_the_seed(root, uninterrupted):
    place = Place(root, "seed", ("--seed", "7"))
    place.finish()
    assert place.weights != uninterrupted.weights
    costs = [
        json.loads((where.out / "training.json").read_text()) for where in (place, uninterrupted)
    ]
    assert [cost["seed"] for cost in costs] == [7, 0]
    assert [cost["peak_gigabytes"] for cost in costs] == [None, None]  # of a GPU
    assert costs[0]["but_for_seed"] == costs[1]["but_for_seed"]
    assert place.folder.name != uninterrupted.folder.name  # no state of the other is taken


PARENT = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def test_a_second_training_is_refused_and_none_outlives_its_parent(root):
    place = Place(root, "endless")
    parent = place.start(("-c", PARENT, sys.executable, "-m"), params="endless")
    try:
        wait_until(place.states, parent)
        training = int((place.folder / "lock").read_text().split()[1])
        assert training != parent.pid
        second = place.start(params="endless")
        _, said = second.communicate(timeout=PATIENCE)
        assert second.returncode == 1
        assert f"error: {place.folder / 'lock'}: held by process {training} on" in said
        assert "Traceback" not in said
    finally:
        parent.kill()
    try:
        parent.communicate(timeout=PATIENCE)  # their common standard error ends with the training
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(training, signal.SIGKILL)
    with lock_states(place.folder):
        pass
