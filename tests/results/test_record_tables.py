"""The CSV files of the stages: what is written is read again, and what is damaged is refused."""

import re

import pytest
from support.paths import REPOSITORY

from srt.common.errors import DataError
from srt.results.record_tables import (
    BASELINES,
    History,
    HistoryRow,
    ItemScores,
    history_text,
    read_history,
    read_scenes,
    write_history,
    write_scenes,
)
from srt.results.records import Baselines, Measures

HEADER = "step,train_psnr,learning_rate,validation_psnr"
HISTORIES = sorted(REPOSITORY.glob("reports/*/*/**/history.csv"))


def item(scene="a", psnr=24.5, **values):
    """Return the scores of an item, with baselines."""
    measures = Measures(psnr=psnr, ssim=0.75)
    baselines = Baselines(mean_colour=measures, input_view=measures, warped_input=measures)
    defaults = {"scene": scene, "class_name": "vessel,watercraft", "inputs": (0, 3)}
    defaults |= {"protocol": "pixelnerf", "scores": measures, "baselines": baselines}
    return ItemScores(**{**defaults, **values})


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.parent.name)
def test_a_tracked_history_is_read_and_written_as_the_same_bytes(path):
    assert history_text(read_history(path)).encode() == path.read_bytes()


def test_a_history_that_is_written_is_read_again(tmp_path):
    rows = (
        HistoryRow(step=2, train_psnr=None, learning_rate=None, validation_psnr=14.25),
        HistoryRow(step=3, train_psnr=15.5, learning_rate=0.0001, validation_psnr=None),
    )
    path = tmp_path / "history.csv"
    write_history(path, History(rows))
    history = read_history(path)
    assert history.rows == rows
    assert history.train_psnr == [(3.0, 15.5)]
    assert history.validation_psnr == [(2.0, 14.25)]


def test_items_that_are_written_are_read_again(tmp_path):
    rows = [item(), item("b, of two", baselines=None), item("c", inputs=())]
    path = tmp_path / "scenes.csv"
    write_scenes(path, rows)
    assert read_scenes(path) == rows


def test_items_have_a_column_for_each_measure_and_figures_six_decimals(tmp_path):
    path = tmp_path / "scenes.csv"
    write_scenes(path, [item(class_name="cup")])
    header, line = path.read_text().splitlines()
    assert header.startswith("protocol,scene,class,inputs,psnr,ssim,lpips,lpips_alex,mean_colour_")
    assert line == "pixelnerf,a,cup,0 3" + (1 + len(BASELINES)) * ",24.500000,0.750000,,"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"its header is '', not '{HEADER}'"),
        ("step,psnr\n1,2\n", f"its header is 'step,psnr', not '{HEADER}'"),
        (f"{HEADER}\n10,24.5,0.1,\n20,24", "line 3 has 2 cells, not 4"),
        (f"{HEADER}\n10,24.5,0.1,,1\n", "line 2 has 5 cells, not 4"),
        (f"{HEADER}\nten,24.5,0.1,\n", "line 2: step: 'ten' is not a whole number"),
        (f"{HEADER}\n,24.5,0.1,\n", "line 2: step: '' is not a whole number"),
        (f"{HEADER}\n10,nan,0.1,\n", "line 2: train_psnr: 'nan' is not a finite number"),
        (f"{HEADER}\n10,24.5,0.1,inf\n", "line 2: validation_psnr: 'inf' is not a finite number"),
        (f"{HEADER}\n10,24.5,null,\n", "line 2: learning_rate: 'null' is not a finite number"),
        (None, "there is no such file"),
    ],
)
def test_a_damaged_history_is_refused_by_file_line_and_value(tmp_path, text, expected):
    path = tmp_path / "history.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {expected}')}$"):
        read_history(path)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (",0 3,", ",zero,", "line 2: inputs: 'zero' is not a list of views"),
        ("0 3,24.500000", "0 3,", "line 2: psnr: '' is not a finite number"),
        ("0 3,24.500000", "0 3,nan", "line 2: psnr: 'nan' is not a finite number"),
        (",,24.500000", ",,", "line 2: mean_colour_psnr: '' is not a finite number"),
        ("protocol,", "rule,", "its header is 'rule,scene,"),
    ],
)
def test_a_damaged_table_of_items_is_refused_by_file_line_and_value(
    tmp_path, before, after, expected
):
    path = tmp_path / "scenes.csv"
    write_scenes(path, [item()])
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {expected}')}"):
        read_scenes(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "history.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"history\.csv: not readable"):
        read_history(path)


def test_a_figure_that_is_not_finite_is_not_written(tmp_path):
    path = tmp_path / "scenes.csv"
    with pytest.raises(
        DataError, match=r"scenes\.csv: .* scene b: psnr: nan is not a finite number"
    ):
        write_scenes(path, [item(), item("b", psnr=float("nan"))])
    assert not path.exists()
