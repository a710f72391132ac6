"""Let one tool take over the results that the other tool made, so that it does not run them again.

After Snakemake has run: `python -m workflow.tools.adopt dvc`. After DVC has run:
`python -m workflow.tools.adopt snakemake`. Only results that the first tool calls up to date are
taken over; the other stages are named and run later.
"""

from __future__ import annotations

import csv
import logging
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from srt.common.errors import UserError
from workflow.common.cli import run

PLAN = "plan"  # DVC's first stage: see workflow/plan.py

log = logging.getLogger(__name__)


class Stages(NamedTuple):
    """DVC's stages by name: their outputs as Snakemake names them, and all stages before them."""

    outputs: dict[str, list[str]]
    ancestors: dict[str, set[str]]


def adopt(tool: Literal["dvc", "snakemake"], /) -> None:
    """Let a tool take over what the other made, for the profile that params.yaml names.

        python -m workflow.tools.adopt dvc

    Args:
        tool: that takes over.
    """
    from dvc.repo import Repo

    # DVC's own log is long and says nothing more.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo(".") as repo:
        make_plan(repo)
        stages = list_stages(repo)

        # The tool that made the results says which are up to date. The one that takes over records
        # them as its own, and says whether that was enough.
        if tool == "dvc":
            current = require_results(up_to_date_in_snakemake(stages), tool)
            commit_to_dvc(stages, current, repo)
            missed = current - up_to_date_in_dvc(stages, repo)
        else:
            current = require_results(up_to_date_in_dvc(stages, repo), tool)
            touch_in_snakemake(stages, current)
            missed = current - up_to_date_in_snakemake(stages)

    # Say what is done and what is left to do.
    if missed:
        raise UserError(f"{tool} would still make {', '.join(sorted(missed))}: please report it")
    log.info("%s takes over %d stages", tool, len(current))
    outdated = sorted(stages.outputs.keys() - current)
    if outdated:
        log.info("not up to date, so still to be made: %s", ", ".join(outdated))


def require_results(current: set[str], tool: str) -> set[str]:
    """Return the stages that are up to date, or raise UserError if there are none."""
    if not current:
        raise UserError(
            f"no results are up to date, so {tool} cannot take over any; run the other tool first"
        )
    return current


def make_plan(repo: Any) -> None:
    """Let DVC write the plan anew, so that it compares results with what jobs depend on today."""
    repo.reproduce(PLAN)


def list_stages(repo: Any) -> Stages:
    """Return the stages of dvc.yaml, without the plan, which Snakemake computes for itself."""
    import networkx

    # In DVC's graph, edges lead from a stage to those that it depends on.
    graph = repo.index.graph
    outputs = {}
    ancestors = {}
    for stage in graph:
        if stage.addressing == PLAN:
            continue
        outputs[stage.addressing] = [snakemake_path(out.def_path) for out in stage.outs]
        descendants = networkx.descendants(graph, stage)
        ancestors[stage.addressing] = {stage.addressing for stage in descendants} - {PLAN}
    return Stages(outputs, ancestors)


def snakemake_path(path: str) -> str:
    """Return Snakemake's name of an output: of a packed dataset's folder, the manifest in it."""
    return f"{path}/manifest.json" if Path(path).parent.name == "packed" else path


def commit_to_dvc(stages: Stages, names: Collection[str], repo: Any) -> None:
    """Let DVC record the outputs of these stages as they are, earlier stages first."""
    for name in sorted(names, key=lambda name: len(stages.ancestors[name])):
        repo.commit(name, force=True)


def touch_in_snakemake(stages: Stages, names: Collection[str]) -> None:
    """Let Snakemake record the outputs of these stages as they are."""
    # --touch makes the files newer than their inputs and notes the code and parameters of now.
    files = [file for name in names for file in stages.outputs[name]]
    run_snakemake("--cores", "1", "--touch", "--forceall", "--", *sorted(files))


def up_to_date_in_snakemake(stages: Stages) -> set[str]:
    """Return the stages whose outputs Snakemake would not make again."""
    ready = {row["output_file"] for row in snakemake_summary() if row["plan"] == "no update"}
    return {name for name, files in stages.outputs.items() if ready.issuperset(files)}


def snakemake_summary() -> list[dict[str, str]]:
    """Return what Snakemake says about each output file: its `status` and its `plan`."""
    text = run_snakemake("--cores", "1", "--summary", "all")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def up_to_date_in_dvc(stages: Stages, repo: Any) -> set[str]:
    """Return the stages that DVC calls up to date, as well as all stages before them."""
    # The status names only stages that changed.
    changed: Collection[str] = repo.status()
    return {
        name
        for name, ancestors in stages.ancestors.items()
        if not ancestors.union({name}).intersection(changed)
    }


def run_snakemake(*arguments: str) -> str:
    """Return what Snakemake prints, or raise UserError with its errors."""
    # As a process of its own: Snakemake keeps global state from one run to the next.
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", *arguments]
    result = subprocess.run(command, text=True, capture_output=True)
    if result.returncode != 0:
        raise UserError(f"{' '.join(command[2:5])} failed:\n{result.stderr}")
    return result.stdout


if __name__ == "__main__":
    run(adopt)
