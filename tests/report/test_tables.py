"""The stage tabulate makes a report from the files that train, evaluate and survey write."""

import csv
import json
import re
from typing import get_args, get_type_hints

import numpy as np
import pytest
from small_reports import make_report, table_rows, tables_of, write_runs
from support.paths import PARAMS
from support.tracked_reports import REPORTS

from srt.config.load import load_params
from srt.config.schema import EvaluateConfig
from srt.report.figures import moving_average
from srt.report.format.numbers import format_duration, format_three_digits
from srt.report.format.table import Table, to_markdown
from srt.results.published_figures import PROTOCOLS, RESULTS, published_result

# The baselines in the raw figures; the warped input is the peer of the models.
BASELINES = {"mean_colour": "mean colour", "input_view": "input copied"}
PEER = "warped_input"

# A column of the table of results, and the title of another table.
PUBLISHED = "published PSNR"
BY_CLASS = "PSNR by class: nmr, protocol pixelnerf"

# Scenes of the published NMR test set, by class.
TEST_SCENES = {
    "airplane": 809, "bench": 364, "cabinet": 315, "car": 1500, "chair": 1356, "display": 219,
    "lamp": 464, "loudspeaker": 324, "rifle": 475, "sofa": 635, "table": 1702, "telephone": 211,
    "watercraft": 388,
}  # fmt: skip


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


@pytest.mark.parametrize("length", [0, 1, 7, 10, 11, 95])
def test_an_averaged_curve_is_short_and_a_straight_line_stays_straight(length):
    curve = [(float(step), 3.0 * step + 1) for step in range(length)]
    steps, values = moving_average(curve, points=10).T
    assert len(steps) == length if length <= 10 else len(steps) <= 10
    np.testing.assert_allclose(values, 3 * steps + 1)


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
