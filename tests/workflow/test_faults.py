"""Both tools, broken off in every way: run again, they end with the same results, bit for bit."""

import contextlib
import json
import os
import signal
import subprocess

import psutil
import pytest
from support.faults import COMMANDS, DELETE_LOCK, STAGES, UNLOCK, Broken, durations
from support.tiny_pipeline import MODEL, stages_in, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
TOOLS = tuple(COMMANDS)
VICTIMS = ("tool", "stage", "both")
KILLS = 2  # of every stage, by each tool
STATES = "ckpt/quick/nmr_srt"
CHANGE = {"profiles.quick.train.learning_rate": 4.0e-3}
LONG = {"steps": 400, "log_every": 50, "validate_every": 100, "checkpoint_every": 20}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What Snakemake makes where nothing happens."""
    place = Broken(tmp_path_factory.mktemp("whole"), "snakemake")
    place.finish()
    assert not place.typed
    return place


@pytest.mark.parametrize("tool", TOOLS)
def test_killed_in_every_stage_it_ends_with_the_same_results(whole, tool, tmp_path):
    broken, seconds = Broken(tmp_path / tool, tool), durations(whole.copy)
    left = dict.fromkeys(STAGES, KILLS)
    while any(left.values()):
        victim = VICTIMS[sum(left.values()) % len(VICTIMS)]
        stage = broken.strike(
            victim, signal.SIGKILL, [name for name in left if left[name]], seconds
        )
        if stage is None:
            break
        left[stage] -= 1
    broken.finish()
    print(tool, broken.faults, broken.typed)
    assert len(broken.faults) >= len(STAGES)
    assert set(broken.typed) <= {" ".join(UNLOCK if tool == "snakemake" else DELETE_LOCK)}
    assert broken.results() == whole.results()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("tool", TOOLS)
def test_interrupted_it_ends_with_the_same_results(whole, tool, number, tmp_path):
    broken, seconds = Broken(tmp_path / tool, tool), durations(whole.copy)
    for victim in reversed(VICTIMS):  # the tool last: alone, DVC lets Ctrl-C pass
        broken.strike(victim, number, ["train", "pack"], seconds)
    broken.finish()
    print(tool, broken.faults, broken.typed)
    assert set(broken.typed) <= {" ".join(DELETE_LOCK)}
    assert len(broken.faults) > 1  # where nothing is heard, the first run comes to its end
    assert broken.results() == whole.results()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_parameter_changed_after_a_kill_gives_what_it_gives_from_the_start(whole, tool, tmp_path):
    undisturbed = Broken(tmp_path / "undisturbed", "snakemake", whole.copy)
    broken = Broken(tmp_path / tool, tool, by_tool(whole, tool, tmp_path).copy)
    for place in (undisturbed, broken):
        place.copy.edit_params({"profiles.quick.train.steps": 12})
    assert broken.strike("both", signal.SIGKILL, ["train"], durations(whole.copy)) == "train"
    for place in (undisturbed, broken):
        place.copy.edit_params(CHANGE)
        place.finish()
    assert broken.results() == undisturbed.results() != whole.results()


def by_tool(whole, tool, tmp_path):
    """Returns the whole results as this tool made them."""
    if tool == "snakemake":
        return whole
    adopted = Broken(tmp_path / "adopted", tool, whole.copy)
    code, said = adopted.copy.run("python", "-m", "workflow.tools.adopt", tool)
    assert code == 0, said
    return adopted


@pytest.mark.parametrize("tool", TOOLS)
def test_a_dead_rank_ends_the_training_and_the_next_run_goes_on(whole, tool, tmp_path):
    undisturbed = Broken(tmp_path / "undisturbed", "snakemake", whole.copy)
    broken = Broken(tmp_path / tool, tool, by_tool(whole, tool, tmp_path).copy)
    for place in (undisturbed, broken):
        place.copy.edit(
            "workflow/common/torchrun.py", "torch.cuda.device_count()", "2"
        )  # over gloo
        place.copy.edit_params({f"profiles.quick.train.{key}": LONG[key] for key in LONG})
    undisturbed.finish()

    process = broken.copy.start(*COMMANDS[tool], start_new_session=True)
    wait_until(lambda: list(broken.copy.folder.glob(f"{STATES}/*/state-*")), process)
    ranks = [pid for pid in stages_in(broken.copy) if "RANK" in environment_of(pid)]
    assert len(ranks) == 2
    os.kill(broken.random.choice(ranks), signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    wait_until(lambda: not stages_in(broken.copy))
    assert not (broken.copy.folder / MODEL).exists()  # else it came too late to show anything
    broken.finish()
    assert not broken.typed
    assert broken.results() == undisturbed.results()


def environment_of(pid):
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).environ()
    return {}


@pytest.mark.parametrize(
    ("folder", "size"), [("ckpt", "64k"), ("data/quick/packed", "72k")], ids=["state", "shard"]
)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_full_disk_is_named_and_with_room_it_goes_on(whole, tool, folder, size, tmp_path):
    broken = Broken(tmp_path / tool, tool)
    with small_disk(broken.copy.folder / folder, size) as enlarge:
        said = broken.fail()
        assert f"{folder}/" in said.split("error: ")[1].splitlines()[0]
        assert "No space left on device" in said
        enlarge()
        broken.finish()
        assert broken.results() == whole.results()
    assert not broken.typed


@contextlib.contextmanager
def small_disk(folder, size):
    """Mounts a file system of its own, small until the function that comes back is called."""
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
def test_half_written_files_of_an_older_version_are_refused_or_replaced(whole, tool, tmp_path):
    broken = Broken(tmp_path / tool, tool, by_tool(whole, tool, tmp_path).copy)
    folder = broken.copy.folder
    weights = folder / MODEL
    weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "outputs/quick/nmr_srt/.video.mp4.17").write_bytes(b"half")
    (folder / "data/quick/packed/.nmr.partial/train").mkdir(parents=True)
    (folder / "data/quick/packed/.nmr.partial/train/images-00000.npy").write_bytes(b"half")
    if tool == "snakemake":  # which does not look at its outputs
        said = broken.fail()
        assert f"error: {MODEL}: not readable as weights" in said
        assert "delete it" in said
        weights.unlink()
    broken.finish()
    assert broken.results() == whole.results()


def test_dvcs_locks_of_a_dead_process_are_no_obstacle(whole, tmp_path):
    broken = by_tool(whole, "dvc", tmp_path)
    with subprocess.Popen(["true"]) as process:
        pass
    owner = {"pid": process.pid, "cmd": "dvc repro"}
    locks = broken.copy.folder / ".dvc" / "tmp"
    (locks / "lock").write_text(f"{process.pid:>10}\n")
    (locks / "rwlock").write_text(json.dumps({"write": {str(broken.copy.folder / MODEL): owner}}))
    assert "up to date" in broken.finish()
    assert not broken.typed
    (locks / "rwlock").write_text("")  # killed as it wrote this one
    assert ".dvc/tmp/rwlock" in broken.fail()
    assert "up to date" in broken.finish()
    assert broken.typed == [" ".join(DELETE_LOCK)]
