"""DVC from day to day: experiments, comparisons, and a colleague who trains nothing."""

import contextlib
import csv
import json
import shutil
import subprocess

import pytest
import requests
from support.repository_copy import Copy
from support.tiny_pipeline import DVC, MODEL, copied, tiny_copy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RATE = "profiles.quick.train.learning_rate"
FRAMES = "+profiles.quick.experiments.nmr_srt.render.frames"  # +: params.yaml does not have it
METRICS = "outputs/quick/nmr_srt/metrics.json"
HISTORY = "outputs/quick/nmr_srt/history.csv"


def git(folder, *command):
    who = ("-c", "user.name=A colleague", "-c", "user.email=colleague@example.org")
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


def said(copy, *command):
    """Returns what a command says, which must not fail."""
    code, text = copy.run(*command)
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A committed repository whose pipeline DVC has run."""
    copy = tiny_copy(tmp_path_factory.mktemp("made") / "repository")
    names = {f"GIT_{who}_NAME": "A colleague" for who in ("AUTHOR", "COMMITTER")}
    names |= {f"GIT_{who}_EMAIL": "colleague@example.org" for who in ("AUTHOR", "COMMITTER")}
    copy.variables |= names
    said(copy, *DVC)
    git(copy.folder, "add", "--all")
    git(copy.folder, "commit", "--quiet", "--message", "Results")
    return copy


@pytest.fixture(scope="module")
def tried(made, tmp_path_factory):
    """The same, with an experiment in its workspace and a grid of two that were queued."""
    copy = copied(made, tmp_path_factory.mktemp("tried") / "repository")
    said(copy, "dvc", "exp", "run", "--name", "fast", "--set-param", f"{RATE}=0.004")
    grid = ("--set-param", f"{RATE}=0.002,0.003", "--set-param", f"{FRAMES}=5")
    said(copy, "dvc", "exp", "run", "--queue", *grid)
    said(copy, "dvc", "exp", "run", "--run-all")
    return copy


def test_one_experiment_is_made_by_its_name(made, tmp_path):
    copy = copied(made, tmp_path / "one")
    copy.edit_params({RATE: 0.005})
    text = said(copy, *DVC, "evaluate@nmr_srt")
    ran = [line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage")]
    assert ran == ["plan", "train@nmr_srt", "evaluate@nmr_srt"]


def test_experiments_are_listed_with_what_differs_and_what_it_gave(tried):
    table = list(csv.DictReader(said(tried, "dvc", "exp", "show", "--csv").splitlines()))
    rates = {row["Experiment"]: row for row in table if row["Experiment"]}
    assert len(rates) == 3
    assert "fast" in rates
    column = next(name for name in table[0] if name.endswith(RATE))
    score = next(name for name in table[0] if name.endswith("protocols.stelzner.psnr"))
    assert sorted(float(row[column]) for row in rates.values()) == [0.002, 0.003, 0.004]
    assert len({row[score] for row in rates.values()}) == 3


def test_a_queued_training_leaves_its_states_where_the_others_are(tried):
    assert len(list(tried.folder.glob("ckpt/quick/nmr_srt/*/tracking"))) == 3
    assert not list(tried.folder.glob(".dvc/tmp/exps/**/ckpt"))


def test_metrics_parameters_and_plots_are_compared_with_the_last_commit(tried):
    parameters = json.loads(said(tried, "dvc", "params", "diff", "--json", "HEAD", "fast"))
    assert parameters["params.yaml"] == {RATE: {"old": 0.001, "new": 0.004, "diff": 0.003}}
    metrics = json.loads(said(tried, "dvc", "metrics", "diff", "--json", "HEAD", "fast"))
    assert metrics[METRICS]["protocols.stelzner.psnr"]["diff"] != 0


def test_plots_have_titles_and_axes_and_show_every_revision(tried, tmp_path):
    said(tried, "dvc", "plots", "diff", "HEAD", "fast", "--out", tmp_path / "plots")
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
    yield tmp_path / "remote"


@contextlib.contextmanager
def s3_remote(copy, tmp_path):
    """An S3 server on this machine."""
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
def test_a_colleague_gets_model_and_table_without_training(made, remote, tmp_path):
    copy = copied(made, tmp_path / "ours")
    with remote(copy, tmp_path) as address:
        said(copy, "dvc", "remote", "add", "--default", "store", str(address))
        git(copy.folder, "commit", "--quiet", "--all", "--message", "Where the data is")
        said(copy, "dvc", "push")

        git(tmp_path, "clone", "--quiet", copy.folder, "theirs")
        theirs = Copy.__new__(Copy)
        theirs.folder, theirs.variables = tmp_path / "theirs", copy.variables
        said(theirs, "dvc", "pull")
        for name in (MODEL, "reports/quick/results.md"):
            assert (theirs.folder / name).read_bytes() == (copy.folder / name).read_bytes()
        text = said(theirs, *DVC)
        assert "Data and pipelines are up to date" in text
        assert "Running stage" not in text
        said(theirs, "python", "-m", "workflow.tools.adopt", "snakemake")
        assert "Nothing to be done" in said(theirs, "snakemake", "--cores", "1", "results")
        assert not (theirs.folder / "ckpt").exists()
    shutil.rmtree(theirs.folder)
