"""Daily use of DVC: experiments, comparisons, and results for a colleague who trains nothing."""

import contextlib
import csv
import json
import shutil
import subprocess

import pytest
import requests
from support.repository_copy import Copy
from support.tiny_pipeline import DVC, MODEL, duplicate, tiny_copy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RATE = "profiles.quick.train.learning_rate"
FRAMES = "+profiles.quick.experiments.nmr_srt.render.frames"  # with +, the key is new
METRICS = "outputs/quick/nmr_srt/metrics.json"
HISTORY = "outputs/quick/nmr_srt/history.csv"


def git(folder, *command):
    author = ("-c", "user.name=A colleague", "-c", "user.email=colleague@example.org")
    subprocess.run(["git", *author, *command], cwd=folder, check=True, capture_output=True)


def output_of(copy, *command):
    """Run a command, which must not fail, and return its output."""
    code, text = copy.run(*command)
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy whose pipeline DVC has run, and whose results are committed."""
    copy = tiny_copy(tmp_path_factory.mktemp("finished") / "repository")
    for role in ("AUTHOR", "COMMITTER"):
        copy.variables[f"GIT_{role}_NAME"] = "A colleague"
        copy.variables[f"GIT_{role}_EMAIL"] = "colleague@example.org"
    output_of(copy, *DVC)
    git(copy.folder, "add", "--all")
    git(copy.folder, "commit", "--quiet", "--message", "Results")
    return copy


@pytest.fixture(scope="module")
def with_experiments(finished, tmp_path_factory):
    """A copy in which DVC has run three experiments: one in place, and a queue of two."""
    copy = duplicate(finished, tmp_path_factory.mktemp("experiments") / "repository")
    output_of(copy, "dvc", "exp", "run", "--name", "fast", "--set-param", f"{RATE}=0.004")
    grid = ("--set-param", f"{RATE}=0.002,0.003", "--set-param", f"{FRAMES}=5")
    output_of(copy, "dvc", "exp", "run", "--queue", *grid)
    output_of(copy, "dvc", "exp", "run", "--run-all")
    return copy


def test_one_experiment_runs_by_its_name(finished, tmp_path):
    copy = duplicate(finished, tmp_path / "one")
    copy.edit_params({RATE: 0.005})
    text = output_of(copy, *DVC, "evaluate@nmr_srt")
    ran = [line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage")]
    assert ran == ["plan", "train@nmr_srt", "evaluate@nmr_srt"]


def test_experiments_are_listed_with_their_changes_and_their_figures(with_experiments):
    table = list(
        csv.DictReader(output_of(with_experiments, "dvc", "exp", "show", "--csv").splitlines())
    )
    rates = {row["Experiment"]: row for row in table if row["Experiment"]}
    assert len(rates) == 3
    assert "fast" in rates
    column = next(name for name in table[0] if name.endswith(RATE))
    score = next(name for name in table[0] if name.endswith("protocols.stelzner.psnr"))
    assert sorted(float(row[column]) for row in rates.values()) == [0.002, 0.003, 0.004]
    assert len({row[score] for row in rates.values()}) == 3


def test_a_queued_training_writes_its_states_to_the_repository(with_experiments):
    assert len(list(with_experiments.folder.glob("ckpt/quick/nmr_srt/*/tracking"))) == 3
    assert not list(with_experiments.folder.glob(".dvc/tmp/exps/**/ckpt"))


def test_metrics_parameters_and_plots_are_compared_with_the_last_commit(with_experiments):
    parameters = json.loads(
        output_of(with_experiments, "dvc", "params", "diff", "--json", "HEAD", "fast")
    )
    assert parameters["params.yaml"] == {RATE: {"old": 0.001, "new": 0.004, "diff": 0.003}}
    metrics = json.loads(
        output_of(with_experiments, "dvc", "metrics", "diff", "--json", "HEAD", "fast")
    )
    assert metrics[METRICS]["protocols.stelzner.psnr"]["diff"] != 0


def test_plots_have_titles_and_axes_and_show_every_revision(with_experiments, tmp_path):
    output_of(with_experiments, "dvc", "plots", "diff", "HEAD", "fast", "--out", tmp_path / "plots")
    page = (tmp_path / "plots" / "index.html").read_text()
    for text in ("nmr_srt, learning curves", "training step", "PSNR (dB)", "validation_psnr"):
        assert f'"{text}"' in page
    for revision in ("HEAD", "fast"):
        assert f'"rev": "{revision}"' in page
    pictures = [path.name for path in (tmp_path / "plots" / "static").iterdir()]
    comparisons = [name for name in pictures if name.endswith("nmr_srt_comparison.png")]
    assert len(comparisons) == 2


@contextlib.contextmanager
def folder_remote(copy, tmp_path):
    """The path of a folder."""
    yield tmp_path / "remote"


@contextlib.contextmanager
def s3_remote(copy, tmp_path):
    """The address of a bucket on an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        assert requests.put(f"{address}/lab", timeout=10).ok
        copy.variables |= {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "secret"}
        copy.variables |= {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
        yield "s3://lab/srt"
    finally:
        server.stop()


@pytest.mark.parametrize("remote", [folder_remote, s3_remote])
def test_a_colleague_gets_model_and_table_without_training(finished, remote, tmp_path):
    copy = duplicate(finished, tmp_path / "ours")
    with remote(copy, tmp_path) as address:
        # We push our results.
        output_of(copy, "dvc", "remote", "add", "--default", "store", str(address))
        git(copy.folder, "commit", "--quiet", "--all", "--message", "A remote")
        output_of(copy, "dvc", "push")

        # The colleague pulls them, and has the same files.
        git(tmp_path, "clone", "--quiet", copy.folder, "theirs")
        theirs = Copy.__new__(Copy)
        theirs.folder = tmp_path / "theirs"
        theirs.variables = copy.variables
        output_of(theirs, "dvc", "pull")
        for name in (MODEL, "reports/quick/results.md"):
            assert (theirs.folder / name).read_bytes() == (copy.folder / name).read_bytes()

        # Neither tool trains again.
        text = output_of(theirs, *DVC)
        assert "Data and pipelines are up to date" in text
        assert "Running stage" not in text
        output_of(theirs, "python", "-m", "workflow.tools.adopt", "snakemake")
        assert "Nothing to be done" in output_of(theirs, "snakemake", "--cores", "1", "results")
        assert not (theirs.folder / "ckpt").exists()
    shutil.rmtree(theirs.folder)
