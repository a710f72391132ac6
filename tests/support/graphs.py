"""Prints the graphs of both tools for the repository in the working directory, as JSON.

A program of its own: Snakemake keeps what it imported from one repository for the next.
"""

import contextlib
import io
import json
import re
from pathlib import Path

PACKED = re.compile(r"data/[^/]+/packed/[^/]+")


def dvc_graph():
    """Returns each stage of dvc.yaml: its command, outputs, dependencies and tracked parameters."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo(".") as repo:
        stages = repo.index.stages
        outputs = sorted(out.def_path for stage in stages for out in stage.outs)
        graph = {}
        for stage in stages:
            params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
            files = [dep.def_path for dep in stage.deps if dep not in params]
            graph[stage.addressing] = {
                "command": stage.cmd,
                "outputs": sorted(as_file(out.def_path) for out in stage.outs),
                "dependencies": sorted(
                    path for file in files for path in inside(as_file(file), outputs)
                ),
                "parameters": {k: v for dep in params for k, v in dep.read_params().items()},
            }
    return graph


def as_file(path):
    """Returns the file that Snakemake has where DVC has the folder of a packed dataset."""
    return f"{path}/manifest.json" if PACKED.fullmatch(path) else path


def inside(path, outputs):
    """Returns the outputs in a folder of other stages' outputs, or else the path itself."""
    return [output for output in outputs if output.startswith(f"{path}/")] or [path]


def snakemake_graph():
    """Returns the same of each job that makes everything again."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        resources = ResourceSettings(cores=2)
        workflow = api.workflow(resource_settings=resources, snakefile=Path("Snakefile"))
        dag = workflow.dag(DAGSettings(targets={"all", "results"}, forceall=True))
        with contextlib.redirect_stdout(io.StringIO()):
            dag.printrulegraph()  # builds it
        return {name_of(job): describe(job) for job in workflow._workflow.dag.jobs}


def name_of(job):
    """Returns the job's name as DVC's `foreach` has it."""
    keys = [value for key, value in job.wildcards_dict.items() if key != "profile"]
    return "@".join([job.rule.name, *keys])


def describe(job):
    """Returns what DVC has too: only Snakemake keeps what a command says, in a log."""
    return {
        "command": job.shellcmd and job.shellcmd.removesuffix(f" >> {job.log} 2>&1"),
        "outputs": sorted(job.output),
        "dependencies": sorted(job.input),
        "parameters": json.loads(job.params.get("tracked", "{}")),
        "kept": [*job.log, *([job.benchmark] if job.benchmark else [])],
        "resources": [resources(job, attempt) for attempt in (1, 2)],
    }


def resources(job, attempt):
    """Returns what a job asks for when it is tried for the first or second time."""
    job.attempt = attempt
    return {name: job.resources.get(name, 0) for name in ("gpu", "mem_mb", "runtime")}


if __name__ == "__main__":
    print(json.dumps({"dvc": dvc_graph(), "snakemake": snakemake_graph()}))
