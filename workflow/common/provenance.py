"""Where a run comes from, as tags of MLflow: its commit and machine, and what started it."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from srt.common.files import sha256_of
from workflow import REPOSITORY

# What determines a run. params.yaml is not among it: every run records its values.
CODE = ("srt", "workflow", "Snakefile", "dvc.yaml", "pyproject.toml", "constraints.txt")


def run_tags(stage: str, code: Path = REPOSITORY) -> dict[str, str]:
    """Return the tags of a run that a stage begins. A tag whose value is unknown is left out."""
    tags = {
        "mlflow.source.name": f"workflow.{stage}",
        "mlflow.source.type": "LOCAL",
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
        "dvc_baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
    with suppress(OSError, KeyError):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    return {key: value for key, value in (tags | git_tags(code)).items() if value}


def git_tags(code: Path) -> dict[str, str]:
    """Return the tags that describe the commit of the code; none without a repository."""
    commit = git(code, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "git_commit": commit,
        "mlflow.source.git.commit": commit,
        "git_dirty": "yes" if has_uncommitted_changes(code) else "no",
        "mlflow.source.git.branch": git(code, "branch", "--show-current"),
        "mlflow.source.git.repoURL": git(code, "remote", "get-url", "origin"),
    }


def stage_tags(stage: str, root: Path, code: Path = REPOSITORY) -> dict[str, str]:
    """Return who runs a stage, where, and with which code.

    A run has several stages, and each may be run by another person on another machine.

    Args:
        stage: its name is put before the tags.
        root: the repository whose dvc.lock says what DVC had made before.
        code: the checkout that the code is run from.
    """
    lock = root / "dvc.lock"
    tags = {
        "commit": code_version(code),
        "host": platform.node(),
        "launched_by": launcher(stage),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "dvc_lock": sha256_of(lock)[:12] if lock.is_file() else "",
    }
    return {f"{stage}.{key}": value for key, value in tags.items() if value}


def launcher(stage: str) -> str:
    """Return what runs a stage: `dvc: train@nmr_srt`, `snakemake: rule train` or `command line`."""
    # DVC names the stage that it runs. Snakemake does not, but it is among the parent processes.
    if name := os.environ.get("DVC_STAGE"):
        return f"dvc: {name}"
    if any("snakemake" in command for command in parent_commands()):
        return f"snakemake: rule {stage}"
    return "command line"


def parent_commands() -> Iterable[str]:
    """Yield the commands of the parent process, of its parent, and so on."""
    import psutil

    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            yield " ".join(process.cmdline()[:4])


def code_version(code: Path = REPOSITORY) -> str:
    """Return the commit of the code, with ` and changes` after it if the code differs from it.

    The text is empty if the code is not in a repository of git.
    """
    commit = git(code, "rev-parse", "HEAD")
    if commit and has_uncommitted_changes(code):
        return f"{commit} and changes"
    return commit


def has_uncommitted_changes(code: Path) -> bool:
    """Return whether code, or its configuration, differs from the commit.

    Modules that git does not track yet count too, because they run. Reports do not count: stages
    write them, so they would make every later run look changed.
    """
    return bool(git(code, "status", "--porcelain", "--untracked-files=all", "--", *CODE))


def git(code: Path, *arguments: str) -> str:
    """Return what git prints about the code; nothing without git or without a repository."""
    command = ["git", "-C", str(code), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
