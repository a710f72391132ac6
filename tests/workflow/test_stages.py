"""The whole pipeline at its smallest size, run by Snakemake and by DVC.

Both make the same results, make nothing twice, and go on after a kill.
"""

import os
import re
import shutil
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
    duplicate,
    read_results,
    running_stages,
    wait_until,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_no_gpu():
    """Let both tools add numbers in the same order, on which the weights' last bits depend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def finished(one_thread_and_no_gpu, tmp_path_factory):
    """Two copies, by tool: Snakemake has run one of them, and DVC the other."""
    copies = {tool: Copy(tmp_path_factory.mktemp(tool)) for tool in ("snakemake", "dvc")}
    for copy in copies.values():
        copy.reduce_params("nmr_srt")
        copy.edit_params(TINY)

    # Only Snakemake's first run writes to a store of MLflow. DVC starts commands by $SHELL.
    copies["dvc"].variables |= {"MLFLOW_TRACKING_URI": NOWHERE, "SHELL": "/bin/sh"}
    run_both(copies)
    copies["snakemake"].variables["MLFLOW_TRACKING_URI"] = NOWHERE
    return copies


def run_both(copies):
    """Run both tools at once, and return the output of each."""
    commands = {"snakemake": SNAKEMAKE, "dvc": DVC}
    processes = {tool: copies[tool].start(*command) for tool, command in commands.items()}
    outputs = {tool: process.communicate()[0] for tool, process in processes.items()}
    for tool, process in processes.items():
        assert process.returncode == 0, outputs[tool]
    return outputs


def test_both_tools_make_the_same_results(finished):
    tables = [read_results(copy) for copy in finished.values()]
    assert tables[0]
    assert tables[0] == tables[1]
    for name in (MODEL, "outputs/quick/nmr_srt/video.mp4", "outputs/quick/nmr_srt/metrics.json"):
        first, second = ((copy.folder / name).read_bytes() for copy in finished.values())
        assert first == second, name


# Every stage in one process, so that the libraries are imported once.
ALONE = """
import sys
from workflow.tools.main import main
for command in sys.argv[1:]:
    sys.argv = ["srt", *command.split()]
    main()
