"""Params and code -> plan: one small file for each job, with all that it depends on but its inputs.

DVC makes a job again when its file here changes. A change of params.yaml or of the code makes only
this stage again, which takes seconds, and then the jobs whose values or statements did change.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from srt.common.files import write_atomically
from workflow.common.cli import run
from workflow.common.default_paths import load_default_paths
from workflow.common.jobs import plan_jobs


def plan(
    *, profile: str | None = None, out: Path | None = None, params: Path = Path("params.yaml")
) -> None:
    """Check params.yaml and write the plan of a profile.

        python -m workflow.plan

    Args:
        profile: of params.yaml; by default the one that the file names.
        out: the folder of the plan, by default plan/<profile>: `train/nmr_srt.json` in it is that
            job's file.
        params: the configuration.
    """
    # A wrong value stops here, before the old plan is deleted.
    jobs = plan_jobs(params, profile)

    out = out or load_default_paths(profile, params).plan

    # Files of experiments that are no longer in params.yaml go.
    shutil.rmtree(out, ignore_errors=True)
    for job in jobs.values():
        write_atomically(out / job.file, f"{job.to_json()}\n".encode())


if __name__ == "__main__":
    run(plan)
