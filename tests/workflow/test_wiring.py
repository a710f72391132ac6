"""dvc.yaml and the Snakefile are the same graph, and it knows all the code that its stages run."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.repository_copy import REPOSITORY, Copy, environment

from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.model.weights import training_config
from workflow.common.wiring import STAGES, code_dependencies, has_gpu, tracked_parameters

PARAMS = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
PROFILES = list(PARAMS["profiles"])
TARGETS = ("all", "results")  # Snakemake's, which have no command
PLUMBING = {  # a change of these shows in no output
    "srt/config/schema.py",
    "srt/config/load.py",
    "srt/tracking/delivery.py",
    "srt/common/errors.py",
    "srt/common/fingerprint.py",
    "srt/tracking/system_metrics.py",
    "srt/tracking/outbox.py",
    "srt/common/devices.py",
    "srt/tracking/registry.py",
    "srt/common/shapes.py",
    "srt/config/strict.py",
    "srt/tracking/tracker.py",
    "workflow/common/cli.py",
    "workflow/common/provenance.py",
    "workflow/common/gpus.py",
    "workflow/common/torchrun.py",
}
ONLY_FOR_DATASETS = {  # the stages fetch and weights share a module
    "srt/data/download/bucket.py",
    "srt/data/download/unzip.py",
    "srt/data/raw/generated.py",
    "srt/data/raw/msn.py",
    "srt/data/raw/nmr.py",
    "srt/data/raw/common.py",
    "srt/data/synthetic/solids.py",
    "srt/data/synthetic/raycaster.py",
    "srt/data/synthetic/raycaster_gpu.py",
    "srt/data/synthetic/as_msn.py",
    "srt/data/synthetic/as_nmr.py",
    "srt/data/synthetic/objects.py",
    "srt/data/synthetic/as_obsurf.py",
    "srt/data/synthetic/scenes.py",
    "srt/data/download/untar.py",
    "srt/data/raw/tfrecords.py",
    "srt/geometry/cameras.py",
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Copies of the repository: one for each profile, a broken one, a larger one."""
    copies = {name: Copy(tmp_path_factory.mktemp(name)) for name in [*PROFILES, "broken", "larger"]}
    for profile in PROFILES:
        copies[profile].edit_params({"profile": profile})
    copies["broken"].edit("Snakefile", "workflow.pack --profile", "workflow.pack --verbose")
    copies["broken"].edit(
        "Snakefile", 'code_dependencies("train"),', 'code_dependencies("train")[1:],'
    )
    copies["broken"].edit("Snakefile", "{experiment}/scenes.csv", "{experiment}/rows.csv")
    copies["broken"].edit(
        "Snakefile", 'tracked_parameters("render",', 'tracked_parameters("evaluate",'
    )
    copies["larger"].edit_params({"experiments.second": {"dataset": "nmr", "model": {"heads": 2}}})
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
    """Returns `stage: what` for all that is not equal."""
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
        *(f"train@{name}: dependencies" for name in experiments),
        *(f"evaluate@{name}: outputs" for name in experiments),
        *(f"render@{name}: parameters" for name in experiments),
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


LAYERS = ("defaults.{0}", "experiments.nmr_srt.{0}", "profiles.{1}.{0}")
LAYERS += ("profiles.{1}.experiments.nmr_srt.{0}",)
DATASET = ("defaults.dataset", "datasets.nmr", "profiles.{1}.datasets.nmr")
READ = {  # stage: sections of the resolved experiment, each with a field, and where it is set
    "fetch": {"dataset.view_list": DATASET},
    "pack": {"dataset.view_list": DATASET},
    "survey": {"dataset.view_list": DATASET},
    "train": {
        "dataset.view_list": DATASET,
        "model.position_octaves": LAYERS,
        "train.steps": LAYERS,
    },
    "evaluate": {"evaluate.max_items": LAYERS},  # and the model, whose file names all the others
    "render": {"render.frames": LAYERS},
}


@pytest.mark.parametrize("stage", READ)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_stage_is_made_again_for_every_place_where_what_it_reads_is_set(profile, stage):
    key = "nmr" if stage in ("fetch", "pack", "survey") else "nmr_srt"
    known = {**PARAMS, "profile": profile}
    for name, places in READ[stage].items():
        section, field = name.split(".")
        for place in places:
            path = f"{place.format(section, profile)}.{field}"
            assert tracked_parameters(stage, changed(known, path), key) != tracked_parameters(
                stage, known, key
            ), path
    for path in ("seed",) if stage in ("fetch", "train") else ():
        assert tracked_parameters(stage, changed(known, path), key) != tracked_parameters(
            stage, known, key
        )


def changed(params, path):
    """Returns the parameters with another value at a dotted path."""
    head, _, rest = path.partition(".")
    return {**params, head: changed(params.get(head, {}), rest) if rest else "another"}


def test_weights_carry_all_that_evaluate_and_render_read_besides_their_own_section():
    sections = {field.name for field in dataclasses.fields(Experiment)}
    settings = training_config(load_experiment(REPOSITORY / "params.yaml", "nmr_srt"), "digest")
    assert sections - settings.keys() == {"name", "profile", "evaluate", "render"}


def imports(path):
    """Returns the repository's files that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    own = [Path(*name.split(".")) for name in names if name.split(".")[0] in ("srt", "workflow")]
    files = [file for path in own for file in (path.with_suffix(".py"), path / "__init__.py")]
    files += [parent / "__init__.py" for file in files for parent in file.parents[:-1]]
    return {file.as_posix() for file in files if (REPOSITORY / file).is_file()}


def imported_by(path):
    """Returns a file and all that it imports, transitively."""
    known, new = set(), {path}
    while new:
        known |= new
        new = {file for path in new for file in imports(path)} - known
    return known


def module_of(stage):
    """Returns the file that a stage's command runs."""
    command = STAGES[stage].get("do", STAGES[stage])["cmd"]
    return f"{command.split()[3].replace('.', '/')}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(stage):
    imported = imported_by(module_of(stage))
    needed = {path for path in imported - PLUMBING if not path.endswith("/__init__.py")}
    if stage == "weights":
        needed -= ONLY_FOR_DATASETS
    models = {path for path in needed if path.startswith("srt/model/")}
    folders = {"srt/model"} if models else set()
    folders |= {"srt/report/templates"} if "srt/report/page.py" in needed else set()
    assert set(code_dependencies(stage)) == needed - models | folders
    assert all((REPOSITORY / path).exists() for path in code_dependencies(stage))


def test_all_that_is_called_plumbing_exists_and_is_used():
    used = set().union(*(imported_by(module_of(stage)) for stage in STAGES))
    assert used >= PLUMBING
    assert imported_by("workflow/fetch.py") >= ONLY_FOR_DATASETS


def test_snakemakes_lint_asks_only_for_environments(trees):
    _, output = trees[PROFILES[0]].run("snakemake", "--lint")
    asked = {line.strip() for line in output.splitlines() if line.startswith("    * ")}
    # One locked environment, constraints.txt, is that of every rule, and of DVC.
    assert asked <= {"* Specify a conda environment or container for each rule.:"}


def test_the_snakefile_is_formatted():
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
