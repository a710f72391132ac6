"""The stage tabulate makes a report from the files that train, evaluate and survey write."""

import csv
import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import yaml
from PIL import Image
from support.paths import PARAMS
from support.small_runs import write_run
from support.tracked_reports import REPORTS

from srt.common.errors import UserError
from srt.config.load import load_params
from srt.config.schema import SPLITS, EvaluateConfig
from srt.report.figures import moving_average
from srt.report.format.numbers import format_duration, format_three_digits
from srt.report.format.table import Table, to_markdown
from srt.report.tables.result_rows import BASELINES, PEER
from srt.results.published_figures import PROTOCOLS, RESULTS, published_result
from workflow.tabulate import tabulate

PERFORMANCE = PARAMS.parent / "reports" / "performance" / "training.json"
FEW_CAMERAS = PERFORMANCE.parents[1] / "camera_overfitting"

# A column of the table of results, the title of another table, and the ranges in a dataset's statistics.
PUBLISHED = "published PSNR"
BY_CLASS = "PSNR by class: nmr, protocol pixelnerf"
RANGES = ("distance_to_origin", "elevation_degrees", "field_of_view_degrees")

# Scenes of the published NMR test set, by class.
TEST_SCENES = {
    "airplane": 809, "bench": 364, "cabinet": 315, "car": 1500, "chair": 1356, "display": 219,
    "lamp": 464, "loudspeaker": 324, "rifle": 475, "sofa": 635, "table": 1702, "telephone": 211,
    "watercraft": 388,
}  # fmt: skip


def make_report(*, profile, outputs, out, params, few_cameras=FEW_CAMERAS):
    """Run the stage tabulate, with a survey of every dataset in its folder."""
    surveys = out / "datasets"
    for name in load_params(params).datasets:
        write_survey(surveys / name, name, synthetic=profile == "quick")
    tabulate(
        profile=profile,
        outputs=outputs,
        surveys=surveys,
        performance=PERFORMANCE,
        few_cameras=few_cameras,
        out=out,
        params=params,
    )


def write_survey(folder, dataset, synthetic):
    """Write the statistics and the pictures of a dataset, as the stage survey does."""
    folder.mkdir(parents=True, exist_ok=True)
    split = {
        "scenes": 1234,
        "views": 3,
        "image_size": [24, 32],
        "classes": {"a": 1000, "b": 234},
        "uncompressed_bytes": 2_500_000_000,
        "cameras": {key: [1.0, 2.5, 4.0] for key in RANGES},
    }
    statistics = {"dataset": dataset, "synthetic": synthetic}
    statistics["splits"] = dict.fromkeys(SPLITS, split)
    (folder / "statistics.json").write_text(json.dumps(statistics))
    for picture in ("scenes.png", "cameras.png"):
        Image.new("RGB", (8, 8)).save(folder / picture)


def write_runs(outputs, *settings, **figures):
    """Write the result files of all experiments of params.yaml."""
    for name in load_params(PARAMS).experiments:
        write_run(outputs / name, *settings, **figures)


def tables_of(path):
    """Return the tables of a Markdown file: the lines of cells of each, by its title."""
    tables = re.findall(r"^## (.*)\n\n((?:\|.*\n)+)", path.read_text(), re.MULTILINE)
    return {
        title: [
            [cell.strip(" *") for cell in line.strip("|").split(" | ")]
            for line in text.splitlines()
        ]
        for title, text in tables
    }


def table_rows(report, title="Results of profile"):
    """Return the rows of the table of results.md with this title, a dictionary each.

    Args:
        title: of the table, or how it begins.
    """
    tables = tables_of(report / "results.md")
    lines = next(lines for name, lines in tables.items() if name.startswith(title))

    # The second line only says how the columns are aligned.
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Return the report of the default profile: synthetic scenes, not all items, no LPIPS."""
    root = tmp_path_factory.mktemp("synthetic")
    outputs, out = root / "outputs" / "quick", root / "reports" / "quick"
    write_runs(outputs, "quick", True, {"stelzner": 768, "pixelnerf": 32}, items=32)
    make_report(profile="quick", outputs=outputs, out=out, params=PARAMS)
    return out


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return the report of runs on the whole published data."""
    root = tmp_path_factory.mktemp("published")
    protocols = {"stelzner": 24 * 8762, "pixelnerf": 8762}
    classes = ("airplane,aeroplane,plane", "vessel,watercraft", "spaceship")
    write_runs(root, "paper", False, protocols, lpips=0.1, classes=classes)
    make_report(profile="paper", outputs=root, out=root / "report", params=PARAMS)
    return root / "report"


def test_there_is_one_row_for_each_run_and_protocol_in_the_order_of_params_yaml(synthetic):
    names = load_params(PARAMS).experiments
    expected = [(name, protocol) for name in names for protocol in ("stelzner", "pixelnerf")]
    assert [(row["run"], row["protocol"]) for row in table_rows(synthetic)] == expected


