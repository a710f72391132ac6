"""After one tool made results, the other takes them over, so that it makes none of them again.

`python -m workflow.tools.adopt dvc` after Snakemake, `python -m workflow.tools.adopt snakemake` after DVC. Only
what the first tool calls up to date is taken over; the rest is named, and stays to be made.
"""

from __future__ import annotations

import csv
import logging
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from srt.common.errors import UserError
from workflow.common.cli import run

log = logging.getLogger(__name__)
Runner = Callable[..., str]
PLAN = "plan"  # DVC's first stage


class Stages(NamedTuple):
    """DVC's stages by name: the files Snakemake has for their outputs, and what comes before."""

    outputs: dict[str, list[str]]
    ancestors: dict[str, set[str]]


def adopt(tool: Literal["dvc", "snakemake"], /) -> None:
    """Has a tool take over what the other made, for the profile that params.yaml names.

    Args:
        tool: that takes over.
    """
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo(".") as repo:
        repo.reproduce(PLAN)  # what jobs depend on today, which DVC knows from files only
        stages = stages_of(repo)
        made = up_to_date_in_snakemake(stages) if tool == "dvc" else up_to_date_in_dvc(stages, repo)
        left = sorted(stages.outputs.keys() - made)
        if not made:
            raise UserError(f"nothing is up to date that {tool} could take over: run the other one")
        if tool == "dvc":
            for name in sorted(made, key=lambda name: len(stages.ancestors[name])):
                repo.commit(name, force=True)
            missed = made - up_to_date_in_dvc(stages, repo)
        else:
            files = [file for name in made for file in stages.outputs[name]]
            snakemake("--cores", "1", "--touch", "--forceall", "--", *sorted(files))
            missed = made - up_to_date_in_snakemake(stages)
    if missed:
        raise UserError(f"{tool} would still make {', '.join(sorted(missed))}: please report it")
    log.info("%s takes over %d stages", tool, len(made))
    if left:
        log.info("not up to date, so still to be made: %s", ", ".join(left))


def stages_of(repo: Any) -> Stages:
    """Returns the stages of dvc.yaml but the plan, which Snakemake makes for itself."""
    import networkx

    graph = repo.index.graph  # from a stage to those that it depends on
    jobs = [stage for stage in graph if stage.addressing != PLAN]
    return Stages(
        {stage.addressing: [as_file(out.def_path) for out in stage.outs] for stage in jobs},
        {
            stage.addressing: {before.addressing for before in networkx.descendants(graph, stage)}
            - {PLAN}
            for stage in jobs
        },
    )


def as_file(path: str) -> str:
    """Returns the file that Snakemake has where DVC has the folder of a packed dataset."""
    return f"{path}/manifest.json" if Path(path).parent.name == "packed" else path


def up_to_date_in_snakemake(stages: Stages) -> set[str]:
    """Returns the stages whose outputs Snakemake would not make again."""
    ready = {row["output_file"] for row in summary() if row["plan"] == "no update"}
    return {name for name, files in stages.outputs.items() if ready.issuperset(files)}


def summary() -> list[dict[str, str]]:
    """Returns what Snakemake says of every output: its `status` and its `plan`."""
    text = snakemake("--cores", "1", "--summary", "all")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def up_to_date_in_dvc(stages: Stages, repo: Any) -> set[str]:
    """Returns the stages that DVC calls up to date, and all before them too."""
    changed: Collection[str] = repo.status()
    return {
        name
        for name, before in stages.ancestors.items()
        if not before.union({name}).intersection(changed)
    }


def snakemake(*arguments: str) -> str:
    """Returns what Snakemake prints; raises UserError with what it says where it fails."""
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", *arguments]
    result = subprocess.run(command, text=True, capture_output=True)
    if result.returncode != 0:
        raise UserError(f"{' '.join(command[2:5])} failed:\n{result.stderr}")
    return result.stdout


if __name__ == "__main__":
    run(adopt)
