"""States and weights on disk: damaged, foreign, locked, or of another configuration."""

import dataclasses
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.paths import REPOSITORY
from support.tiny_training import (
    change_train,
    make_config,
    one_thread,
    read_packed,
    states_folder_of,
    tiny_experiment,
    train,
    weights_file,
    write_packed,
)

from srt.model.weights import StateError, load_weights, save_weights
from srt.training.states import (
    SavedState,
    is_locked,
    latest_progress,
    load_latest_state,
    load_state,
    lock_states,
    save_state,
)

WEIGHTS = {name: torch.arange(6.0).view(2, 3) + n for n, name in enumerate("hfbdgace")}
CONFIG = {"train": {"steps": 9, "learning_rate": 0.1}, "model": {"heads": 2}}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_packed(write_packed(tmp_path_factory.mktemp("packed")))


@pytest.fixture
def experiment(tmp_path):
    return tiny_experiment(tmp_path)


def truncate(path, share):
    """Leave only the first bytes of a file, this share of them."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def make_state(step):
    """Return a small state of a step."""
    return SavedState({"model.weight": torch.full((3,), float(step))}, {"step": step})


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_a_truncated_state_falls_back_to_the_one_before(experiment, data, tmp_path, caplog, share):
    uninterrupted = train(experiment, data, tmp_path / "whole")
    train(experiment, data, tmp_path / "stopped", stop_after=5)
    states = sorted(states_folder_of(tmp_path / "stopped", experiment).glob("state-*"))
    assert [path.stem for path in states] == ["state-000000004", "state-000000005"]
    truncate(states[1], share)
    newest = load_latest_state(states[0].parent, make_config(experiment))
    assert newest.progress["step"] == 4
    assert f"{states[1]}: damaged" in caplog.text

    # The training goes on from there, and ends as one that was never stopped.
    resumed = train(experiment, data, tmp_path / "stopped")
    expected = weights_file(uninterrupted, tmp_path / "a")
    assert expected == weights_file(resumed, tmp_path / "b")


def test_a_folder_of_damaged_states_has_no_state_to_resume(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, make_state(step), CONFIG)
    for path in tmp_path.glob("state-*"):
        truncate(path, 0.5)
    assert load_latest_state(tmp_path, CONFIG) is None


def test_the_last_two_states_are_kept_and_nothing_half_written(tmp_path):
    for step in (1, 2, 99, 100):
        save_state(tmp_path, make_state(step), CONFIG)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["state-000000099.safetensors", "state-000000100.safetensors"]
    newest = load_latest_state(tmp_path, CONFIG)
    assert newest.progress == {"step": 100}
    assert torch.equal(newest.tensors["model.weight"], torch.full((3,), 100.0))


def test_files_that_are_not_named_like_a_state_are_ignored(tmp_path):
    save_state(tmp_path, make_state(1), CONFIG)
    (tmp_path / ".state-000000002.safetensors.77").write_bytes(b"half")
    (tmp_path / "state-2.safetensors").write_bytes(b"another name")
    assert load_latest_state(tmp_path, CONFIG).progress["step"] == 1


@pytest.mark.parametrize(
    ("theirs", "difference"),
    [
        ({"train": {"steps": 9, "learning_rate": 0.2}}, "train.learning_rate: 0.1 here, 0.2 there"),
        ({"model": {"heads": 4}}, "model.heads: 2 here, 4 there"),
        ({"model": {"heads": 2, "layers": 1}}, "model.layers: 'absent' here, 1 there"),
        ({"train": {"steps": 5, "learning_rate": 0.2}}, "train.learning_rate: 0.1 here, 0.2 there"),
    ],
)
def test_a_state_of_another_configuration_is_refused_by_the_key(tmp_path, theirs, difference):
    save_state(tmp_path, make_state(3), CONFIG | theirs)
    path = tmp_path / "state-000000003.safetensors"
    expected = re.escape(f"{path}: a state of another configuration: {difference}. Change the")
    with pytest.raises(StateError, match=f"^{expected}"):
        load_state(path, CONFIG)


def test_a_state_beyond_the_end_of_this_training_is_refused(tmp_path):
    save_state(tmp_path, make_state(12), CONFIG | {"train": CONFIG["train"] | {"steps": 20}})
    with pytest.raises(StateError, match=r"train\.steps: 9 here, 20 there"):
        load_state(tmp_path / "state-000000012.safetensors", CONFIG)


def test_a_training_goes_on_from_no_state_of_another_configuration(
    experiment, data, tmp_path, caplog
):
    alone = train(experiment, data, tmp_path / "alone")
    for other in (
        change_train(experiment, learning_rate=0.02),
        change_train(experiment, steps=4, rays_per_scene=48),
        dataclasses.replace(experiment, seed=1),
    ):
        assert states_folder_of(tmp_path, other) != states_folder_of(tmp_path, experiment)
        train(other, data, tmp_path / "both", stop_after=2)
    both = train(experiment, data, tmp_path / "both")
    assert weights_file(alone, tmp_path / "a") == weights_file(both, tmp_path / "b")


def start_python(code, *arguments, **options):
    """Start a fresh process. It runs in the root of the repository, so that it finds `srt`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, **options)