def test_a_row_of_synthetic_scenes_is_labelled_and_has_no_published_figure(synthetic):
    for row in table_rows(synthetic):
        assert row["dataset"] == "nmr (synthetic)"
        assert PUBLISHED not in row
    for name in ("results.md", "results.tex"):
        text = (synthetic / name).read_text()
        assert "Synthetic scenes are not the published data" in text
        assert "27.28" not in text
        assert "26.80" not in text


def test_a_published_figure_stands_at_its_protocol_with_its_source_and_mark(published):
    rows = {(row["run"], row["protocol"]): row for row in table_rows(published)}
    stelzner, pixelnerf = (rows["nmr_srt", name] for name in ("stelzner", "pixelnerf"))
    assert stelzner[PUBLISHED].startswith("27.28 [1] (")
    assert pixelnerf[PUBLISHED].startswith("26.80 [2] (")

    # The numbers in brackets lead to the notes.
    notes = (published / "results.md").read_text()
    assert "[1] stelzner/srt, SRT, 3 M iterations: PSNR 27.28; protocol stelzner" in notes
    assert "README of stelzner/srt (read)" in notes

    # All of these figures are rounded to two decimals.
    for row in (stelzner, pixelnerf):
        difference = float(row[PUBLISHED].split("(")[1].strip(")").replace("−", "-"))
        assert difference == pytest.approx(float(row["PSNR"]) - float(row[PUBLISHED][:5]), abs=0.02)


def test_a_smaller_test_set_than_the_published_one_has_no_difference(tmp_path):
    write_runs(tmp_path, "paper", False, {"pixelnerf": 4})
    make_report(profile="paper", outputs=tmp_path, out=tmp_path / "report", params=PARAMS)
    row = table_rows(tmp_path / "report")[0]
    assert row[PUBLISHED] == "26.80 [1]"
    assert "of another test set" in (tmp_path / "report" / "results.md").read_text()
    assert "published" not in " ".join(table_rows(tmp_path / "report", "PSNR by class")[0])


def test_a_measure_that_was_not_measured_differs_from_one_that_is_not_defined(synthetic):
    stelzner, pixelnerf = table_rows(synthetic)[:2]
    assert stelzner["SSIM"] == "–"
    assert re.fullmatch(r"0\.\d{3}", pixelnerf["SSIM"])

    # A measure that no run has is no column, but a note.
    assert "LPIPS" not in pixelnerf
    assert (
        "LPIPS not measured: the profile names no weights" in (synthetic / "results.md").read_text()
    )


def test_the_number_of_measured_items_is_in_the_table(synthetic):
    notes = (synthetic / "results.md").read_text()
    assert "In all rows: iterations 1\u00a0000; selected step 750;" in notes
    assert "items measured stelzner: 32 of 768, pixelnerf: all 32; training time" in notes
    stelzner, pixelnerf = table_rows(synthetic, "Baselines of profile")[:2]
    assert stelzner["items measured"] == "32 of 768"
    assert pixelnerf["items measured"] == "all 32"


def test_gains_are_over_the_better_baseline_and_over_the_peer(synthetic):
    for row in csv.DictReader((synthetic / "results.csv").read_text().splitlines()):
        psnr, peer = float(row["psnr"]), float(row[f"{PEER}_psnr"])
        best = max(float(row[f"{name}_psnr"]) for name in BASELINES)
        assert float(row["gain_psnr"]) == pytest.approx(psnr - best, abs=1e-5)
        assert float(row["gain_over_peer_psnr"]) == pytest.approx(psnr - peer, abs=1e-5)


def test_the_gain_of_the_table_is_over_the_best_of_all_baselines(synthetic):
    raw = list(csv.DictReader((synthetic / "results.csv").read_text().splitlines()))
    for row, figures in zip(table_rows(synthetic), raw, strict=True):
        best = max(float(figures[f"{name}_psnr"]) for name in (*BASELINES, PEER))
        gain = float(row["gain"].replace("−", "-"))
        assert gain == pytest.approx(float(figures["psnr"]) - best, abs=0.006)


def test_every_baseline_that_a_run_is_compared_with_is_in_their_table(synthetic):
    raw = csv.DictReader((synthetic / "results.csv").read_text().splitlines())
    expected = {
        (row["protocol"], *(f"{float(row[f'{name}_psnr']):.2f}" for name in (*BASELINES, PEER)))
        for row in raw
    }
    titles = ("protocol", *BASELINES.values(), "input warped")
    rows = table_rows(synthetic, "Baselines of profile")
    assert {tuple(row[title] for title in titles) for row in rows} == expected
    assert len(rows) == len(expected)


def test_no_table_of_a_report_is_wider_than_a_page(synthetic, published):
    reports = [synthetic, published, *REPORTS]
    for path in [report / name for report in reports for name in ("results.md", "reproduction.md")]:
        tables = tables_of(path)
        assert tables
        for title, lines in tables.items():
            # The angles to the training cameras are eight, beside the name of the model.
            assert len(lines[0]) <= (9 if title.startswith("Known limit") else 8), title
            assert all(len(" | ".join(line)) <= 160 for line in lines), title


