"""Print the graphs of DVC and Snakemake for the repository in the working directory, as JSON.

This is a program of its own, because Snakemake does not import the modules of a second repository
in the same process.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

PACKED = re.compile(r"data/[^/]+/packed/[^/]+")


def dvc_graph():
    """Return the command, outputs and dependencies of each stage of dvc.yaml, and its job.

    Snakemake has no stage `plan`, because it computes the plan itself. In place of the file that a
    stage of DVC depends on, the graph has the line that describes its job.
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

            # A stage depends on its file of the plan, and on outputs of other stages.
            files = [dep.def_path for dep in stage.deps]
            planned = [file for file in files if file.startswith("plan/")]
            inputs = [as_file(file) for file in files if file not in planned]
            graph[stage.addressing] = {
                "command": stage.cmd,
                "outputs": sorted(as_file(out.def_path) for out in stage.outs),
                "dependencies": sorted(
                    path for file in inputs for path in outputs_inside(file, outputs)
                ),
                "job": [plan[file.split("/", 2)[2]] for file in planned],
            }
    return graph


def as_file(path):
    """Return Snakemake's name of a DVC output: of a packed dataset's folder, the manifest in it."""
    return f"{path}/manifest.json" if PACKED.fullmatch(path) else path


def outputs_inside(path, outputs):
    """Return the outputs of stages that are in a folder; if there are none, the path itself."""
    return [output for output in outputs if output.startswith(f"{path}/")] or [path]


def snakemake_graph():
    """Return the command, outputs, dependencies and description of each Snakemake job."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        # All jobs, also those whose outputs are up to date. Printing the graph builds it.
        resources = ResourceSettings(cores=2)
        workflow = api.workflow(resource_settings=resources, snakefile=Path("Snakefile"))
        dag = workflow.dag(DAGSettings(targets={"all", "results"}, forceall=True))
        with contextlib.redirect_stdout(io.StringIO()):
            dag.printrulegraph()
        return {job_name(job): describe_job(job) for job in workflow._workflow.dag.jobs}


def job_name(job):
    """Return the name that DVC gives the same stage, like `train@nmr_srt`."""
    keys = [value for key, value in job.wildcards_dict.items() if key != "profile"]
    return "@".join([job.rule.name, *keys])


def describe_job(job):
    """Return what `dvc_graph` returns of a stage, and the job's log files and resources."""
    # Only Snakemake writes the output of a command to a log, so this end of it is left out.
    return {
        "command": job.shellcmd and job.shellcmd.removesuffix(f" >> {job.log} 2>&1"),
        "outputs": sorted(job.output),
        "dependencies": sorted(job.input),
        "job": [job.params.job] if job.params.get("job") else [],
        "kept": [*job.log, *([job.benchmark] if job.benchmark else [])],
        "resources": [resources(job, attempt) for attempt in (1, 2)],
    }


def resources(job, attempt):
    """Return the resources that a job requests at its first or second try."""
    job.attempt = attempt
    return {name: job.resources.get(name, 0) for name in ("gpu", "mem_mb", "runtime")}


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))  # the code of this copy, not of the installed one
    print(json.dumps({"dvc": dvc_graph(), "snakemake": snakemake_graph()}))
