"""The result files of stages as the report reads them: an error says which stage to run."""

import json
import re

import pytest
from support.paths import PARAMS
from support.small_runs import metrics_of, survey_of, training_of, write_run

from srt.common.errors import UserError
from srt.config.load import load_experiments
from srt.results.record_files import write_record
from srt.results.records import ModelTimes
from workflow.common.stage_files import (
    read_curve,
    read_figures,
    read_metrics,
    read_result,
    read_survey,
    read_training,
)


@pytest.fixture
def experiment():
    return load_experiments(PARAMS, "quick")[0]


@pytest.fixture
def folder(tmp_path, experiment):
    """Return the folder of a run of the experiment."""
    folder = tmp_path / experiment.name
    write_run(folder, "quick", True, {"stelzner": 8})
    return folder


def change(path, **changes):
    """Replace values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "changes", "expected", "stage"),
    [
        ("metrics.json", {"protocols": {}}, "protocols: nothing was measured", "evaluate"),
        ("metrics.json", {"fingerprint": None}, "fingerprint: None is not text", "evaluate"),
        ("costs.json", {"frame_seconds": None}, "frame_seconds: None is not a", "evaluate"),
        ("training.json", {"seconds": "long"}, "seconds: 'long' is not a finite", "train"),
        ("training.json", {"steps": 0}, "steps: 0 is not positive", "train"),
        ("training.json", {"seconds": 0.0}, "seconds: 0.0 is not positive", "train"),
        ("training.json", {"best_step": 751}, "no validation at best_step 751", "train"),
    ],
)
def test_a_wrong_value_is_named_with_the_stage_that_writes_the_file(
    folder, experiment, name, changes, expected, stage
):
    change(folder / name, **changes)
    with pytest.raises(UserError) as error:
        read_figures(folder, experiment)
    assert expected in str(error.value)
    assert f"run `python -m workflow.{stage}` for {experiment.name} first" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_a_newer_version_is_not_to_be_made_again(folder):
    change(folder / "costs.json", format=2)
    with pytest.raises(UserError, match=r"costs\.json: format 2 is newer .* update") as error:
        read_result(folder / "costs.json", ModelTimes)
    assert "python -m workflow" not in str(error.value)


def test_a_history_that_was_cut_off_is_named_with_the_stage_that_writes_it(folder):
    path = folder / "history.csv"
    path.write_text(path.read_text()[:-12])
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: line \d+ has .*workflow\.train"):
        read_curve(path)


def test_the_figures_of_a_run_are_its_records(folder, experiment):
    run = read_figures(folder, experiment)
    assert run.metrics == metrics_of(experiment.name, "quick", True, {"stelzner": 8})
    assert run.metrics == read_metrics(folder / "metrics.json", experiment)
    assert run.training == training_of(experiment.name) == read_training(folder / "training.json")


def test_a_survey_without_a_split_is_refused(tmp_path):
    from PIL import Image

    for name in ("scenes.png", "cameras.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    survey = survey_of("nmr", True)
    write_record(tmp_path / "statistics.json", survey)
    assert read_survey(tmp_path) == survey

    del survey.splits["val"]
    write_record(tmp_path / "statistics.json", survey)
    with pytest.raises(
        UserError, match=r"splits: train, test are not train, val, test; run .*survey"
    ):
        read_survey(tmp_path)