def test_the_csv_has_unrounded_figures_and_ends_with_time_and_hardware(synthetic):
    rows = list(csv.DictReader((synthetic / "results.csv").read_text().splitlines()))
    outputs = synthetic.parents[1] / "outputs" / "quick"
    metrics = json.loads((outputs / "nmr_srt" / "metrics.json").read_text())
    assert float(rows[0]["psnr"]) == metrics["protocols"]["stelzner"]["psnr"]
    assert (rows[0]["ssim"], rows[1]["lpips"], rows[0]["published_psnr"]) == ("", "", "")

    # What depends on the machine comes last.
    assert list(rows[0])[-2:] == ["training_seconds", "hardware"]


def test_classes_match_the_published_ones_by_any_of_their_synonyms(published):
    rows = {row["class"]: row for row in table_rows(published, BY_CLASS)}
    title = "PixelNeRF, published"
    assert rows["airplane,aeroplane,plane"][title] == "29.76"
    assert rows["vessel,watercraft"][title] == "29.18"
    assert rows["spaceship"][title] == "–"
    assert rows["all"][title] == "26.80"
    assert rows["all"]["nmr_srt"] == table_rows(published)[1]["PSNR"]


def test_published_classes_add_up_to_the_published_figure_of_all_scenes():
    result = published_result("nmr_srt", "pixelnerf")
    assert result.classes.keys() == TEST_SCENES.keys()
    assert result.items == sum(TEST_SCENES.values())

    # The mean over all scenes weights each class by its scenes. Tolerances are half a last digit.
    for index, tolerance in enumerate((0.005, 0.0005, 0.0005)):
        total = sum(result.classes[name][index] * scenes for name, scenes in TEST_SCENES.items())
        published_mean = (result.psnr, result.ssim, result.lpips)[index]
        assert total / result.items == pytest.approx(published_mean, abs=tolerance)


def test_every_published_result_has_a_defined_protocol_and_a_source_that_was_read():
    protocols, _ = get_args(get_type_hints(EvaluateConfig)["protocols"])
    assert set(PROTOCOLS) == set(get_args(protocols))
    for results in RESULTS.values():
        assert len({result.protocol for result in results}) == len(results)
        assert all(result.protocol in PROTOCOLS for result in results)
        assert all(result.mark == "read" for result in results)


@pytest.mark.parametrize(("profile", "fixture"), [("quick", "synthetic"), ("paper", "published")])
def test_equal_inputs_give_equal_bytes(profile, fixture, request):
    report = request.getfixturevalue(fixture)
    outputs, second = report.parent, report.parent / "second"
    if profile == "quick":
        outputs = report.parents[1] / "outputs" / "quick"
    make_report(profile=profile, outputs=outputs, out=second, params=PARAMS)
    for path in filter(Path.is_file, report.iterdir()):
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@pytest.mark.parametrize("length", [0, 1, 7, 10, 11, 95])
def test_an_averaged_curve_is_short_and_a_straight_line_stays_straight(length):
    curve = [(float(step), 3.0 * step + 1) for step in range(length)]
    steps, values = moving_average(curve, points=10).T
    assert len(steps) == length if length <= 10 else len(steps) <= 10
    np.testing.assert_allclose(values, 3 * steps + 1)


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
    params["experiments"] = {"nmr_b": {"dataset": "nmr"}, "nmr_a": {"dataset": "nmr"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for name in ("nmr_a", "nmr_b", "nmr_stale"):
        write_run(tmp_path / name, "quick", True, {"stelzner": 32})
    out = tmp_path / "report"
    make_report(profile="quick", outputs=tmp_path, out=out, params=tmp_path / "params.yaml")
    assert [row["run"] for row in table_rows(out)] == ["nmr_b", "nmr_a"]
    assert "nmr_stale" not in (out / "index.html").read_text()


def test_the_report_shows_every_dataset(synthetic):
    names = list(load_params(PARAMS).datasets)
    rows = table_rows(synthetic, "Datasets")
    assert [row["dataset"] for row in rows] == [f"{name} (synthetic)" for name in names]
    assert rows[0]["train"] == "1\u00a0234"
    assert rows[0]["uncompressed"] == "7.5 GB"
    cameras = table_rows(synthetic, "Cameras of the datasets")
    assert [row["dataset"] for row in cameras] == [row["dataset"] for row in rows]
    assert cameras[0]["camera distance"] == "1.00 to 4.00"
    page = (synthetic / "results.md").read_text()
    assert all(f"(datasets/{name}/scenes.png)" in page for name in names)


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


def test_a_bar_in_a_cell_does_not_begin_a_column_of_markdown():
    table = Table("a", "lr", ["x|y", "<z>"], [["1", "2"]], [])
    assert r"| x\|y | <z> |" in to_markdown(table)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(29.0, "29 s"), (119.0, "2 min"), (3599.0, "1 h 0 min"), (11400.0, "3 h 10 min"),
     (172790.0, "2 d"), (12.2 * 86400, "12 d")],
)  # fmt: skip
def test_a_duration_is_in_its_largest_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.03944, "0.0394"), (6.1, "6.1"), (999.4, "999"), (999.7, "1\u00a0000"),
     (31415.9, "31\u00a0416")],
)  # fmt: skip
def test_a_value_of_three_digits_has_no_exponent(value, text):
    assert format_three_digits(value) == text


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
