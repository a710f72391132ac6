"""What the tables say of runs: departures, published figures, classes and costs."""

import dataclasses

import pytest
from support.small_runs import PLAIN, metrics_of

from srt.evaluation import scores
from srt.report.tables.classes import class_tables
from srt.report.tables.costs import costs_table
from srt.report.tables.results import BASELINES, PEER, result_rows, results_table
from srt.results.runs import Run

SECONDS = {"encode_seconds": 0.0123, "frame_seconds": 1.5, "hardware": "NVIDIA H200"}


def run_of(name, of, conditions=PLAIN, **settings):
    """Returns a run that was measured on published data."""
    metrics = metrics_of(name, "paper", False, of, **settings) | {"conditions": conditions}
    cost = {"steps": 1000, "best_step": 750, "seconds": 131.7, "hardware": "NVIDIA H200"}
    history = {"validation_psnr": [(750.0, 20.0)]}
    return Run(metrics, cost, history, SECONDS, "srt", 512)


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ((3, 5, 0.0), "3 input views instead of 5"),
        ((1, 2, 0.0), "1 input view instead of 2"),
        ((5, 5, 0.1), "pose noise 0.1"),
        ((3, 5, 0.1), "3 input views instead of 5, pose noise 0.1"),
    ],
)
def test_a_departure_from_a_protocol_shows_and_is_compared_with_nothing(conditions, text):
    plain = run_of("msn_srt", {"stelzner": 10000})
    conditions = dict(zip(PLAIN, conditions, strict=True))
    other = run_of("msn_srt", {"stelzner": 10000}, conditions)
    rows = result_rows([plain, other])
    assert [row["departure"] for row in rows] == ["", text]
    assert [row["published_psnr"] for row in rows] == [23.39, None]
    assert [row["difference_psnr"] is None for row in rows] == [False, True]
    table = results_table(rows, "paper")
    column = table.header.index("protocol")
    assert [row[column] for row in table.rows] == ["stelzner", f"stelzner, {text}"]
    assert any("departs from it" in note for note in table.notes)
    assert not any("departs from it" in note for note in results_table(rows[:1], "paper").notes)
    titles = [table.title for table in class_tables([plain, other])]
    assert titles[1] == f"{titles[0]}, {text}"


@pytest.mark.parametrize(("name", "psnr"), [("msn_srt", 23.39), ("msn_isrt", 24.84)])
def test_msn_is_compared_with_the_published_figure_of_all_its_test_scenes(name, psnr):
    whole, part = result_rows([run_of(name, {"stelzner": count}) for count in (10000, 9999)])
    assert whole["published_psnr"] == part["published_psnr"] == psnr
    assert whole["difference_psnr"] == pytest.approx(whole["psnr"] - psnr)
    assert part["difference_psnr"] is None


def test_lpips_of_alexnet_has_a_column_where_a_protocol_defines_it():
    of = {"stelzner": 7, "pixelnerf": 7}
    assert "LPIPS (AlexNet)" not in results_table(result_rows([run_of("a", of)]), "paper").header
    rows = result_rows([run_of("a", of | {"gta": 7}, lpips=0.25)])
    table = results_table(rows, "paper")
    column = table.header.index("LPIPS (AlexNet)")
    assert [row[column] for row in table.rows] == ["–", "–", "0.250"]


def test_files_from_before_the_peer_have_a_dash():
    new, old = run_of("a", {"stelzner": 7}), run_of("b", {"stelzner": 7})
    del old.metrics["protocols"]["stelzner"]["baselines"]["warped_input"]
    figures = old.metrics["protocols"]["stelzner"]
    best = max(figures["baselines"][name]["psnr"] for name in ("mean_colour", "input_view"))
    rows = result_rows([new, old])
    assert rows[1]["warped_input_psnr"] is None
    assert rows[1]["gain_over_peer_psnr"] is None
    assert rows[1]["gain_psnr"] == pytest.approx(figures["psnr"] - best)
    table = results_table(rows, "paper")
    column = table.header.index("input warped PSNR")
    assert [row[column] == "–" for row in table.rows] == [False, True]
    assert any("evaluated before this was measured" in note for note in table.notes)
    assert "evaluated before" not in str(results_table(rows[:1], "paper").notes)
    assert {*BASELINES, PEER} == {*scores.BASELINES}


def test_classes_are_sorted_as_people_count_and_a_single_class_has_no_table():
    counts = [f"{number} objects" for number in (10, 3, 9, 6)]
    (table,) = class_tables([run_of("a", {"stelzner": 7}, classes=counts)])
    order = ["3 objects", "6 objects", "9 objects", "10 objects", "all"]
    assert [row[0] for row in table.rows] == order
    assert class_tables([run_of("a", {"stelzner": 7}, classes=("scene",))]) == []


def trained_on(run, hardware, **figures):
    training = {**run.training, "hardware": hardware, **figures}
    return dataclasses.replace(run, training=training)


def test_gpu_hours_are_of_all_gpus_and_energy_and_memory_are_shown_where_measured():
    run = run_of("a", {"stelzner": 7})
    one = trained_on(run, "1 x NVIDIA H200", seconds=540.0, joules=None)
    four = trained_on(run, "4 x NVIDIA H200", seconds=7200.0, joules=3.6e6)
    with_memory = trained_on(run, "1 x NVIDIA H200", seconds=540.0, peak_gigabytes=6.66)
    cpu = trained_on(run, "x86_64 CPU, 2 threads", seconds=540.0)
    table = costs_table([one, four, with_memory, cpu])
    assert [row[-1] for row in table.rows] == [
        "0.15 GPU hours",
        "8.00 GPU hours, 1\u00a0000 Wh",
        "0.15 GPU hours, 6.7 GB",
        "–",
    ]
    assert table.header[-1] == "to train"
    assert len(table.align) == len(table.header)
    rows = result_rows([four, cpu])
    assert [(row["gpu_hours"], row["joules"]) for row in rows] == [(8.0, 3.6e6), (None, None)]
    alone = costs_table([cpu])
    assert "to train" not in alone.header
    assert "GPU" not in str(alone.notes)


def test_the_table_of_costs_has_a_row_for_each_run():
    runs = [run_of("a", {"stelzner": 7}), run_of("b", {"stelzner": 7})]
    table = costs_table(runs)
    counted = ["nmr", "74\u00a0000\u00a0000", "31.4 GFLOP", "2.5 GFLOP"]
    assert table.rows[0] == ["a", *counted, "12.3 ms", "1\u00a0500 ms", "NVIDIA H200"]
    assert table.rows[1][0] == "b"
    assert [row["parameters"] for row in result_rows(runs)] == [74_000_000] * 2
