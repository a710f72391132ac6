"""The pipeline on a real Slurm of two nodes, which both are this machine."""

import os
import re
import shutil
import subprocess
import time

import pytest
import yaml
from support.repository_copy import REPOSITORY
from support.tiny_pipeline import MODEL, SNAKEMAKE, duplicate, read_results, tiny_copy

SLURM = REPOSITORY / "tests" / "support" / "slurm.sh"
PROFILE = ("snakemake", "--workflow-profile", "workflow/profiles/slurm")

# A node has two processors, and there is no accounting that could say how a job ended.
FAST = ("--max-threads", "1", "--latency-wait", "5")
FAST += ("--slurm-status-command", "squeue")
FAST += ("--slurm-init-seconds-before-status-checks", "2")
TRAIN = ("outputs/quick/nmr_srt/training.json",)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("slurmctld") is None,
        reason="needs root and apt-get install slurm-wlm munge",
    ),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The configuration of a running Slurm."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SLURM, "start", folder], check=True)
    yield folder / "slurm.conf"
    subprocess.run([SLURM, "stop", folder], check=True)


@pytest.fixture(scope="module")
def finished(slurm, tmp_path_factory):
    """A copy whose pipeline ran as Slurm jobs; `output` is what Snakemake printed."""
    copy = tiny_copy(tmp_path_factory.mktemp("finished"))
    copy.variables["SLURM_CONF"] = str(slurm)
    set_training_resources(copy, gpu=2)
    code, output = copy.run(*PROFILE, *FAST, "--", "results")
    assert code == 0, output
    copy.output = output
    return copy


def set_training_resources(copy, **resources):
    """Change some resources of a training in the Slurm profile.

    On the command line, --set-resources would replace all of them.
    """
    path = copy.folder / "workflow" / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["set-resources"]["train"] |= resources
    path.write_text(yaml.safe_dump(profile))


def test_the_whole_pipeline_runs_as_slurm_jobs(finished, tmp_path):
    jobs = re.findall(r"SLURM jobid '?(\d+)", finished.output)
    assert len(set(jobs)) == 9  # all but Snakemake's target

    # On this machine without Slurm, the results are the same bits.
    here = tiny_copy(tmp_path / "here")
    code, output = here.run(*SNAKEMAKE)
    assert code == 0, output
    assert read_results(finished) == read_results(here)
    assert (finished.folder / MODEL).read_bytes() == (here.folder / MODEL).read_bytes()


def test_a_training_spreads_over_two_nodes(finished, tmp_path):
    copy = duplicate(finished, tmp_path / "two")
    copy.edit_params({"profiles.quick.train.learning_rate": 2.0e-3})
    set_training_resources(copy, gpu=4, nodes=2, tasks=2, tasks_per_gpu=0, mpi=True)
    code, output = copy.run(*PROFILE, *FAST, "--", *TRAIN)
    assert code == 0, output
    hardware = (copy.folder / "outputs/quick/nmr_srt/training.json").read_text()
    assert "CPU, 2 threads" in hardware  # one in each process


def test_a_cancelled_job_starts_again_with_more_resources_and_goes_on(finished, slurm, tmp_path):
    copy = duplicate(finished, tmp_path / "cancelled")
    long = {"steps": 2000, "log_every": 100, "validate_every": 500, "checkpoint_every": 20}
    copy.edit_params({f"profiles.quick.train.{key}": long[key] for key in long})
    set_training_resources(copy, gpu=1)
    process = copy.start(*PROFILE, *FAST, "--retries", "1", "--", *TRAIN)

    # Cancel the job once it has saved a state. Snakemake starts a second one.
    first = job_of(copy, process, lambda: list(copy.folder.glob("ckpt/quick/nmr_srt/*/state-*")))
    subprocess.run(["scancel", first["JobId"]], check=True, env=os.environ | copy.variables)
    second = job_of(
        copy, process, lambda: running_job(copy).get("JobId") not in (None, first["JobId"])
    )
    output = process.communicate()[0]
    assert process.returncode == 0, output

    # It has twice the time and memory, and goes on from the state.
    assert (first["TimeLimit"], second["TimeLimit"]) == ("1-00:00:00", "2-00:00:00")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("62.50G", "125G")  # of 1024 MB
    assert "resuming after step" in (copy.folder / "logs/quick/train/nmr_srt.log").read_text()


def job_of(copy, process, condition):
    """Return what Slurm says about the job in the partition `gpu`, when a condition is true."""
    end = time.monotonic() + 120
    while not (condition() and running_job(copy)):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    return running_job(copy)


def running_job(copy):
    """Return Slurm's fields of the job that runs in the partition `gpu`; empty if none does."""
    options = {"env": os.environ | copy.variables, "text": True, "capture_output": True}
    listing = subprocess.run(
        ["squeue", "--noheader", "--partition=gpu", "--states=R", "--format=%i"], **options
    )
    if not listing.stdout.strip():
        return {}
    job = listing.stdout.split()[0]
    description = subprocess.run(["scontrol", "show", "job", job], **options)
    return dict(field.split("=", 1) for field in description.stdout.split() if "=" in field)
