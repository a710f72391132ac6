"""The stage tabulate: what it reads and refuses, and that equal inputs give equal reports."""

import re
from pathlib import Path

import pytest
import yaml
from small_reports import FEW_CAMERAS, PERFORMANCE, make_report, table_rows, write_runs
from support.paths import PARAMS
from support.small_runs import write_run

from srt.common.errors import UserError
from srt.config.load import load_params
from workflow.tabulate import tabulate


@pytest.mark.parametrize(("profile", "fixture"), [("quick", "synthetic"), ("paper", "published")])
def test_equal_inputs_give_equal_bytes(profile, fixture, request):
    report = request.getfixturevalue(fixture)
    outputs, second = report.parent, report.parent / "second"
    if profile == "quick":
        outputs = report.parents[1] / "outputs" / "quick"
    make_report(profile=profile, outputs=outputs, out=second, params=PARAMS)
    for path in filter(Path.is_file, report.iterdir()):
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("name", "stage"),
    [("metrics.json", "evaluate"), ("comparison.png", "evaluate"), ("extremes.png", "evaluate"),
     ("training.json", "train"), ("history.csv", "train")],
)  # fmt: skip
def test_a_missing_or_broken_input_is_named_with_the_command_that_makes_it(tmp_path, name, stage):
    write_runs(tmp_path, "quick", True, {"stelzner": 32})
    experiment = list(load_params(PARAMS).experiments)[-1]
    path = tmp_path / experiment / name
    arguments = {"outputs": tmp_path, "out": tmp_path / "report", "params": PARAMS}
    expected = rf"{re.escape(str(path))}: .*python -m workflow\.{stage}.* {experiment} "

    # First the file is broken, then it is missing.
    path.write_text("nothing of use")
    with pytest.raises(UserError, match=expected):
        make_report(profile="quick", **arguments)
    path.unlink()
    with pytest.raises(UserError, match=expected):
        make_report(profile="quick", **arguments)
    assert not (tmp_path / "report" / "results.md").exists()


def test_metrics_of_another_profile_are_refused(tmp_path):
    write_runs(tmp_path, "paper", True, {"stelzner": 32})
    with pytest.raises(UserError, match="profile is paper, not quick"):
        make_report(profile="quick", outputs=tmp_path, out=tmp_path / "report", params=PARAMS)


def test_the_runs_of_a_report_are_those_of_params_yaml_and_not_of_the_folder(tmp_path):
    # params.yaml has two experiments, but there are files of a third one.
    params = yaml.safe_load(PARAMS.read_text())
    for name, profile in params["profiles"].items():
        params["profiles"][name] = {**(profile or {}), "experiments": {}}
    params["experiments"] = {
        name: {"dataset": "nmr", "model": "srt"} for name in ("nmr_b", "nmr_a")
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for name in ("nmr_a", "nmr_b", "nmr_stale"):
        write_run(tmp_path / name, "quick", True, {"stelzner": 32})
    out = tmp_path / "report"
    make_report(profile="quick", outputs=tmp_path, out=out, params=tmp_path / "params.yaml")
    assert [row["run"] for row in table_rows(out)] == ["nmr_b", "nmr_a"]
    assert "nmr_stale" not in (out / "index.html").read_text()


def test_a_missing_survey_is_named_with_the_command_that_makes_it(tmp_path):
    write_runs(tmp_path, "quick", True, {"stelzner": 32})
    arguments = {"outputs": tmp_path, "out": tmp_path / "report", "params": PARAMS}
    arguments |= {"performance": PERFORMANCE, "few_cameras": FEW_CAMERAS}
    with pytest.raises(UserError, match=r"nmr/scenes\.png: .*python -m workflow\.survey. for nmr"):
        tabulate(profile="quick", surveys=tmp_path / "none", **arguments)


def test_a_missing_benchmark_is_named_with_the_command_that_makes_it(tmp_path):
    write_runs(tmp_path, "quick", True, {"stelzner": 32})
    arguments = {"outputs": tmp_path, "out": tmp_path / "report", "params": PARAMS}
    missing = tmp_path / "camera_overfitting"
    expected = r"python -m benchmarks\.camera_overfitting --out .*camera_overfitting` on a GPU"
    with pytest.raises(UserError, match=expected):
        make_report(profile="quick", few_cameras=missing, **arguments)


def test_a_report_without_classes_has_no_section_and_no_picture_of_them(tmp_path, published):
    write_runs(tmp_path, "quick", True, {"stelzner": 32}, classes=("chair",))
    make_report(profile="quick", outputs=tmp_path, out=tmp_path / "report", params=PARAMS)
    for report, has_classes in ((tmp_path / "report", False), (published, True)):
        page = (report / "index.html").read_text()
        assert ('<section id="classes">' in page) == has_classes
        assert ('<a href="#classes">' in page) == has_classes
        assert ("(classes.png)" in (report / "results.md").read_text()) == has_classes

        # The file exists in any case: dvc.yaml and the Snakefile list it as an output.
        assert (report / "classes.png").is_file()
