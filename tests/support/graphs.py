"""Print the graphs of both tools for the repository in the working directory, as JSON.

A program of its own: Snakemake keeps what it imported from one repository for the next.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

PACKED = re.compile(r"data/[^/]+/packed/[^/]+")


def dvc_graph():
    """Return each stage of dvc.yaml: its command, outputs, dependencies, and its file of the plan.

    Snakemake has no stage `plan`, because it computes the plan itself. In place of the file that a
    stage of DVC depends on, the graph has what the file stands for.
    """
    from dvc.repo import Repo

    from workflow.common.jobs import plan_jobs

    plan = {job.file: job.describe() for job in plan_jobs(Path("params.yaml")).values()}
    with Repo(".") as repo:
        stages = repo.index.stages
        outputs = sorted(out.def_path for stage in stages for out in stage.outs)
        graph = {}
        for stage in stages:
            if stage.addressing == "plan":
                continue
            files = [dep.def_path for dep in stage.deps]
            planned = [file for file in files if file.startswith("plan/")]
            graph[stage.addressing] = {
                "command": stage.cmd,
                "outputs": sorted(as_file(out.def_path) for out in stage.outs),
                "dependencies": sorted(
                    path
                    for file in files
                    if file not in planned
                    for path in inside(as_file(file), outputs)
                ),
                "job": [plan[file.split("/", 2)[2]] for file in planned],
            }
    return graph


def as_file(path):
    """Return the file that Snakemake has where DVC has the folder of a packed dataset."""
    return f"{path}/manifest.json" if PACKED.fullmatch(path) else path


def inside(path, outputs):
    """Return the outputs in a folder of other stages' outputs, or else the path itself."""
    return [output for output in outputs if output.startswith(f"{path}/")] or [path]


def snakemake_graph():
    """Return the same of each job that makes everything again."""
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
    """Return the job's name as DVC's `foreach` has it."""
    keys = [value for key, value in job.wildcards_dict.items() if key != "profile"]
    return "@".join([job.rule.name, *keys])


def describe(job):
    """Return what DVC has too: only Snakemake keeps what a command says, in a log."""
    return {
        "command": job.shellcmd and job.shellcmd.removesuffix(f" >> {job.log} 2>&1"),
        "outputs": sorted(job.output),
        "dependencies": sorted(job.input),
        "job": [job.params.job] if job.params.get("job") else [],
        "kept": [*job.log, *([job.benchmark] if job.benchmark else [])],
        "resources": [resources(job, attempt) for attempt in (1, 2)],
    }


def resources(job, attempt):
    """Return what a job asks for when it is tried for the first or second time."""
    job.attempt = attempt
    return {name: job.resources.get(name, 0) for name in ("gpu", "mem_mb", "runtime")}


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))  # the code of this copy, not of the installed one
    print(json.dumps({"dvc": dvc_graph(), "snakemake": snakemake_graph()}))
