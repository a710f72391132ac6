"""Where a run comes from, as tags: commit, machine, DVC's experiment and stage, Snakemake's job."""

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


def run_tags(stage: str, code: Path = REPOSITORY) -> dict[str, str]:
    """Returns the tags of a run that a stage begins, as far as they are known."""
    tags = {
        "mlflow.source.name": f"workflow.{stage}",
        "mlflow.source.type": "LOCAL",
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
        "dvc_baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
    with suppress(OSError, KeyError):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    if commit := git(code, "rev-parse", "HEAD"):
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit
        tags["git_dirty"] = "yes" if has_uncommitted_changes(code) else "no"
        tags["mlflow.source.git.branch"] = git(code, "branch", "--show-current")
        tags["mlflow.source.git.repoURL"] = git(code, "remote", "get-url", "origin")
    return {key: value for key, value in tags.items() if value}


def stage_tags(stage: str, root: Path, code: Path = REPOSITORY) -> dict[str, str]:
    """Returns who runs a stage of a run, where and with which code: it may be others each time.

    Args:
        root: of the repository whose dvc.lock says what DVC had made before.
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
    """Returns `dvc: train@nmr_srt`, `snakemake: rule train` or `command line`."""
    if name := os.environ.get("DVC_STAGE"):
        return f"dvc: {name}"
    return (
        f"snakemake: rule {stage}" if "snakemake" in " ".join(parent_commands()) else "command line"
    )


def parent_commands() -> Iterable[str]:
    """Yields the commands of the processes that this one was started by."""
    import psutil

    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            yield " ".join(process.cmdline()[:4])


def code_version(code: Path = REPOSITORY) -> str:
    """Returns the commit of the code, and whether it was changed since; nothing where not known."""
    commit = git(code, "rev-parse", "HEAD")
    return f"{commit}{' and changes' if has_uncommitted_changes(code) else ''}" if commit else ""


def has_uncommitted_changes(code: Path) -> bool:
    """Returns whether files that git knows differ from the commit."""
    return bool(git(code, "status", "--porcelain", "--untracked-files=no"))


def git(code: Path, *arguments: str) -> str:
    """Returns what git says of the code; nothing without git or a repository."""
    command = ["git", "-C", str(code), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
