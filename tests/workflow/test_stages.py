"""The whole pipeline at its smallest, by Snakemake and by DVC: made once, made alike, resumed."""

import os
import re
import signal
import sys

import pytest
from support.repository_copy import Copy
from support.tiny_pipeline import (
    DVC,
    LONGER,
    MODEL,
    NOWHERE,
    SNAKEMAKE,
    TINY,
    copied,
    rows,
    stages_in,
    wait_until,
)


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


def test_what_is_made_is_not_made_again(made):
    code, said = made["snakemake"].run(*SNAKEMAKE)
    assert code == 0
    assert "Nothing to be done" in said
    code, said = made["dvc"].run(*DVC)
    assert code == 0
    assert "Data and pipelines are up to date" in said
    assert "Running stage" not in said


@pytest.mark.parametrize("tool", ["dvc", "snakemake"])
def test_what_the_other_tool_made_is_adopted_and_nothing_is_made_again(made, tool, tmp_path):
    other = "snakemake" if tool == "dvc" else "dvc"
    copy = copied(made[other], tmp_path / "adopted")
    before = (copy.folder / MODEL).stat().st_ino
    code, said = copy.run(sys.executable, "-m", "workflow.tools.adopt", tool)
    assert code == 0, said
    assert "not up to date" not in said
    for command, words in ((DVC, "up to date"), (SNAKEMAKE, "Nothing to be done")):
        code, said = copy.run(*command)
        assert code == 0, said
        assert words in said
    assert (copy.folder / MODEL).stat().st_ino == before


@pytest.mark.parametrize("tool", ["dvc", "snakemake"])
def test_only_what_is_up_to_date_is_adopted_and_the_rest_is_named(made, tool, tmp_path):
    other = "snakemake" if tool == "dvc" else "dvc"
    copy = copied(made[other], tmp_path / "adopted")
    copy.edit_params({"profiles.quick.train.learning_rate": 1.0e-2})
    code, said = copy.run(sys.executable, "-m", "workflow.tools.adopt", tool)
    assert code == 0, said
    names = said.split("still to be made: ")[1].splitlines()[0].split(", ")
    assert names == ["evaluate@nmr_srt", "render@nmr_srt", "tabulate", "train@nmr_srt"]
    planned = ("snakemake", "--cores", "1", "--dry-run", "results")
    _, said = copy.run(*(("dvc", "repro", "--dry") if tool == "dvc" else planned))
    assert "train" in said
    assert "workflow.pack" not in said
    assert "rule pack" not in said


@pytest.mark.parametrize("tool", ["dvc", "snakemake"])
def test_status_tells_what_is_done_and_what_a_tool_would_make_and_why(made, tool, tmp_path):
    copy = copied(made[tool], tmp_path / "asked")
    asked = (sys.executable, "-m", "workflow.tools.status", "--tool", tool)
    code, said = copy.run(*asked)
    assert code == 0, said
    assert f"{tool} has nothing to make" in said
    assert re.search(r"^nmr_srt +done +6 of 6 ", said, re.MULTILINE)
    copy.edit("srt/rendering/frames.py", "from __future__", "# changed\nfrom __future__")
    why = "srt/rendering/frames.py modified" if tool == "dvc" else "updated input files"
    made_next = f"{tool} would make\n  render@nmr_srt: {why}\n  tabulate: what it is made of\n"
    assert copy.run(*asked)[1].endswith(made_next)
    copy.edit_params({"profiles.quick.train.learning_rate": 1.0e-2})
    assert re.search(r"stale .*learning_rate: 0.01 here, 0.001 there", copy.run(*asked)[1])


def test_the_report_is_one_file_with_tables_figures_and_videos(made, tmp_path):
    code, said = made["snakemake"].run("snakemake", "--report", tmp_path / "report.html")
    assert code == 0, said
    page = (tmp_path / "report.html").read_text()
    held = set(re.findall(r"data:([a-z]+/[a-z0-9-]+);charset=utf8;filename=([a-z0-9.]+);", page))
    pictures = ("cameras.png", "comparison.png", "curves.png", "scenes.png")
    assert held >= {("image/png", name) for name in pictures}
    assert held >= {("text/html", "index.html"), ("text/csv", "results.csv")}
    assert ("video/mp4", "video.mp4") in held
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    for text in ("a camera moves around test scenes", '"Videos": {'):
        assert text in page


def test_training_evaluation_and_video_are_one_run_in_mlflow(made):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{made['snakemake'].folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "quick: nmr"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["synthetic"] == "yes"
    assert run.data.tags["evaluate.launched_by"] == "snakemake: rule evaluate"
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
    assert "train" in stages_in(copy).values()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not stages_in(copy))
    assert not (copy.folder / MODEL).exists()  # else it was killed too late to show anything

    if tool == "snakemake":
        assert copy.run("snakemake", "--cores", "1", "--unlock")[0] == 0
    code, said = copy.run(*command)
    assert code == 0, said
    assert (copy.folder / MODEL).read_bytes() == expected


def uninterrupted(copy, folder):
    """Returns the weights of the training that was not killed."""
    command = [sys.executable, "-m", "workflow.train", "--profile", "quick"]
    command += ["--experiment", "nmr_srt", "--data", "data/quick/packed/nmr"]
    code, said = copy.run(*command, "--out", folder / "out", "--states", folder / "states")
    assert code == 0, said
    return (folder / "out" / "model.safetensors").read_bytes()
