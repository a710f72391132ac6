"""Help only helps, `srt` runs the stages, and a command without paths has those of the pipeline."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.paths import PARAMS, REPOSITORY

from srt.common.errors import UserError
from srt.config.load import load_experiment
from workflow.common.default_paths import (
    FEW_CAMERAS,
    PERFORMANCE,
    DefaultPaths,
    choose_output,
    load_default_paths,
    weights_manifest,
)
from workflow.common.lpips_weights import lpips_manifests
from workflow.tools import main as srt
from workflow.train import default_folder

EXAMPLE = re.compile(r"^\s*(python -m|srt) ", re.MULTILINE)


def written_files():
    """Return the time and size of all files that a command could write by mistake."""
    folders = [REPOSITORY / name for name in ("workflow", "benchmarks", "srt", "reports", "docs")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc"]
    paths += [path for path in REPOSITORY.iterdir() if path.is_file()]
    files = {path: path.stat() for path in paths if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in files.items()}


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    """The exit code and the help of every module of workflow/ and benchmarks/ that can run."""
    folder = tmp_path_factory.mktemp("help")
    before = written_files()
    command = [sys.executable, REPOSITORY / "tests" / "support" / "show_help.py", REPOSITORY]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert written_files() == before
    assert list(folder.iterdir()) == []
    return {module: (code, text) for module, code, text in json.loads(result.stdout)}


def test_every_help_succeeds_has_an_example_and_writes_no_file(helps):
    assert len(helps) > 20
    assert [module for module, (code, _) in helps.items() if code != 0] == []
    assert [module for module, (_, text) in helps.items() if not EXAMPLE.search(text)] == []


def test_the_example_of_a_help_runs_that_module(helps):
    for module, (_, text) in helps.items():
        assert re.search(rf"^\s*python -m {re.escape(module)}\b", text, re.MULTILINE), module


def test_srt_names_every_command_of_the_workflow_with_one_line(helps, capsys, monkeypatch):
    modules = {f"workflow.{name}" for name in srt.STAGES}
    modules |= {f"workflow.tools.{name}" for name in srt.TOOLS}
    assert modules == {module for module in helps if module.startswith("workflow.")}
    for arguments in (["srt"], ["srt", "--help"]):
        monkeypatch.setattr(sys, "argv", arguments)
        srt.main()
        lines = capsys.readouterr().out.splitlines()
        assert any(EXAMPLE.match(line) for line in lines)
        for name, text in srt.COMMANDS.items():
            assert [line for line in lines if line.split()[:1] == [name]] == [f"  {name:<18}{text}"]


def test_srt_runs_the_module_with_the_same_options(monkeypatch):
    runs = []
    monkeypatch.setattr(
        runpy, "run_module", lambda module, run_name: runs.append((module, run_name, sys.argv))
    )
    for command in ("train", "status"):
        monkeypatch.setattr(sys, "argv", ["/bin/srt", command, "--profile", "bench"])
        srt.main()
    options = ["--profile", "bench"]
    assert runs == [
        ("workflow.train", "__main__", ["srt train", *options]),
        ("workflow.tools.status", "__main__", ["srt status", *options]),
    ]


def test_srt_refuses_an_unknown_command_in_one_line_and_says_which_was_meant(monkeypatch):
    for name, end in (("trian", "did you mean train?"), ("xyz", "see srt --help")):
        monkeypatch.setattr(sys, "argv", ["srt", name])
        with pytest.raises(SystemExit, match=f"^error: {name} is no command of srt; {end}") as exit:
            srt.main()
        assert "\n" not in exit.value.code


def pipeline_paths():
    """Return the options of the command of each stage of dvc.yaml, for names that stand for all."""
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    commands = {name: stage.get("do", stage)["cmd"] for name, stage in stages.items()}
    values = {"${profile}": "PROFILE", "${key}": "KEY", "${item.dataset}": "DATASET"}
    for name, command in commands.items():
        for variable, value in values.items():
            command = command.replace(variable, value)
        words = command.split()
        options = zip(words[4::2], words[5::2], strict=True)
        yield name, {option: value for option, value in options if "/" in value}


def test_the_default_paths_are_those_of_the_commands_in_dvc_yaml():
    paths = DefaultPaths("PROFILE")
    of_experiment = {"--data": paths.packed("DATASET"), "--model": paths.model("KEY")}
    expected = {
        "plan": {"--out": paths.plan},
        "fetch": {"--out": paths.raw("KEY")},
        "weights": {"--out": weights_manifest(paths.weights, "KEY")},
        "pack": {"--raw": paths.raw("KEY"), "--out": paths.packed("KEY")},
        "survey": {"--data": paths.packed("KEY"), "--out": paths.surveys / "KEY"},
        "train": {"--data": paths.packed("DATASET"), "--out": paths.experiment("KEY")},
        "evaluate": {
            **of_experiment,
            "--lpips": weights_manifest(paths.weights, "lpips_vgg"),
            "--lpips-alex": weights_manifest(paths.weights, "lpips_alex"),
            "--out": paths.model("KEY").parent,
        },
        "render": {**of_experiment, "--out": paths.experiment("KEY") / "video.mp4"},
        "tabulate": {
            "--outputs": paths.outputs,
            "--surveys": paths.surveys,
            "--performance": PERFORMANCE,
            "--few-cameras": FEW_CAMERAS,
            "--out": paths.report,
        },
    }
    for name, options in pipeline_paths():
        assert {option: str(path) for option, path in expected.pop(name).items()} == options
    assert expected == {}


def test_without_a_profile_the_paths_are_those_of_the_one_that_the_file_names(tmp_path):
    params = yaml.safe_load(PARAMS.read_text()) | {"profile": "bench"}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    assert load_default_paths(None, path) == DefaultPaths("bench")
    assert load_default_paths("paper", path) == DefaultPaths("paper")


def test_another_seed_is_trained_where_the_report_looks_for_it():
    experiment = load_experiment(PARAMS, "nmr_srt", "quick")
    assert default_folder(experiment, None) == Path("outputs/quick/nmr_srt")
    assert default_folder(experiment, experiment.seed) == Path("outputs/quick/nmr_srt")
    other = experiment.seed + 1
    assert default_folder(experiment, other) == Path(f"outputs/quick/nmr_srt/seeds/{other}")


def test_results_that_depart_from_params_yaml_never_replace_those_of_the_pipeline():
    default, named = Path("outputs/quick/nmr_srt"), Path("elsewhere")
    assert choose_output(None, default, departs=False) == default
    assert choose_output(named, default, departs=True) == named
    with pytest.raises(UserError, match=r"^outputs/quick/nmr_srt is for results .* --out where"):
        choose_output(None, default, departs=True)


def test_lpips_uses_the_weights_that_were_fetched_unless_others_are_named(tmp_path):
    alex = weights_manifest(tmp_path, "lpips_alex")
    alex.parent.mkdir()
    alex.write_text("{}")
    assert lpips_manifests(tmp_path) == {"lpips": None, "lpips_alex": alex}
    named = tmp_path / "vgg.json"  # a wrong name is refused when it is read, not ignored here
    assert lpips_manifests(tmp_path, lpips=named) == {"lpips": named, "lpips_alex": alex}
