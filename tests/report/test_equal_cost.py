"""Models are compared at the steps and the time of training that all of them reached."""

import dataclasses

import pytest
from support.small_runs import TIMES, history_of, metrics_of, training_of

from srt.report.tables.equal_cost import equal_cost_table
from srt.report.tables.result_rows import result_rows
from srt.results.curves import common_end, value_at
from srt.results.runs import Run, equal_cost


def make_run(name, curve, steps, seconds, dataset="nmr", hardware="a GPU", items=16):
    """Return a run on synthetic scenes. Its model is the last word of its name.

    Args:
        items: the number of validation items.
    """
    metrics = metrics_of(name, "quick", True, {"stelzner": 32, "pixelnerf": 32}, dataset=dataset)
    best_step = int(curve[-1][0])
    training = training_of(
        name, steps=steps, best_step=best_step, seconds=seconds, hardware=hardware
    )
    model = name.split("_")[-1]
    return Run(metrics, training, history_of(curve), TIMES, model, items)


def straight_curve(steps, slope):
    """Return a curve that starts at 10 dB and grows by `slope` dB a step."""
    return [(float(step), 10 + slope * step) for step in steps]


# The slow model makes fewer steps, each of which takes longer and gains more.
FAST = make_run("nmr_srt", straight_curve((100, 200, 300, 400), 0.02), steps=400, seconds=80.0)
SLOW = make_run("nmr_vsrt", straight_curve((50, 150, 250), 0.03), steps=250, seconds=125.0)


def table_rows(*runs):
    """Return the rows of the table of these runs, a dictionary each."""
    table = equal_cost_table(runs, "quick")
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("step", [0.0, 1.0, 2.0, 2.5, 7.0, 9.0])
def test_a_curve_is_straight_between_its_points(step):
    curve = [(0.0, 3.0), (2.0, 7.0), (9.0, 21.0)]
    assert value_at(curve, step) == pytest.approx(3 + 2 * step)


@pytest.mark.parametrize("step", [None, -1.0, 0.99, 9.01])
def test_a_curve_has_no_value_where_it_was_not_measured(step):
    assert value_at([(1.0, 3.0), (9.0, 7.0)], step) is None


def test_curves_are_compared_at_the_end_of_the_shortest():
    assert common_end([[(1.0, 0.0), (5.0, 0.0)], [(2.0, 0.0), (4.0, 0.0)]]) == 4.0


def test_models_are_compared_at_the_steps_and_the_time_that_all_reached():
    fast, slow = table_rows(FAST, SLOW)

    # The slow model has 250 steps: 10 dB + 250 x 0.02 dB or 0.03 dB.
    assert (fast["equal steps"], slow["equal steps"]) == ("250", "250")
    assert (fast["PSNR there"], slow["PSNR there"]) == ("15.00", "17.50")
    assert (fast["time to there"], slow["time to there"]) == ("50 s", "2.1 min")

    # The fast model ends after 80 s, when the slow one has made 160 steps.
    assert (fast["equal time"], slow["equal time"]) == ("1.3 min", "1.3 min")
    assert (fast["PSNR then"], slow["PSNR then"]) == ("18.00", "14.80")
    assert (fast["steps by then"], slow["steps by then"]) == ("400", "160")


@pytest.mark.parametrize("seconds", [137.3, 0.7, 1e5 / 3])
def test_the_training_that_ends_first_is_compared_at_its_last_validation(seconds):
    # Rounding the time of its end must not put the last validation beyond it.
    longer = make_run("nmr_isrt", straight_curve((100, 900), 0.01), steps=900, seconds=1e6)
    first = make_run("nmr_srt", straight_curve((100, 700), 0.01), steps=700, seconds=seconds)
    (row, _) = table_rows(first, longer)
    assert row["PSNR then"] == "17.00"


def test_a_model_that_was_not_validated_early_enough_has_no_figure():
    late = make_run("nmr_vsrt", straight_curve((400,), 0.03), steps=400, seconds=800.0)
    (fast, slow) = table_rows(FAST, late)
    assert (fast["PSNR then"], slow["PSNR then"]) == ("18.00", "–")
    assert slow["PSNR there"] == "22.00"


def test_times_of_different_machines_are_not_compared():
    on_cpu = dataclasses.replace(
        SLOW, training=dataclasses.replace(SLOW.training, hardware="a CPU")
    )
    for row in table_rows(FAST, on_cpu):
        assert (row["equal time"], row["PSNR then"], row["steps by then"]) == ("–", "–", "–")
        assert row["PSNR there"] != "–"
    assert any("same hardware" in note for note in equal_cost_table([FAST, on_cpu], "q").notes)
    assert not any("same hardware" in note for note in equal_cost_table([FAST, SLOW], "q").notes)


def test_a_dataset_with_one_model_is_not_in_the_table():
    run = make_run("msn_srt", straight_curve((100, 200), 0.02), 200, 80.0, dataset="msn")
    again = make_run("msn_again_srt", straight_curve((100, 200), 0.02), 200, 80.0, dataset="msn")
    assert equal_cost_table([FAST, run], "quick") is None
    assert [row["run"] for row in table_rows(FAST, run, SLOW, again)] == ["nmr_srt", "nmr_vsrt"]
    assert equal_cost([run, again]) == (None, None)


def test_a_note_names_the_run_with_fewer_validation_items():
    fewer = dataclasses.replace(SLOW, validation_items=4)
    (note,) = [note for note in equal_cost_table([FAST, fewer], "quick").notes if "items" in note]
    assert note == "nmr_vsrt was validated on 4 items, not on 16 as others."


def test_the_raw_figures_have_the_comparison_too():
    rows = result_rows([FAST, SLOW])
    names = ("equal_steps", "equal_steps_psnr", "equal_seconds", "equal_seconds_psnr")
    assert [[getattr(row, name) for name in names] for row in rows[::2]] == [
        [250, pytest.approx(15.0), 80.0, pytest.approx(18.0)],
        [250, pytest.approx(17.5), 80.0, pytest.approx(14.8)],
    ]


def test_test_figures_and_totals_are_left_to_the_tables_of_results_and_trainings():
    table = equal_cost_table([FAST, SLOW], "quick")
    assert not [title for title in table.header if "test" in title or "in all" in title]
    assert any("have the test figures and the time of the whole" in note for note in table.notes)