def test_the_same_weights_are_the_same_bytes_in_every_process(tmp_path):
    # Python's hashes of strings, and with them the order of sets, differ between these processes.
    code = (
        "import sys, torch; from pathlib import Path; from srt.model.weights import save_weights;"
        f"weights = {{n: torch.arange(6.0).view(2, 3) + i for i, n in {list(enumerate(WEIGHTS))}}};"
        f"save_weights(Path(sys.argv[1]), weights, {CONFIG})"
    )
    paths = [tmp_path / f"{hash_seed}.safetensors" for hash_seed in (1, 2)]
    processes = [
        start_python(code, path, env=os.environ | {"PYTHONHASHSEED": path.stem}) for path in paths
    ]
    assert [process.wait() for process in processes] == [0, 0]
    save_weights(tmp_path / "here", WEIGHTS, CONFIG)
    here = (tmp_path / "here").read_bytes()
    assert [path.read_bytes() == here for path in paths] == [True, True]


def test_weights_are_read_back_with_their_configuration(tmp_path):
    save_weights(tmp_path / "model", {"w": torch.eye(3).T[::2]}, CONFIG)  # not contiguous
    weights, config = load_weights(tmp_path / "model")
    assert torch.equal(weights["w"], torch.eye(3)[:, ::1][::2])
    assert config == CONFIG


def write_foreign(path):
    safetensors.torch.save_file({"w": torch.ones(2)}, path)


def write_foreign_with_metadata(path):
    safetensors.torch.save_file({"w": torch.ones(2)}, path, {"format": "pt"})


def write_pickled(path):
    torch.save({"w": torch.ones(2)}, path)


def write_truncated(path):
    save_weights(path, WEIGHTS, CONFIG)
    truncate(path, 0.9)


def write_resume_state(path):
    save_state(path.parent, make_state(3), CONFIG)
    (path.parent / "state-000000003.safetensors").rename(path)


@pytest.mark.parametrize(
    "write",
    [
        write_foreign,
        write_foreign_with_metadata,
        write_pickled,
        write_truncated,
        write_resume_state,
        Path.touch,
        Path.mkdir,
    ],
)
def test_a_file_that_has_no_weights_of_this_project_is_refused_by_name(tmp_path, write):
    path = tmp_path / "model.safetensors"
    write(path)
    with pytest.raises(StateError, match=rf"^{path}: not readable as weights of this project"):
        load_weights(path)


def test_weights_that_do_not_exist_are_named_with_the_stage_that_writes_them(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(StateError, match=rf"^{path}: there is no such file; run .*workflow.train"):
        load_weights(path)


def test_a_second_holder_of_the_lock_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / "new"
    code = (
        "import sys; from pathlib import Path; from srt.training.states import lock_states\n"
        "with lock_states(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with start_python(code, folder, stdin=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == "held\n"
        message = rf"^{folder / 'lock'}: held by process {holder.pid} on \S+: .*trained already"

        # The second try shows that a refusal leaves the lock as it is.
        for _ in range(2):
            with pytest.raises(StateError, match=message), lock_states(folder):
                pass

        # A kill ends the lock.
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock_states(folder):
            assert (folder / "lock").read_text().startswith(f"process {os.getpid()} ")

    # So does leaving the context.
    with lock_states(folder):
        pass


def test_asking_whether_a_folder_is_locked_neither_makes_nor_locks_it(tmp_path):
    folder = tmp_path / "states"
    assert not is_locked(folder)
    assert not folder.exists()
    with lock_states(folder):
        assert is_locked(folder)
    assert not is_locked(folder)
    with lock_states(folder):
        pass


def test_progress_is_that_of_the_newest_readable_state(tmp_path):
    assert latest_progress(tmp_path) == {}
    for step in (1, 2):
        save_state(tmp_path, make_state(step), CONFIG)
    assert latest_progress(tmp_path) == {"step": 2}
    truncate(tmp_path / "state-000000002.safetensors", 0.5)
    assert latest_progress(tmp_path) == {"step": 1}


def test_a_lock_without_room_on_the_disk_is_an_error_that_names_its_file(tmp_path):
    # A limit of 0 bytes for files has the effect of a full disk.
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"{tmp_path / 'lock'}")), lock_states(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
