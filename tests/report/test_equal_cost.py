"""Models are compared where all of them were validated: after equal steps and equal time."""

import dataclasses

import pytest
from support.small_runs import metrics_of

from srt.report.tables.equal_cost import equal_cost_table
from srt.report.tables.results import result_rows
from srt.results.curves import reached_by_all, value_at
from srt.results.runs import Run, equal_cost

SECONDS = {"encode_seconds": 0.0123, "frame_seconds": 1.5, "hardware": "a GPU"}


def run_of(name, curve, steps, seconds, dataset="nmr", hardware="a GPU", items=16):
    """Returns a run of synthetic scenes; its model is the last part of its name."""
    metrics = metrics_of(name, "quick", True, {"stelzner": 32, "pixelnerf": 32})
    cost = {"steps": steps, "best_step": curve[-1][0], "seconds": seconds, "hardware": hardware}
    history = {"validation_psnr": curve, "train_psnr": curve}
    model = name.split("_")[-1]
    return Run(metrics | {"dataset": dataset}, cost, history, SECONDS, model, items)


def line(steps, slope):
    """Returns a curve that is straight, but for what lies between its points."""
    return [(float(step), 10 + slope * step) for step in steps]


FAST = run_of("nmr_srt", line((100, 200, 300, 400), 0.02), steps=400, seconds=80.0)
SLOW = run_of("nmr_vsrt", line((50, 150, 250), 0.03), steps=250, seconds=125.0)


def cells(*runs):
    table = equal_cost_table(runs, "quick")
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("place", [0.0, 1.0, 2.0, 2.5, 7.0, 9.0])
def test_a_curve_is_straight_between_its_points(place):
    curve = [(0.0, 3.0), (2.0, 7.0), (9.0, 21.0)]
    assert value_at(curve, place) == pytest.approx(3 + 2 * place)


@pytest.mark.parametrize("place", [None, -1.0, 0.99, 9.01])
def test_a_curve_has_no_value_where_it_was_not_measured(place):
    assert value_at([(1.0, 3.0), (9.0, 7.0)], place) is None


def test_curves_are_compared_at_the_end_of_the_shortest():
    assert reached_by_all([[(1.0, 0.0), (5.0, 0.0)], [(2.0, 0.0), (4.0, 0.0)]]) == 4.0


def test_models_are_compared_at_the_steps_and_the_time_that_all_reached():
    fast, slow = cells(FAST, SLOW)
    assert (fast["equal steps"], slow["equal steps"]) == ("250", "250")
    assert (fast["PSNR there"], slow["PSNR there"]) == ("15.00", "17.50")
    assert (fast["time to there"], slow["time to there"]) == ("50 s", "2.1 min")
    assert (fast["equal time"], slow["equal time"]) == ("1.3 min", "1.3 min")
    assert (fast["PSNR then"], slow["PSNR then"]) == ("18.00", "14.80")
    assert (fast["steps by then"], slow["steps by then"]) == ("400", "160")


@pytest.mark.parametrize("seconds", [137.3, 0.7, 1e5 / 3])
def test_the_training_that_sets_the_time_has_its_last_validation_there(seconds):
    other = run_of("nmr_isrt", line((100, 900), 0.01), steps=900, seconds=1e6)
    first = run_of("nmr_srt", line((100, 700), 0.01), steps=700, seconds=seconds)
    (row, _) = cells(first, other)
    assert row["PSNR then"] == "17.00"


def test_what_was_not_validated_before_has_no_figure():
    late = run_of("nmr_vsrt", line((400,), 0.03), steps=400, seconds=800.0)
    (fast, slow) = cells(FAST, late)
    assert (fast["PSNR then"], slow["PSNR then"]) == ("18.00", "–")
    assert slow["PSNR there"] == "22.00"


def test_times_of_different_machines_are_not_compared():
    other = dataclasses.replace(SLOW, training={**SLOW.training, "hardware": "a CPU"})
    for row in cells(FAST, other):
        assert (row["equal time"], row["PSNR then"], row["steps by then"]) == ("–", "–", "–")
        assert row["PSNR there"] != "–"
    assert any("same hardware" in note for note in equal_cost_table([FAST, other], "q").notes)
    assert not any("same hardware" in note for note in equal_cost_table([FAST, SLOW], "q").notes)


def test_one_model_alone_is_compared_with_nothing():
    lonely = run_of("msn_srt", line((100, 200), 0.02), 200, 80.0, dataset="msn")
    again = run_of("msn_again_srt", line((100, 200), 0.02), 200, 80.0, dataset="msn")
    assert equal_cost_table([FAST, lonely], "quick") is None
    assert [row["run"] for row in cells(FAST, lonely, SLOW, again)] == ["nmr_srt", "nmr_vsrt"]
    assert equal_cost([lonely, again]) == (None, None)


def test_fewer_validation_items_than_others_are_said():
    fewer = dataclasses.replace(SLOW, validation_items=4)
    (said,) = [note for note in equal_cost_table([FAST, fewer], "quick").notes if "items" in note]
    assert said == "nmr_vsrt was validated on 4 items, not on 16 as others."


def test_the_raw_figures_have_the_same_comparison():
    rows = result_rows([FAST, SLOW])
    names = ("equal_steps", "equal_steps_psnr", "equal_seconds", "equal_seconds_psnr")
    assert [[row[name] for name in names] for row in rows[::2]] == [
        [250, pytest.approx(15.0), 80.0, pytest.approx(18.0)],
        [250, pytest.approx(17.5), 80.0, pytest.approx(14.8)],
    ]


def test_the_figures_at_the_end_are_those_of_the_results():
    (row, _) = cells(FAST, SLOW)
    figures = FAST.metrics["protocols"]
    assert row["test PSNR, stelzner"] == f"{figures['stelzner']['psnr']:.2f}"
    assert row["test SSIM, pixelnerf"] == f"{figures['pixelnerf']['ssim']:.3f}"
    assert "test PSNR, pixelnerf" not in row  # which stelzner has before it
    assert "test SSIM, stelzner" not in row  # it defines none
    assert "test LPIPS, pixelnerf" not in row  # none was measured
