"""The whole pipeline at its smallest, by Snakemake and by DVC: made once, made alike, resumed."""

import csv
import os
import shutil
import signal
import sys
import time

import psutil
import pytest
from repository_copy import Copy

WIDTHS = ("conv_channels", "decoder_hidden", "head_dim", "latent_dim", "mlp_dim")
TINY = {
    "profiles.quick.experiments": {},
    "datasets.nmr.views": 6,
    "profiles.quick.datasets.nmr.image_size": [16, 16],
    "profiles.quick.datasets.nmr.synthetic": {"scene": "object", "train": 6, "val": 3, "test": 3},
    **{f"profiles.quick.model.{width}": 8 for width in WIDTHS},
    "profiles.quick.model.heads": 1,
    "profiles.quick.model.encoder_layers": 1,
    "profiles.quick.train": {
        "steps": 6,
        "batch_size": 2,
        "rays_per_scene": 16,
        "rays_per_group": 1024,
        "learning_rate": 1.0e-3,
        "warmup_steps": 2,
        "decay_steps": 6,
        "log_every": 1,
        "validate_every": 3,
        "validation_items": 3,
        "picture_every": 6,
        "checkpoint_every": 2,
    },
    "profiles.quick.render": {"frames": 4, "fps": 4, "scenes": [0], "height": 16, "width": 16},
}
LONGER = {
    "steps": 1000,
    "validate_every": 500,
    "picture_every": 1000,
    "log_every": 100,
    "checkpoint_every": 20,
}
SNAKEMAKE = ("snakemake", "--cores", "1", "results")  # it sets OMP_NUM_THREADS to that
DVC = ("dvc", "repro")
MODEL = "outputs/quick/nmr_srt/model.safetensors"
NOWHERE = "http://127.0.0.1:9"  # a closed port: costs less than a new store
DEADLINE = 120  # seconds, for what takes one


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_no_gpu():
    """Has both tools add in the same order: the weights' last bits depend on the threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def made(one_thread_and_no_gpu, tmp_path_factory):
    """A copy that Snakemake made, with the default store, and one that DVC made."""
    copies = {tool: Copy(tmp_path_factory.mktemp(tool)) for tool in ("snakemake", "dvc")}
    for copy in copies.values():
        copy.keep("nmr_srt")
        copy.edit_params(TINY)
    copies["dvc"].variables |= {"MLFLOW_TRACKING_URI": NOWHERE, "SHELL": "/bin/sh"}  # DVC's shell
    run_both(copies)
    copies["snakemake"].variables["MLFLOW_TRACKING_URI"] = NOWHERE  # from here on
    return copies


def run_both(copies):
    """Returns what each tool said as they made everything, side by side."""
    started = {"snakemake": copies["snakemake"].start(*SNAKEMAKE), "dvc": copies["dvc"].start(*DVC)}
    said = {tool: process.communicate()[0] for tool, process in started.items()}
    for tool, process in started.items():
        assert process.returncode == 0, said[tool]
    return said


def test_both_tools_make_the_same_results(made):
    tables = [rows(copy) for copy in made.values()]
    assert tables[0]
    assert tables[0] == tables[1]
    for name in (MODEL, "outputs/quick/nmr_srt/video.mp4", "outputs/quick/nmr_srt/metrics.json"):
        first, second = ((copy.folder / name).read_bytes() for copy in made.values())
        assert first == second, name


def rows(copy):
    """Returns results.csv without what the training cost."""
    text = (copy.folder / "reports/quick/results.csv").read_text().splitlines()
    costs = ("training_seconds", "encode_seconds", "frame_seconds")
    table = list(csv.DictReader(text))
    assert all(cost in table[0] for cost in costs)
    return [{key: row[key] for key in row if key not in costs} for row in table]


def test_what_is_made_is_not_made_again(made):
    code, said = made["snakemake"].run(*SNAKEMAKE)
    assert code == 0
    assert "Nothing to be done" in said
    code, said = made["dvc"].run(*DVC)
    assert code == 0
    assert "Data and pipelines are up to date" in said
    assert "Running stage" not in said


def test_training_evaluation_and_video_are_one_run_in_mlflow(made):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{made['snakemake'].folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "quick: nmr"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["synthetic"] == "yes"
    assert run.data.params["train.steps"] == "6"
    assert "test/pixelnerf/psnr" in run.data.metrics
    losses = client.get_metric_history(run.info.run_id, "train/psnr")
    assert [point.step for point in losses] == [1, 2, 3, 4, 5, 6]
    names = {i.dataset.name for i in run.inputs.dataset_inputs}
    assert names == {"nmr train", "nmr val", "nmr test"}
    assert [run.info.run_id] == [v.run_id for v in client.search_model_versions()]
    for file in ("evaluation/metrics.json", "videos/video.mp4"):
        folder = client.list_artifacts(run.info.run_id, file.split("/")[0])
        assert file in [entry.path for entry in folder]


@pytest.mark.parametrize("command", [SNAKEMAKE, DVC], ids=["snakemake", "dvc"])
def test_a_wrong_key_is_named_before_anything_runs(command, tmp_path):
    copy = Copy(tmp_path)
    copy.edit_params({"profiles.quick.render.framez": 4})
    code, said = copy.run(*command)
    assert code != 0
    assert "framez" in said
    assert not any(path.is_file() for path in (tmp_path / "data").rglob("*"))


def test_a_changed_video_is_rendered_again_and_nothing_is_trained_again(made):
    before = {tool: (copy.folder / MODEL).stat().st_mtime_ns for tool, copy in made.items()}
    for copy in made.values():
        copy.edit_params({"profiles.quick.render.frames": 5})
    said = run_both(made)
    assert stages_run(said["snakemake"], "rule ", ":") == ["render", "tabulate"]
    assert stages_run(said["dvc"], "Running stage '", "':") == ["render@nmr_srt", "tabulate"]
    for tool, copy in made.items():
        assert (copy.folder / MODEL).stat().st_mtime_ns == before[tool]


def stages_run(said, before, after):
    """Returns the names between two marks, but for Snakemake's target."""
    lines = [line.removeprefix("local") for line in said.splitlines()]
    names = [line.split(before)[1].split(after)[0] for line in lines if line.startswith(before)]
    return [name for name in names if name != "results"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", ["snakemake", "dvc"])
def test_a_killed_tool_leaves_no_training_and_the_next_run_ends_as_if_it_had_not_been(
    made, tool, tmp_path
):
    copy = copied(made[tool], tmp_path / "killed")
    copy.edit_params({f"profiles.quick.train.{key}": value for key, value in LONGER.items()})
    expected = uninterrupted(copy, tmp_path)
    command = SNAKEMAKE if tool == "snakemake" else DVC
    process = copy.start(*command)
    wait_until(lambda: list(copy.folder.glob("ckpt/quick/nmr_srt/*/state-000000*")), process)
    trainings = trainings_in(copy)
    assert trainings
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not trainings_in(copy))
    assert not (copy.folder / MODEL).exists()  # else it was killed too late to show anything

    if tool == "snakemake":
        assert copy.run("snakemake", "--cores", "1", "--unlock")[0] == 0
    code, said = copy.run(*command)
    assert code == 0, said
    assert (copy.folder / MODEL).read_bytes() == expected


def copied(copy, folder):
    """Returns a copy with everything that is made in it, but for the states of its trainings."""
    shutil.copytree(copy.folder, folder, symlinks=True)
    shutil.rmtree(folder / "ckpt")
    twin = Copy.__new__(Copy)
    twin.folder, twin.variables = folder, copy.variables
    return twin


def uninterrupted(copy, folder):
    """Returns the weights of the training that was not killed."""
    command = [sys.executable, "-m", "workflow.train", "--profile", "quick"]
    command += ["--experiment", "nmr_srt", "--data", "data/quick/packed/nmr"]
    code, said = copy.run(*command, "--out", folder / "out", "--states", folder / "states")
    assert code == 0, said
    return (folder / "out" / "model.safetensors").read_bytes()


def trainings_in(copy):
    """Returns the processes that train in a copy."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        training = "workflow.train" in (process.info["cmdline"] or [])
        if training and process.info["cwd"] == str(copy.folder):
            found.append(process.pid)
    return found


def wait_until(happened, process=None):
    """Returns once something has happened; fails if the process ends before, or at the deadline."""
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.05)
