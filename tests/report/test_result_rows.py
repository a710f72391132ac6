"""The tables of results, classes and costs: departures, published figures, and missing ones."""

import dataclasses

import pytest
from support.small_runs import PLAIN, TIMES, history_of, metrics_of, training_of

from srt.report.tables.baseline_psnr import baselines_table
from srt.report.tables.classes import class_tables
from srt.report.tables.costs import costs_table
from srt.report.tables.result_rows import result_rows
from srt.report.tables.results import results_table
from srt.report.tables.trainings import trainings_table
from srt.results.runs import Run


def make_run(name, protocols, conditions=PLAIN, **settings):
    """Return a run that was measured on published data.

    Args:
        protocols: the number of items of each protocol.
    """
    metrics = metrics_of(name, "paper", False, protocols, conditions=conditions, **settings)
    training = training_of(name, hardware="NVIDIA H200")
    return Run(metrics, training, history_of([(750, 20.0)]), TIMES, "srt", 512)


def change_scores(run, protocol, **changes):
    """Return the run with other figures of a protocol."""
    scores = dataclasses.replace(run.metrics.protocols[protocol], **changes)
    protocols = {**run.metrics.protocols, protocol: scores}
    return dataclasses.replace(run, metrics=dataclasses.replace(run.metrics, protocols=protocols))


def column(table, title):
    """Return the cells below a title."""
    index = table.header.index(title)
    return [row[index] for row in table.rows]


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ((3, 5, 0.0), "3 input views instead of 5"),
        ((1, 2, 0.0), "1 input view instead of 2"),
        ((5, 5, 0.1), "pose noise 0.1"),
        ((3, 5, 0.1), "3 input views instead of 5, pose noise 0.1"),
    ],
)
def test_a_departure_from_a_protocol_is_named_and_not_compared(conditions, text):
    plain = make_run("msn_srt", {"stelzner": 10000})
    names = ("input_views", "trained_input_views", "pose_noise")
    conditions = dataclasses.replace(PLAIN, **dict(zip(names, conditions, strict=True)))
    changed = make_run("msn_srt", {"stelzner": 10000}, conditions)

    # Only the run that follows the protocol stands beside the published figure.
    rows = result_rows([plain, changed])
    assert [row.departure for row in rows] == ["", text]
    assert [row.published_psnr for row in rows] == [23.39, None]
    assert [row.difference_psnr is None for row in rows] == [False, True]

    # The tables name the departure, and a note explains it.
    table = results_table(rows, "paper")
    assert column(table, "protocol") == ["stelzner", f"stelzner, {text}"]
    assert any("departs from it" in note for note in table.notes)
    assert not any("departs from it" in note for note in results_table(rows[:1], "paper").notes)
    titles = [table.title for table in class_tables([plain, changed])]
    assert titles[1] == f"{titles[0]}, {text}"


@pytest.mark.parametrize(("name", "psnr"), [("msn_srt", 23.39), ("msn_isrt", 24.84)])
def test_msn_is_compared_with_a_published_figure_only_on_all_test_scenes(name, psnr):
    all_scenes = make_run(name, {"stelzner": 10000})
    one_less = make_run(name, {"stelzner": 9999})
    complete, incomplete = result_rows([all_scenes, one_less])
    assert complete.published_psnr == incomplete.published_psnr == psnr
    assert complete.difference_psnr == pytest.approx(complete.psnr - psnr)
    assert incomplete.difference_psnr is None


def test_lpips_of_alexnet_is_in_the_table_of_trainings_if_it_was_measured():
    protocols = {"stelzner": 7, "pixelnerf": 7}
    run = make_run("a", protocols)
    assert "LPIPS (AlexNet)" not in trainings_table(result_rows([run]), "paper").header
    other = make_run("b", protocols | {"gta": 7}, lpips=0.25)
    table = trainings_table(result_rows([run, other]), "paper")
    assert column(table, "LPIPS (AlexNet)") == ["–", "0.250"]
    assert "LPIPS (AlexNet)" not in results_table(result_rows([run, other]), "paper").header


def test_a_measure_of_some_runs_says_where_it_was_not_measured():
    runs = [make_run("a", {"pixelnerf": 7}), make_run("b", {"pixelnerf": 7}, lpips=0.25)]
    table = results_table(result_rows(runs), "paper")
    assert column(table, "LPIPS") == ["not measured", "0.250"]


def test_the_best_figure_of_several_runs_on_the_same_items_is_bold():
    def bold_runs(psnr_and_ssim, **others):
        runs = []
        for name, (psnr, ssim) in psnr_and_ssim.items():
            run = make_run(name, {"pixelnerf": 7}, lpips=ssim, **others.get(name, {}))
            runs.append(change_scores(run, "pixelnerf", psnr=psnr, ssim=ssim))
        table = results_table(result_rows(runs), "paper")
        return {(table.rows[row][0], table.header[column]) for row, column in table.bold}

    # Of LPIPS, which is here as large as SSIM, less is better. Equal figures are equally good.
    assert bold_runs({"a": (20.0, 0.5), "b": (21.001, 0.4), "c": (21.004, 0.3)}) == {
        ("b", "PSNR"),
        ("c", "PSNR"),
        ("a", "SSIM"),
        ("c", "LPIPS"),
    }

    # A single run is not the best of several, nor are runs on different items.
    assert bold_runs({"a": (20.0, 0.5)}) == set()
    assert bold_runs({"a": (20.0, 0.5), "b": (21.0, 0.4)}, b={"items": 3}) == set()


