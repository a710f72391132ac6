"""The JSON files of the stages: what is written is read again, and what is damaged is refused."""

import dataclasses
import json
import re

import pytest
from support.paths import REPOSITORY
from support.small_runs import TIMES, metrics_of, survey_of, training_of

from srt.common.errors import DataError
from srt.results.record_files import NewerFormatError, read_record, write_record
from srt.results.records import Metrics, ModelTimes, PublishedOrigin, Survey, Training

ORIGIN = PublishedOrigin(checkpoint="model.pt", sha256="ab", epoch_it=3, run_id=None)
RECORDS = [
    metrics_of("a", "quick", True, {"stelzner": 8, "gta": 4}, lpips=0.25),
    training_of("a"),
    training_of("a", joules=3_600_000, peak_gigabytes=17.2, seed=1, published=ORIGIN),
    TIMES,
    survey_of("nmr", True),
]

# The classes of the tracked files, which are from before there were formats.
TRACKED = [
    (path, kind)
    for name, kind in (
        ("runs/*/metrics.json", Metrics),
        ("runs/*/costs.json", ModelTimes),
        ("runs/*/training.json", Training),
        ("seeds/*/*/training.json", Training),
        ("datasets/*/statistics.json", Survey),
    )
    for path in sorted(REPOSITORY.glob(f"reports/*/{name}"))
]


def as_json(record, path):
    """Return what the file of a record holds."""
    write_record(path, record)
    return json.loads(path.read_text())


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_that_is_written_is_read_again(record, tmp_path):
    path = tmp_path / "a.json"
    values = as_json(record, path)
    assert values["format"] == 1
    assert read_record(path, type(record)) == record


@pytest.mark.parametrize(("path", "kind"), TRACKED, ids=lambda value: getattr(value, "name", ""))
def test_files_from_before_there_were_formats_are_read_and_their_values_stay(path, kind, tmp_path):
    old = json.loads(path.read_text())
    new = as_json(read_record(path, kind), tmp_path / "a.json")
    assert "format" not in old
    assert {key: new[key] for key in old} == old

    # The order of the keys stays too. What an old file lacks is null.
    assert [key for key in new if key in old] == list(old)
    assert {key for key in new.keys() - old.keys() if new[key] is not None} == {"format"}


def test_some_files_from_before_there_were_formats_are_tracked():
    assert {kind for _, kind in TRACKED} == {Metrics, ModelTimes, Training, Survey}


def test_only_files_from_before_there_were_formats_may_lack_keys(tmp_path):
    path = tmp_path / "training.json"
    values = as_json(training_of("a"), path)
    del values["seed"]
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"training\.json: seed: this key is missing$"):
        read_record(path, Training)

    del values["format"]
    path.write_text(json.dumps(values))
    assert read_record(path, Training).seed is None


def test_an_evaluation_from_before_the_warped_input_is_read(tmp_path):
    path = tmp_path / "metrics.json"
    values = as_json(metrics_of("a", "quick", True, {"gta": 8}), path)
    del values["format"], values["protocols"]["gta"]["baselines"]["warped_input"]
    path.write_text(json.dumps(values))
    assert read_record(path, Metrics).protocols["gta"].baselines.warped_input is None


def replaced(values, key, value):
    """Return nested values with another value of a dotted key."""
    first, _, rest = key.partition(".")
    return {**values, first: replaced(values[first], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("protocols.gta.psnr", None, "None is not a finite number"),
        ("protocols.gta.psnr", "24.1", "'24.1' is not a finite number"),
        ("protocols.gta.psnr", float("nan"), "nan is not a finite number"),
        ("protocols.gta.ssim", float("inf"), "inf is not a finite number"),
        ("protocols.gta.ssim", True, "True is not a finite number"),
        ("protocols.gta.of", 8.5, "8.5 is not a whole number"),
        ("protocols.gta.classes.lamp", 3, "3 is not an object of keys and values"),
        ("protocols.gta.classes", [], "[] is not an object of keys and values"),
        ("protocols.gta.baselines.mean_colour", None, "None is not an object of keys and values"),
        ("protocols", None, "None is not an object of keys and values"),
        ("synthetic", "yes", "'yes' is not true or false"),
        ("experiment", 3, "3 is not text"),
        ("format", "1", "'1' is no format"),
        ("format", 0, "0 is no format"),
        ("format", None, "None is no format"),
    ],
)
def test_a_wrong_value_is_refused_by_file_key_and_value_in_one_line(tmp_path, key, value, expected):
    path = tmp_path / "metrics.json"
    values = as_json(metrics_of("a", "quick", True, {"gta": 8}), path)
    path.write_text(json.dumps(replaced(values, key, value)))
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {key}: {expected}')}$"):
        read_record(path, Metrics)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], "cameras.elevation_degrees: [1, 2] is not a list of 3 values"),
        (3, "cameras.elevation_degrees: 3 is not a list of 3 values"),
        ([1, None, 2], "cameras.elevation_degrees[1]: None is not a finite number"),
    ],
)
def test_a_wrong_list_is_refused_by_its_length_or_its_value(tmp_path, value, expected):
    path = tmp_path / "statistics.json"
    values = as_json(survey_of("nmr", True), path)
    values["splits"]["val"]["cameras"]["elevation_degrees"] = value
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: splits.val.{expected}')}$"):
        read_record(path, Survey)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not JSON"),
        (b'{"format": 1, "encode_sec', "not JSON"),
        (b"nothing of use", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", r"\[1, 2\] is not an object of keys and values"),
        (b"null", "None is not an object of keys and values"),
        (b'{"format": 1}', "encode_seconds: this key is missing"),
        (b"{}", "encode_seconds: this key is missing"),
        (None, "there is no such file"),
    ],
)
def test_a_damaged_or_missing_file_is_named_in_one_line(tmp_path, content, expected):
    path = tmp_path / "costs.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {expected}") as error:
        read_record(path, ModelTimes)
    assert "\n" not in str(error.value)


def test_a_long_wrong_value_is_shortened(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"encode_seconds": "9" * 1000}))
    with pytest.raises(DataError, match=r"encode_seconds: '9+… is not a finite number") as error:
        read_record(path, ModelTimes)
    assert len(str(error.value)) < len(str(path)) + 150


def test_a_newer_format_is_refused_and_the_user_is_told_to_update(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"format": 2, "encode_milliseconds": 1}))
    with pytest.raises(NewerFormatError, match=r"costs\.json: format 2 is newer .*; update this"):
        read_record(path, ModelTimes)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_not_written(tmp_path, number):
    path = tmp_path / "costs.json"
    with pytest.raises(DataError, match=rf"costs\.json: frame_seconds: {number} is not a finite"):
        write_record(path, dataclasses.replace(TIMES, frame_seconds=number))
    assert not path.exists()


def test_a_whole_number_may_stand_for_a_float_unless_it_is_too_large(tmp_path):
    path = tmp_path / "costs.json"
    values = as_json(TIMES, path)
    path.write_text(json.dumps(replaced(values, "frame_seconds", 2)))
    assert repr(read_record(path, ModelTimes).frame_seconds) == "2.0"
    path.write_text(json.dumps(replaced(values, "frame_seconds", 10**400)))
    with pytest.raises(DataError, match=r"frame_seconds: 10+… is not a finite number"):
        read_record(path, ModelTimes)
