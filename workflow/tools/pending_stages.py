"""Which stages DVC or Snakemake would run again, and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from srt.tracking.outbox import flatten
from workflow.tools.adopt import Stages, list_stages, make_plan, snakemake_summary
from workflow.tools.experiment_status import shorten_list

AFTER = "what it is made of"  # the reason of a stage that only follows another one


def pending_lines(tool: Literal["dvc", "snakemake"]) -> list[str]:
    """Return lines for a terminal: each stage that a tool would run, and why."""
    from dvc.repo import Repo

    # Ask the tool. DVC's own log would mix with the table.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo(".") as repo:
        make_plan(repo)
        stages = list_stages(repo)
        reasons = dvc_reasons(repo.status()) if tool == "dvc" else snakemake_reasons(stages)

    # A stage is also run again if a stage before it is. Those before it come first in this order.
    for name in sorted(stages.outputs, key=lambda name: len(stages.ancestors[name])):
        if name not in reasons and stages.ancestors[name].intersection(reasons):
            reasons[name] = [AFTER]

    lines = [f"  {name}: {shorten_list(texts)}" for name, texts in reasons.items()]
    return ["", f"{tool} would make" if lines else f"{tool} has nothing to make", *lines]


def dvc_reasons(status: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Return why DVC would run each stage, in its own words.

    Args:
        status: DVC's reasons by stage: a text, or `{"changed deps": {path: "modified"}}`.
    """
    reasons: dict[str, list[str]] = {}
    for name, entries in status.items():
        reasons[name] = [entry for entry in entries if isinstance(entry, str)]
        for entry in entries:
            if isinstance(entry, Mapping):
                changes = {path: how for paths in entry.values() for path, how in paths.items()}
                reasons[name] += [f"{path} {how}" for path, how in flatten(changes).items()]
    return reasons


def snakemake_reasons(stages: Stages) -> dict[str, list[str]]:
    """Return why Snakemake would run each stage, in its own words."""
    # Snakemake gives a reason for each output file; several files of a stage may have different
    # ones, and "ok" is that of a file which only follows another one.
    pending = {row["output_file"]: row for row in snakemake_summary() if row["plan"] != "no update"}
    reasons = {}
    for name, files in stages.outputs.items():
        texts = {pending[file]["status"] for file in files if file in pending}
        if texts:
            reasons[name] = sorted(texts - {"ok"}) or [AFTER]
    return reasons
