"""Print the graphs of DVC and Snakemake for the repository in the working directory, as JSON.

This is a program of its own, because Snakemake does not import the modules of a second repository
in the same process.
"""

import contextlib
import io
import json
import re
from pathlib import Path

PACKED = re.compile(r"data/[^/]+/packed/[^/]+")


def dvc_graph():
    """Return the command, outputs, dependencies and parameters of each stage of dvc.yaml."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo(".") as repo:
        stages = repo.index.stages
        outputs = sorted(out.def_path for stage in stages for out in stage.outs)
        graph = {}
        for stage in stages:
            # DVC treats parameters as dependencies too.
            params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
            files = [dep.def_path for dep in stage.deps if dep not in params]
            graph[stage.addressing] = {
                "command": stage.cmd,
                "outputs": sorted(as_file(out.def_path) for out in stage.outs),
                "dependencies": sorted(
                    path for file in files for path in outputs_inside(as_file(file), outputs)
                ),
                "parameters": {k: v for dep in params for k, v in dep.read_params().items()},
            }
    return graph


def as_file(path):
    """Return Snakemake's name of a DVC output: of a packed dataset's folder, the manifest in it."""
    return f"{path}/manifest.json" if PACKED.fullmatch(path) else path


def outputs_inside(path, outputs):
    """Return the outputs of stages that are in a folder; if there are none, the path itself."""
    return [output for output in outputs if output.startswith(f"{path}/")] or [path]


def snakemake_graph():
    """Return the command, outputs, dependencies and parameters of each Snakemake job."""
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
        "parameters": json.loads(job.params.get("tracked", "{}")),
        "kept": [*job.log, *([job.benchmark] if job.benchmark else [])],
        "resources": [resources(job, attempt) for attempt in (1, 2)],
    }


def resources(job, attempt):
    """Return the resources that a job requests at its first or second try."""
    job.attempt = attempt
    return {name: job.resources.get(name, 0) for name in ("gpu", "mem_mb", "runtime")}


if __name__ == "__main__":
    print(json.dumps({"dvc": dvc_graph(), "snakemake": snakemake_graph()}))
