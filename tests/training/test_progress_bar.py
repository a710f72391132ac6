"""The progress bar of a training shows what was measured last."""

import contextlib

import pytest
from support.tiny_training import one_thread, read_packed, tiny_experiment, train, write_packed

from srt.training import loop


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_packed(write_packed(tmp_path_factory.mktemp("packed")))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return tiny_experiment(tmp_path_factory.mktemp("params"))


class Bar:
    """A bar that keeps what it shows after each step."""

    def __init__(self):
        self.texts = []

    def update(self):
        pass

    def set_postfix_str(self, text, refresh):
        self.texts.append(text)


def test_the_bar_shows_the_newest_validation_and_none_before_the_first(
    experiment, data, tmp_path, monkeypatch
):
    bar = Bar()
    monkeypatch.setattr(loop, "progress_bar", lambda *_: contextlib.nullcontext(bar))
    training = train(experiment, data, tmp_path)
    assert bar.texts[0] == ""
    for step, text in enumerate(bar.texts, start=1):
        measured = [psnr for when, psnr in training.validation if when <= step]
        newest = f"validation {measured[-1]:.2f} dB (best {max(measured):.2f})" if measured else ""
        assert text.endswith(newest)
        assert ("validation" in text) == bool(measured)


def test_a_training_that_goes_on_shows_what_was_measured_before(
    experiment, data, tmp_path, monkeypatch
):
    bars = [Bar(), Bar()]
    for bar, stop_after in zip(bars, (4, 5), strict=True):
        monkeypatch.setattr(loop, "progress_bar", lambda *_, b=bar: contextlib.nullcontext(b))
        train(experiment, data, tmp_path, stop_after=stop_after)
    assert "validation" in bars[0].texts[-1]
    assert bars[1].texts == [bars[0].texts[-1]]  # step 5 has neither a log nor a validation


def test_the_last_line_of_the_bar_has_the_last_validation(experiment, data, tmp_path, capsys):
    training = train(experiment, data, tmp_path)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "8/8" in last
    assert f"validation {training.validation[-1][1]:.2f} dB" in last
