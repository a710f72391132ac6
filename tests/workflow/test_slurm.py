"""The pipeline on a real Slurm of two nodes, which Debian's packages bring, on this machine."""

import os
import re
import shutil
import subprocess
import time

import pytest
import yaml
from support.repository_copy import REPOSITORY
from support.tiny_pipeline import MODEL, SNAKEMAKE, copied, rows, tiny_copy

SLURM = REPOSITORY / "tests" / "support" / "slurm.sh"
PROFILE = ("snakemake", "--workflow-profile", "workflow/profiles/slurm")
FAST = ("--max-threads", "1", "--latency-wait", "5")  # of processors a test node has two
FAST += ("--slurm-status-command", "squeue")  # there is no accounting
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
def made(slurm, tmp_path_factory):
    """A copy whose pipeline ran as Slurm jobs, each with the GPUs that the profile gives it."""
    copy = tiny_copy(tmp_path_factory.mktemp("made"))
    copy.variables["SLURM_CONF"] = str(slurm)
    give(copy, gpu=2)
    code, said = copy.run(*PROFILE, *FAST, "--", "results")
    assert code == 0, said
    copy.said = said
    return copy


def give(copy, **resources):
    """Sets what the profile gives a training; on the command line it would replace all of that."""
    path = copy.folder / "workflow" / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["set-resources"]["train"] |= resources
    path.write_text(yaml.safe_dump(profile))


def test_the_whole_pipeline_runs_as_slurm_jobs(made, tmp_path):
    jobs = re.findall(r"SLURM jobid '?(\d+)", made.said)
    assert len(set(jobs)) == 9  # all but Snakemake's target
    here = tiny_copy(tmp_path / "here")
    code, said = here.run(*SNAKEMAKE)
    assert code == 0, said
    assert rows(made) == rows(here)
    assert (made.folder / MODEL).read_bytes() == (here.folder / MODEL).read_bytes()


def test_a_training_spreads_over_two_nodes(made, tmp_path):
    copy = copied(made, tmp_path / "two")
    copy.edit_params({"profiles.quick.train.learning_rate": 2.0e-3})
    give(copy, gpu=4, nodes=2, tasks=2, tasks_per_gpu=0, mpi=True)
    code, said = copy.run(*PROFILE, *FAST, "--", *TRAIN)
    assert code == 0, said
    hardware = (copy.folder / "outputs/quick/nmr_srt/training.json").read_text()
    assert "CPU, 2 threads" in hardware  # one in each process


def test_a_cancelled_job_is_sent_again_with_more_and_goes_on(made, slurm, tmp_path):
    copy = copied(made, tmp_path / "cancelled")
    long = {"steps": 2000, "log_every": 100, "validate_every": 500, "checkpoint_every": 20}
    copy.edit_params({f"profiles.quick.train.{key}": long[key] for key in long})
    give(copy, gpu=1)
    process = copy.start(*PROFILE, *FAST, "--retries", "1", "--", *TRAIN)
    first = job_of(copy, process, lambda: list(copy.folder.glob("ckpt/quick/nmr_srt/*/state-*")))
    subprocess.run(["scancel", first["JobId"]], check=True, env=os.environ | copy.variables)
    second = job_of(copy, process, lambda: current(copy).get("JobId") not in (None, first["JobId"]))
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert (first["TimeLimit"], second["TimeLimit"]) == ("1-00:00:00", "2-00:00:00")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("62.50G", "125G")  # of 1024 MB
    assert "resuming after step" in (copy.folder / "logs/quick/train/nmr_srt.log").read_text()


def job_of(copy, process, happened):
    """Returns what Slurm says of the job in the partition `gpu`, once something has happened."""
    end = time.monotonic() + 120
    while not (happened() and current(copy)):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    return current(copy)


def current(copy):
    """Returns the fields of the job that runs in the partition `gpu`, if one does."""
    options = {"env": os.environ | copy.variables, "text": True, "capture_output": True}
    listing = subprocess.run(
        ["squeue", "--noheader", "--partition=gpu", "--states=R", "--format=%i"], **options
    )
    if not listing.stdout.strip():
        return {}
    shown = subprocess.run(["scontrol", "show", "job", listing.stdout.split()[0]], **options)
    return dict(field.split("=", 1) for field in shown.stdout.split() if "=" in field)