"""


def test_commands_that_name_no_path_make_the_files_of_the_pipeline(finished, tmp_path):
    copy = duplicate(finished["dvc"], tmp_path / "alone")
    for name in ("data", "outputs", "reports/quick"):
        shutil.rmtree(copy.folder / name)
    commands = ["fetch --name nmr", "fetch --name lpips_vgg", "fetch --name lpips_alex"]
    commands += ["pack --dataset nmr", "survey --dataset nmr"]
    commands += [f"{stage} --experiment nmr_srt" for stage in ("train", "evaluate", "render")]
    code, output = copy.run(sys.executable, "-c", ALONE, *commands, "tabulate")
    assert code == 0, output

    # There are the same files, and what does not depend on time is equal in them.
    assert list_results(copy) == list_results(finished["dvc"])
    for name in (MODEL, "outputs/quick/nmr_srt/video.mp4", "outputs/quick/nmr_srt/metrics.json"):
        assert (copy.folder / name).read_bytes() == (finished["dvc"].folder / name).read_bytes()
    assert read_results(copy) == read_results(finished["dvc"])


def list_results(copy):
    """Return the paths of all results in a copy."""
    paths = [copy.folder.glob(f"{name}/**/*") for name in ("data", "outputs", "reports")]
    return {path.relative_to(copy.folder) for found in paths for path in found}


def test_results_that_are_up_to_date_are_not_made_again(finished):
    code, output = finished["snakemake"].run(*SNAKEMAKE)
    assert code == 0
    assert "Nothing to be done" in output
    code, output = finished["dvc"].run(*DVC)
    assert code == 0
    assert "Data and pipelines are up to date" in output
    assert "Running stage" not in output


@pytest.mark.parametrize("tool", ["dvc", "snakemake"])
def test_results_of_the_other_tool_are_adopted_and_not_made_again(finished, tool, tmp_path):
    other = "snakemake" if tool == "dvc" else "dvc"
    copy = duplicate(finished[other], tmp_path / "adopted")
    inode = (copy.folder / MODEL).stat().st_ino
    code, output = copy.run(sys.executable, "-m", "workflow.tools.adopt", tool)
    assert code == 0, output
    assert "not up to date" not in output
    for command, words in ((DVC, "up to date"), (SNAKEMAKE, "Nothing to be done")):
        code, output = copy.run(*command)
        assert code == 0, output
        assert words in output
    assert (copy.folder / MODEL).stat().st_ino == inode


@pytest.mark.parametrize("tool", ["dvc", "snakemake"])
def test_only_results_that_are_up_to_date_are_adopted_and_the_others_are_named(
    finished, tool, tmp_path
):
    other = "snakemake" if tool == "dvc" else "dvc"
    copy = duplicate(finished[other], tmp_path / "adopted")
    copy.edit_params({"profiles.quick.train.learning_rate": 1.0e-2})
    code, output = copy.run(sys.executable, "-m", "workflow.tools.adopt", tool)
    assert code == 0, output
    names = output.split("still to be made: ")[1].splitlines()[0].split(", ")
    assert names == ["evaluate@nmr_srt", "render@nmr_srt", "tabulate", "train@nmr_srt"]
    planned = ("snakemake", "--cores", "1", "--dry-run", "results")
    _, output = copy.run(*(("dvc", "repro", "--dry") if tool == "dvc" else planned))
    assert "train" in output
    assert "workflow.pack" not in output
    assert "rule pack" not in output


@pytest.mark.parametrize("tool", ["dvc", "snakemake"])
def test_status_says_what_is_done_and_what_a_tool_would_make_and_why(finished, tool, tmp_path):
    copy = duplicate(finished[tool], tmp_path / "copy")
    command = (sys.executable, "-m", "workflow.tools.status", "--tool", tool)
    code, output = copy.run(*command)
    assert code == 0, output
    assert f"{tool} has nothing to make" in output
    assert re.search(r"^nmr_srt +done +6 of 6 ", output, re.MULTILINE)

    # A comment makes nothing again.
    copy.edit("srt/rendering/frames.py", "from __future__", "# changed\nfrom __future__")
    assert f"{tool} has nothing to make" in copy.run(*command)[1]

    # A change of a statement makes the video again, and with it the table.
    copy.edit("srt/rendering/frames.py", "WORTH_COMPILING = 100", "WORTH_COMPILING = 101")
    changed = "plan/quick/render/nmr_srt.json modified"
    why = changed if tool == "dvc" else "params changed"
    expected = f"{tool} would make\n  render@nmr_srt: {why}\n  tabulate: what it is made of\n"
    assert copy.run(*command)[1].endswith(expected)

    # A change of a parameter makes the model stale.
    copy.edit_params({"profiles.quick.train.learning_rate": 1.0e-2})
    assert re.search(r"stale .*learning_rate: 0.01 here, 0.001 there", copy.run(*command)[1])


def test_the_report_is_one_file_with_tables_figures_and_videos(finished, tmp_path):
    code, output = finished["snakemake"].run("snakemake", "--report", tmp_path / "report.html")
    assert code == 0, output
    page = (tmp_path / "report.html").read_text()
    files = set(re.findall(r"data:([a-z]+/[a-z0-9-]+);charset=utf8;filename=([a-z0-9.]+);", page))

    # Pictures, tables and videos are in the page itself; it loads nothing from the web.
    pictures = ("cameras.png", "comparison.png", "curves.png", "scenes.png")
    assert files >= {("image/png", name) for name in pictures}
    assert files >= {("text/html", "index.html"), ("text/csv", "results.csv")}
    assert ("video/mp4", "video.mp4") in files
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    for text in ("a camera moves around test scenes", '"Videos": {'):
        assert text in page


def test_training_evaluation_and_video_are_one_run_in_mlflow(finished):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished['snakemake'].folder}/mlflow.db")
    (experiment,) = [entry for entry in client.search_experiments() if entry.name == "quick: nmr"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["synthetic"] == "yes"
    assert run.data.tags["evaluate.launched_by"] == "snakemake: rule evaluate"
    assert run.data.params["train.steps"] == "6"
    assert "test/pixelnerf/psnr" in run.data.metrics

    # Its curves, data, model and files.
    losses = client.get_metric_history(run.info.run_id, "train/psnr")
    assert [point.step for point in losses] == [1, 2, 3, 4, 5, 6]
    names = {entry.dataset.name for entry in run.inputs.dataset_inputs}
    assert names == {"nmr train", "nmr val", "nmr test"}
    assert [run.info.run_id] == [version.run_id for version in client.search_model_versions()]
    for file in ("evaluation/metrics.json", "videos/video.mp4"):
        folder = client.list_artifacts(run.info.run_id, file.split("/")[0])
        assert file in [entry.path for entry in folder]


@pytest.mark.parametrize("command", [SNAKEMAKE, DVC], ids=["snakemake", "dvc"])
def test_a_wrong_key_is_named_before_anything_runs(command, tmp_path):
    copy = Copy(tmp_path)
    copy.edit_params({"profiles.quick.render.framez": 4})
    code, output = copy.run(*command)
    assert code != 0
    assert "framez" in output
    assert not any(path.is_file() for path in (tmp_path / "data").rglob("*"))


def test_a_changed_video_is_rendered_again_and_nothing_is_trained_again(finished):
    times = {tool: (copy.folder / MODEL).stat().st_mtime_ns for tool, copy in finished.items()}
    for copy in finished.values():
        copy.edit_params({"profiles.quick.render.frames": 5})
    outputs = run_both(finished)
    stages = names_between(outputs["snakemake"], "rule ", ":")
    assert stages == ["render", "tabulate"]
    stages = names_between(outputs["dvc"], "Running stage '", "':")
    assert stages == ["plan", "render@nmr_srt", "tabulate"]
    for tool, copy in finished.items():
        assert (copy.folder / MODEL).stat().st_mtime_ns == times[tool]


def names_between(output, start, end):
    """Return the names of stages between two texts of a line; Snakemake's target is no stage."""
    lines = [line.removeprefix("local") for line in output.splitlines()]
    names = [line.split(start)[1].split(end)[0] for line in lines if line.startswith(start)]
    return [name for name in names if name != "results"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", ["snakemake", "dvc"])
def test_a_killed_tool_leaves_no_process_and_the_next_run_gives_the_same_weights(
    finished, tool, tmp_path
):
    copy = duplicate(finished[tool], tmp_path / "killed")
    copy.edit_params({f"profiles.quick.train.{key}": value for key, value in LONGER.items()})
    expected = uninterrupted_weights(copy, tmp_path)

    # Kill the tool after the first saved state of the training.
    command = SNAKEMAKE if tool == "snakemake" else DVC
    process = copy.start(*command)
    wait_until(lambda: list(copy.folder.glob("ckpt/quick/nmr_srt/*/state-000000*")), process)
    assert "train" in running_stages(copy).values()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not running_stages(copy))
    assert not (copy.folder / MODEL).exists()  # it was killed before its end

    # Run it again.
    if tool == "snakemake":
        assert copy.run("snakemake", "--cores", "1", "--unlock")[0] == 0
    code, output = copy.run(*command)
    assert code == 0, output
    assert (copy.folder / MODEL).read_bytes() == expected


def uninterrupted_weights(copy, folder):
    """Train without an interruption, and return the bytes of the weights."""
    command = [sys.executable, "-m", "workflow.train", "--profile", "quick"]
    command += ["--experiment", "nmr_srt", "--data", "data/quick/packed/nmr"]
    code, output = copy.run(*command, "--out", folder / "out", "--states", folder / "states")
    assert code == 0, output
    return (folder / "out" / "model.safetensors").read_bytes()
