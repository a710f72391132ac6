"""Both tools are interrupted in many ways, and end with the same results bit for bit."""

import contextlib
import json
import os
import signal
import subprocess

import psutil
import pytest
from support.faults import (
    COMMANDS,
    DELETE_LOCK,
    STAGES,
    UNLOCK,
    InterruptedCopy,
    stage_durations,
)
from support.tiny_pipeline import MODEL, running_stages, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
TOOLS = tuple(COMMANDS)
VICTIMS = ("tool", "stage", "both")
KILLS = 2  # of every stage, by each tool
STATES = "ckpt/quick/nmr_srt"
CHANGE = {"profiles.quick.train.learning_rate": 4.0e-3}
LONG = {"steps": 400, "log_every": 50, "validate_every": 100, "checkpoint_every": 20}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The results of Snakemake without an interruption."""
    copy = InterruptedCopy(tmp_path_factory.mktemp("uninterrupted"), "snakemake")
    copy.finish()
    assert not copy.manual_commands
    return copy


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_was_killed_in_every_stage_ends_with_the_same_results(
    uninterrupted, tool, tmp_path
):
    interrupted = InterruptedCopy(tmp_path / tool, tool)
    seconds = stage_durations(uninterrupted.copy)

    # Kill in turn the tool, the stage and both, until every stage was killed often enough, or the
    # tool came to its end.
    remaining = dict.fromkeys(STAGES, KILLS)
    while any(remaining.values()):
        victim = VICTIMS[sum(remaining.values()) % len(VICTIMS)]
        stages = [name for name in remaining if remaining[name]]
        stage = interrupted.interrupt(victim, signal.SIGKILL, stages, seconds)
        if stage is None:
            break
        remaining[stage] -= 1

    interrupted.finish()
    print(tool, interrupted.faults, interrupted.manual_commands)
    assert len(interrupted.faults) >= len(STAGES)
    assert set(interrupted.manual_commands) <= {
        " ".join(UNLOCK if tool == "snakemake" else DELETE_LOCK)
    }
    assert interrupted.results() == uninterrupted.results()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_was_interrupted_ends_with_the_same_results(
    uninterrupted, tool, number, tmp_path
):
    interrupted = InterruptedCopy(tmp_path / tool, tool)
    seconds = stage_durations(uninterrupted.copy)

    # The tool comes last: DVC ignores Ctrl-C if it is sent to DVC alone, and comes to its end.
    for victim in reversed(VICTIMS):
        interrupted.interrupt(victim, number, ["train", "pack"], seconds)
    interrupted.finish()
    print(tool, interrupted.faults, interrupted.manual_commands)
    assert set(interrupted.manual_commands) <= {" ".join(DELETE_LOCK)}
    assert len(interrupted.faults) > 1
    assert interrupted.results() == uninterrupted.results()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_parameter_that_changes_after_a_kill_counts_as_from_the_start(
    uninterrupted, tool, tmp_path
):
    undisturbed = InterruptedCopy(tmp_path / "undisturbed", "snakemake", uninterrupted.copy)
    source = adopt_results(uninterrupted, tool, tmp_path)
    interrupted = InterruptedCopy(tmp_path / tool, tool, source.copy)

    # Kill a training, and change its learning rate.
    for each in (undisturbed, interrupted):
        each.copy.edit_params({"profiles.quick.train.steps": 12})
    assert (
        interrupted.interrupt(
            "both", signal.SIGKILL, ["train"], stage_durations(uninterrupted.copy)
        )
        == "train"
    )
    for each in (undisturbed, interrupted):
        each.copy.edit_params(CHANGE)
        each.finish()
    assert interrupted.results() == undisturbed.results() != uninterrupted.results()


def adopt_results(uninterrupted, tool, tmp_path):
    """Return a copy whose uninterrupted results are up to date in this tool."""
    if tool == "snakemake":
        return uninterrupted
    adopted = InterruptedCopy(tmp_path / "adopted", tool, uninterrupted.copy)
    code, output = adopted.copy.run("python", "-m", "workflow.tools.adopt", tool)
    assert code == 0, output
    return adopted


@pytest.mark.parametrize("tool", TOOLS)
def test_a_dead_rank_ends_the_training_and_the_next_run_goes_on(uninterrupted, tool, tmp_path):
    undisturbed = InterruptedCopy(tmp_path / "undisturbed", "snakemake", uninterrupted.copy)
    source = adopt_results(uninterrupted, tool, tmp_path)
    interrupted = InterruptedCopy(tmp_path / tool, tool, source.copy)

    # Two processes on the CPU, as if there were two GPUs.
    for each in (undisturbed, interrupted):
        each.copy.edit("workflow/common/torchrun.py", "torch.cuda.device_count()", "2")
        each.copy.edit_params({f"profiles.quick.train.{key}": LONG[key] for key in LONG})
    undisturbed.finish()

    # Kill one of them after the first saved state.
    process = interrupted.copy.start(*COMMANDS[tool], start_new_session=True)
    wait_until(lambda: list(interrupted.copy.folder.glob(f"{STATES}/*/state-*")), process)
    ranks = [pid for pid in running_stages(interrupted.copy) if "RANK" in environment_of(pid)]
    assert len(ranks) == 2
    os.kill(interrupted.random.choice(ranks), signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    wait_until(lambda: not running_stages(interrupted.copy))
    assert not (interrupted.copy.folder / MODEL).exists()  # it was killed before its end

    interrupted.finish()
    assert not interrupted.manual_commands
    assert interrupted.results() == undisturbed.results()


def environment_of(pid):
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).environ()
    return {}


@pytest.mark.parametrize(
    ("folder", "size"), [("ckpt", "64k"), ("data/quick/packed", "72k")], ids=["state", "shard"]
)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_full_disk_is_named_and_with_more_space_the_tool_goes_on(
    uninterrupted, tool, folder, size, tmp_path
):
    interrupted = InterruptedCopy(tmp_path / tool, tool)
    with small_disk(interrupted.copy.folder / folder, size) as enlarge:
        output = interrupted.fail()
        assert f"{folder}/" in output.split("error: ")[1].splitlines()[0]
        assert "No space left on device" in output
        enlarge()
        interrupted.finish()
        assert interrupted.results() == uninterrupted.results()
    assert not interrupted.manual_commands


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a small file system at a folder; yield a function that enlarges it."""
    folder.mkdir(parents=True)
    options = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if subprocess.run(["mount", *options], capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system")

    def enlarge():
        subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)

    try:
        yield enlarge
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("tool", TOOLS)
def test_half_written_files_of_an_older_version_are_refused_or_replaced(
    uninterrupted, tool, tmp_path
):
    source = adopt_results(uninterrupted, tool, tmp_path)
    interrupted = InterruptedCopy(tmp_path / tool, tool, source.copy)

    # The model is cut off, and there are temporary files of processes that were killed.
    folder = interrupted.copy.folder
    weights = folder / MODEL
    weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "outputs/quick/nmr_srt/.video.mp4.17").write_bytes(b"half")
    (folder / "data/quick/packed/.nmr.partial/train").mkdir(parents=True)
    (folder / "data/quick/packed/.nmr.partial/train/images-00000.npy").write_bytes(b"half")

    # Snakemake does not check the content of its outputs, so a stage refuses the model.
    if tool == "snakemake":
        output = interrupted.fail()
        assert f"error: {MODEL}: not readable as weights" in output
        assert "delete it" in output
        weights.unlink()
    interrupted.finish()
    assert interrupted.results() == uninterrupted.results()


def test_locks_of_a_dead_process_do_not_stop_dvc(uninterrupted, tmp_path):
    interrupted = adopt_results(uninterrupted, "dvc", tmp_path)
    with subprocess.Popen(["true"]) as process:
        pass
    owner = {"pid": process.pid, "cmd": "dvc repro"}
    locks = interrupted.copy.folder / ".dvc" / "tmp"
    (locks / "lock").write_text(f"{process.pid:>10}\n")
    (locks / "rwlock").write_text(
        json.dumps({"write": {str(interrupted.copy.folder / MODEL): owner}})
    )
    assert "up to date" in interrupted.finish()
    assert not interrupted.manual_commands

    # DVC was killed while it wrote this file, so a person must delete it.
    (locks / "rwlock").write_text("")
    assert ".dvc/tmp/rwlock" in interrupted.fail()
    assert "up to date" in interrupted.finish()
    assert interrupted.manual_commands == [" ".join(DELETE_LOCK)]