def test_a_table_of_trainings_says_what_is_equal_in_all_rows_once():
    runs = [make_run("a", {"stelzner": 7}), make_run("b", {"stelzner": 7}, items=3)]
    table = trainings_table(result_rows(runs), "paper")
    assert table.header == ["run", "items measured"]
    assert table.rows == [["a", "stelzner: all 7"], ["b", "stelzner: 3 of 7"]]
    assert table.notes[0] == (
        "In all rows: iterations 1\u00a0000; selected step 750; training time 2.2 min;"
        " hardware NVIDIA H200."
    )


def test_results_from_before_the_peer_was_measured_have_a_dash():
    new, old = make_run("a", {"stelzner": 7}), make_run("b", {"stelzner": 7})
    scores = old.metrics.protocols["stelzner"]
    baselines = dataclasses.replace(scores.baselines, warped_input=None)
    old = change_scores(old, "stelzner", baselines=baselines)

    # The gain over the baselines does not need the peer.
    rows = result_rows([new, old])
    best = max(baselines.mean_colour.psnr, baselines.input_view.psnr)
    assert rows[1].warped_input_psnr is None
    assert rows[1].gain_over_peer_psnr is None
    assert rows[1].gain_psnr == pytest.approx(scores.psnr - best)

    table = baselines_table(rows, "paper")
    assert [cell == "–" for cell in column(table, "input warped")] == [False, True]
    assert any("evaluated before this was measured" in note for note in table.notes)
    assert "evaluated before" not in str(baselines_table(rows[:1], "paper").notes)
    assert column(results_table(rows, "paper"), "gain")[1] == f"{rows[1].gain_psnr:+.2f}"


def test_classes_are_sorted_by_their_numbers():
    classes = [f"{number} objects" for number in (10, 3, 9, 6)]
    (table,) = class_tables([make_run("a", {"stelzner": 7}, classes=classes)])
    order = ["3 objects", "6 objects", "9 objects", "10 objects", "all"]
    assert column(table, "class") == order


def test_a_single_class_has_no_table():
    assert class_tables([make_run("a", {"stelzner": 7}, classes=("scene",))]) == []


def trained_on(run, hardware, **figures):
    """Return the run with these figures in its training.json."""
    training = dataclasses.replace(run.training, hardware=hardware, **figures)
    return dataclasses.replace(run, training=training)


def test_training_costs_are_gpu_hours_and_the_energy_and_memory_that_were_measured():
    run = make_run("a", {"stelzner": 7})
    one = trained_on(run, "1 x NVIDIA H200", seconds=540.0, joules=None)
    four = trained_on(run, "4 x NVIDIA H200", seconds=7200.0, joules=3_600_000)
    with_memory = trained_on(run, "1 x NVIDIA H200", seconds=540.0, peak_gigabytes=6.66)
    cpu = trained_on(run, "x86_64 CPU, 2 threads", seconds=540.0)

    # The hours of all GPUs add up.
    names = ("one", "four", "memory", "cpu")
    runs = [
        dataclasses.replace(run, metrics=dataclasses.replace(run.metrics, experiment=name))
        for name, run in zip(names, (one, four, with_memory, cpu), strict=True)
    ]
    table = trainings_table(result_rows(runs), "paper")
    assert len(table.align) == len(table.header)
    assert column(table, "GPU use") == [
        "0.15 GPU hours",
        "8.00 GPU hours, 1\u00a0000 Wh",
        "0.15 GPU hours, 6.7 GB",
        "–",
    ]
    rows = result_rows([four, cpu])
    assert [(row.gpu_hours, row.joules) for row in rows] == [(8.0, 3.6e6), (None, None)]

    # Without a GPU there is neither the column nor its note.
    without_gpu = trainings_table(result_rows([cpu]), "paper")
    assert "GPU use" not in without_gpu.header
    assert "GPU" not in str(without_gpu.notes)


def test_the_table_of_costs_has_a_row_for_each_run():
    runs = [make_run("a", {"stelzner": 7}), make_run("b", {"stelzner": 7})]
    table = costs_table(runs)
    counts = ["nmr", "74\u00a0000\u00a0000", "31.4 GFLOP", "2.5 GFLOP"]
    assert table.rows[0] == ["a", *counts, "12.3 ms", "1\u00a0500 ms"]
    assert table.notes[0] == "In all rows: hardware NVIDIA H200."
    assert costs_table(runs[:1]).header[-1] == "hardware"
    assert table.rows[1][0] == "b"
    assert [row.parameters for row in result_rows(runs)] == [74_000_000] * 2
