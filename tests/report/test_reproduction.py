"""Published figures beside ours, and the cost of a training at the published scale."""

import json

import pytest
from small_reports import PERFORMANCE
from support.paths import REPOSITORY
from support.small_runs import TIMES, history_of, metrics_of, training_of

from srt.config.load import load_experiments
from srt.report.tables.reproduction import (
    reproduction_class_tables,
    reproduction_costs_table,
    reproduction_table,
)
from srt.report.tables.reproduction_rows import reproduction_rows
from srt.results.runs import Run


def plans():
    return load_experiments(REPOSITORY / "params.yaml", "paper")


def performance():
    return json.loads(PERFORMANCE.read_text())


def run_of(name, synthetic, of):
    metrics = metrics_of(name, "paper", synthetic, of, classes=("airplane", "vessel,watercraft"))
    training = training_of(name, steps=3_000_000)
    return Run(metrics, training, history_of([]), TIMES, "srt", 512)


def test_what_was_not_run_on_published_data_has_no_figure_of_ours():
    runs = [run_of("nmr_srt", True, {"stelzner": 768, "pixelnerf": 32})]
    rows = reproduction_rows(runs, plans(), performance())
    ours = [row for row in rows if row.ours]
    assert {row.ours for row in ours} == {plan.name for plan in plans()}
    assert not [row for row in ours if row.psnr is not None]
    table = reproduction_table(rows)
    column = table.header.index("PSNR")
    shown = {row[column] for row in table.rows if "this repository" in row[2]}
    assert shown == {"not run"}
    similarity = {row[1]: row[column + 1] for row in table.rows if row[2].startswith("nmr_srt")}
    assert similarity == {"stelzner": "–", "pixelnerf": "not run"}  # stelzner defines none


def test_a_run_of_published_data_stands_below_the_published_figure_of_its_protocol():
    runs = [run_of("nmr_srt", False, {"stelzner": 24 * 8762, "pixelnerf": 8762})]
    rows = reproduction_rows(runs, plans(), performance())
    whole = [row for row in rows if (row.dataset, row.class_name) == ("nmr", "all")]
    protocols = [row.protocol for row in whole]
    assert protocols == sorted(protocols, key=["stelzner", "pixelnerf", "not known"].index)
    ours = {row.protocol: row.psnr for row in whole if row.ours == "nmr_srt"}
    scores = runs[0].metrics.protocols
    assert ours == {name: scores[name].psnr for name in ("stelzner", "pixelnerf")}

    # Each measure has a table, in which our run stands beside the published figures.
    tables = reproduction_class_tables(rows)
    titles = [table.title.partition(" by class")[0] for table in tables]
    assert titles == ["PSNR", "SSIM", "LPIPS"]
    header = tables[0].header
    assert header == ["class", "PixelNeRF", "nmr_srt"]
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in tables[0].rows}
    vessels = scores["pixelnerf"].classes["vessel,watercraft"].psnr
    assert cells["watercraft"]["nmr_srt"] == f"{vessels:.2f}"
    assert cells["watercraft"]["PixelNeRF"] == "29.18"
    assert cells["bench"]["nmr_srt"] == "not run"
    assert "Not run on the published data: nmr_vsrt, nmr_isrt." in tables[0].notes


def test_a_single_method_has_one_table_by_class_with_a_column_for_each_measure():
    (table,) = reproduction_class_tables(reproduction_rows([], plans(), performance()))
    assert table.title.startswith("PixelNeRF by class")
    assert table.header == ["class", "PSNR", "SSIM", "LPIPS"]
    assert ["watercraft", "29.18", "0.939", "0.111"] in table.rows
    assert "Not run on the published data: nmr_srt, nmr_vsrt, nmr_isrt." in table.notes


def test_every_figure_from_elsewhere_has_a_source_and_how_it_was_read():
    rows = reproduction_rows([], plans(), performance())
    marks = {row.mark for row in rows if not row.ours}
    assert marks == {"read", "second-hand", "unconfirmed"}
    assert all(row.source for row in rows if not row.ours)


def test_gpu_hours_are_a_measured_step_times_the_iterations_or_not_measured():
    plan = next(plan for plan in plans() if plan.name == "nmr_srt")
    steps, batch = plan.train.steps, plan.train.batch_size
    timed = [(batch, "plain", 900.0), (batch, "ours, 4096", 500.0), (batch, "ours, 8192", 600.0)]
    timed.append((batch // 2, "ours, 4096", 250.0))
    known = [
        {"setting": "nmr_srt", "scenes": scenes, "way": way, "median_ms": ms, "peak_gb": 9.0}
        for scenes, way, ms in timed
    ]
    rows = reproduction_rows([], plans(), {"device": "a GPU", "rows": known})
    hours = {row.ours: row.gpu_hours for row in rows if row.ours}
    assert hours["nmr_srt"] == pytest.approx(steps * 0.5 / 3600, abs=0.1)
    assert {value for name, value in hours.items() if name != "nmr_srt"} == {None}
    costs = {row[0]: row[-3:] for row in reproduction_costs_table(rows).rows}
    assert costs["nmr_vsrt"] == ["not measured"] * 3
    assert costs["nmr_srt"] == ["500.0 ms", f"{hours['nmr_srt']:.0f}", "9.0 GB"]
