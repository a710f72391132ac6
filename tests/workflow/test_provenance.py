"""A run says which commit, which stage of which tool and which machine it comes from."""

import subprocess

import pytest

from workflow.common import provenance


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch):
    for name in ("DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(provenance, "parent_commands", lambda: ["bash", "init"])


def commit(folder):
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in ("srt/code.py", "reports/results.md"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("")
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)


def test_the_commit_is_a_tag_only_where_there_is_one(tmp_path):
    assert "git_commit" not in provenance.run_tags("train", tmp_path)
    assert "train.commit" not in provenance.stage_tags("train", tmp_path, tmp_path)
    commit(tmp_path)
    tags = provenance.run_tags("train", tmp_path)
    assert len(tags["git_commit"]) == 40
    assert tags["git_dirty"] == "no"
    assert provenance.stage_tags("train", tmp_path, tmp_path)["train.commit"] == tags["git_commit"]


def test_code_that_differs_from_its_commit_says_so(tmp_path):
    commit(tmp_path)
    (tmp_path / "srt" / "code.py").write_text("x = 1")
    assert provenance.run_tags("train", tmp_path)["git_dirty"] == "yes"
    assert provenance.stage_tags("train", tmp_path, tmp_path)["train.commit"].endswith(
        " and changes"
    )


def test_a_module_that_git_does_not_track_is_a_change_of_the_code(tmp_path):
    commit(tmp_path)
    (tmp_path / "srt" / "another.py").write_text("")
    assert provenance.run_tags("train", tmp_path)["git_dirty"] == "yes"


def test_results_that_a_stage_writes_are_no_change_of_the_code(tmp_path):
    commit(tmp_path)
    (tmp_path / "reports" / "results.md").write_text("21.5 dB")
    (tmp_path / "reports" / "results.csv").write_text("21.5")
    assert provenance.run_tags("train", tmp_path)["git_dirty"] == "no"


def test_a_stage_names_the_tool_that_started_it(tmp_path, monkeypatch):
    assert provenance.launcher("train") == "command line"
    monkeypatch.setattr(
        provenance, "parent_commands", lambda: ["python -m snakemake --cores 1", "bash"]
    )
    assert provenance.launcher("train") == "snakemake: rule train"
    monkeypatch.setenv("DVC_STAGE", "train@nmr_srt")
    assert provenance.launcher("train") == "dvc: train@nmr_srt"
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'")
    tags = provenance.stage_tags("train", tmp_path)
    assert tags["train.slurm_job"] == "4711"
    assert len(tags["train.dvc_lock"]) == 12


def test_an_experiment_of_dvc_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "murky-tee")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0123456789")
    tags = provenance.run_tags("train", tmp_path)
    assert (tags["dvc_experiment"], tags["dvc_baseline"]) == ("murky-tee", "0123456789")
