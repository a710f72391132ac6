"""dvc.yaml and the Snakefile are the same graph."""

import dataclasses
import json
import subprocess
import sys

import pytest
import yaml
from support.repository_copy import REPOSITORY, Copy, environment

from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.model.weights import training_config
from workflow.common.jobs import has_gpu

PARAMS = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
PROFILES = list(PARAMS["profiles"])
TARGETS = ("all", "results")  # Snakemake's, which have no command


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Copies of the repository: one for each profile, a broken one, a larger one."""
    copies = {name: Copy(tmp_path_factory.mktemp(name)) for name in [*PROFILES, "broken", "larger"]}
    for profile in PROFILES:
        copies[profile].edit_params({"profile": profile})
    copies["broken"].edit("Snakefile", "workflow.pack --profile", "workflow.pack --verbose")
    copies["broken"].edit("Snakefile", 'performance="reports/performance/training.json",', "")
    copies["broken"].edit("Snakefile", "{input.performance}", "reports/performance/training.json")
    copies["broken"].edit("Snakefile", "{experiment}/scenes.csv", "{experiment}/rows.csv")
    copies["broken"].edit(
        "Snakefile", 'JOBS["render", w.experiment]', 'JOBS["evaluate", w.experiment]'
    )
    second = {"dataset": "nmr", "model": {"name": "srt", "heads": 2}}
    copies["larger"].edit_params({"experiments.second": second})
    return copies


@pytest.fixture(scope="module")
def graphs(trees):
    """The graphs of both tools in each copy."""
    program = [sys.executable, REPOSITORY / "tests" / "support" / "graphs.py"]
    options = {"env": environment(), "text": True, "stdout": subprocess.PIPE}
    started = {
        name: subprocess.Popen(program, cwd=copy.folder, **options) for name, copy in trees.items()
    }
    return {name: json.loads(process.communicate()[0]) for name, process in started.items()}


def differences(graphs):
    """Return `stage: what` for everything in which the two graphs differ."""
    dvc, snakemake = graphs["dvc"], graphs["snakemake"]
    jobs = {name: job for name, job in snakemake.items() if name not in TARGETS}
    found = {f"{name}: only in one tool" for name in dvc.keys() ^ jobs.keys()}
    for name in dvc.keys() & jobs.keys():
        found |= {f"{name}: {what}" for what in dvc[name] if dvc[name][what] != jobs[name][what]}
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_both_tools_run_the_same_commands_over_the_same_files(graphs, profile):
    assert not differences(graphs[profile])
    commands = [stage["command"] for stage in graphs[profile]["dvc"].values()]
    assert all(f"--profile {profile} " in command for command in commands)
    assert all(command.startswith("exec python -m ") for command in commands)  # no shell between


def test_what_differs_in_one_tool_is_found(graphs):
    experiments, datasets = PARAMS["experiments"], PARAMS["datasets"]
    assert differences(graphs["broken"]) == {
        *(f"pack@{name}: command" for name in datasets),
        *(f"evaluate@{name}: outputs" for name in experiments),
        *(f"render@{name}: job" for name in experiments),
        "tabulate: dependencies",
    }


def test_snakemakes_targets_name_every_file_so_that_none_stays_missing(graphs):
    snakemake = graphs[PROFILES[0]]["snakemake"]
    outputs = sorted(file for job in snakemake.values() for file in job["outputs"])
    for name in TARGETS:
        assert snakemake[name]["command"] is None
        assert snakemake[name]["outputs"] == []
        assert snakemake[name]["dependencies"] == outputs


def test_a_new_experiment_gets_its_stages_in_both_tools(graphs):
    assert not differences(graphs["larger"])
    new = graphs["larger"]["dvc"].keys() - graphs[PROFILES[0]]["dvc"].keys()
    assert new == {"train@second", "evaluate@second", "render@second"}
    tables = graphs["larger"]["snakemake"]["tabulate"]["dependencies"]
    assert f"outputs/{PROFILES[0]}/second/metrics.json" in tables


def test_every_job_keeps_a_log_and_a_benchmark_and_asks_for_more_when_it_is_tried_again(graphs):
    jobs = graphs[PROFILES[0]]["snakemake"]
    slots = yaml.safe_load((REPOSITORY / "profiles/default/config.yaml").read_text())["resources"][
        "gpu"
    ]
    for name in jobs.keys() - TARGETS:
        stage, _, key = name.partition("@")
        base = f"logs/{PROFILES[0]}/{stage}{f'/{key}' if key else ''}"
        assert jobs[name]["kept"] == [f"{base}.log", f"{base}.tsv"]
        first, second = jobs[name]["resources"]
        assert second == {**first, "mem_mb": 2 * first["mem_mb"], "runtime": 2 * first["runtime"]}
        assert min(first["mem_mb"], first["runtime"]) > 0
        on_gpu = stage in ("train", "evaluate", "render")
        assert first["gpu"] == (slots if on_gpu and has_gpu() else 0)  # so two never share one


def test_only_a_machine_with_nvidias_driver_has_a_gpu(tmp_path):
    assert has_gpu(tmp_path)
    assert not has_gpu(tmp_path / "nvidia")


def test_weights_carry_all_that_evaluate_and_render_read_besides_their_own_section():
    sections = {field.name for field in dataclasses.fields(Experiment)}
    settings = training_config(load_experiment(REPOSITORY / "params.yaml", "nmr_srt"), "digest")
    assert sections - settings.keys() == {"name", "profile", "evaluate", "render"}


def test_snakemakes_lint_asks_only_for_environments(trees):
    _, output = trees[PROFILES[0]].run("snakemake", "--lint")
    asked = {line.strip() for line in output.splitlines() if line.startswith("    * ")}
    # One locked environment, constraints.txt, is that of every rule, and of DVC.
    assert asked <= {"* Specify a conda environment or container for each rule.:"}


def test_the_snakefile_is_formatted():
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
