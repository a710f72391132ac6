"""An outbox keeps what is logged, line by line, even after a power cut or on a full disk."""

import os

from srt.tracking.outbox import Outbox, flatten, read_events, released_end


def log_steps(outbox, first, last):
    for step in range(first, last + 1):
        outbox.log_metrics({"loss": 1 / step}, step)


def logged_steps(folder):
    return [event["step"] for *_, event in read_events(folder) if "metrics" in event]


def test_lines_are_read_in_the_order_of_logging(tmp_path):
    outbox = Outbox(tmp_path)
    log_steps(outbox, 1, 20)
    assert logged_steps(tmp_path) == list(range(1, 21))


def test_rewinding_drops_only_unreleased_lines_of_later_steps(tmp_path):
    outbox = Outbox(tmp_path)
    log_steps(outbox, 1, 4)
    outbox.release()
    end = released_end(tmp_path)
    log_steps(outbox, 5, 9)
    Outbox(tmp_path).rewind(7)
    assert logged_steps(tmp_path) == list(range(1, 8))
    Outbox(tmp_path).rewind(2)
    assert logged_steps(tmp_path) == list(range(1, 5))
    assert released_end(tmp_path) == end


def test_a_released_step_that_is_repeated_gains_only_the_values_it_lacked(tmp_path):
    # A failure between two values of one step leaves the step half logged.
    outbox = Outbox(tmp_path)
    outbox.log_metrics({"loss": 1.0}, 5)
    outbox.release()
    resumed = Outbox(tmp_path)
    resumed.rewind(4)
    resumed.log_metrics({"loss": 1.0, "psnr": 20.0}, 5)
    logged = [event["metrics"] for *_, event in read_events(tmp_path) if "metrics" in event]
    assert logged == [{"loss": 1.0}, {"psnr": 20.0}]


def test_a_line_torn_by_a_power_cut_costs_no_other_line(tmp_path):
    log_steps(Outbox(tmp_path), 1, 2)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": 17')
    assert logged_steps(tmp_path) == [1, 2]
    log_steps(Outbox(tmp_path), 3, 3)
    assert logged_steps(tmp_path) == [1, 2, 3]


def test_a_full_disk_costs_no_line_and_raises_no_error(tmp_path, monkeypatch, caplog):
    outbox = Outbox(tmp_path)
    write = os.write

    def write_to_full_disk(file, data):
        raise OSError(28, "No space left on device")

    # First the disk takes only ten bytes, then nothing, then everything.
    log_steps(outbox, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        log_steps(outbox, 3, 3)
        patch.setattr(os, "write", write_to_full_disk)
        log_steps(outbox, 4, 5)
    log_steps(outbox, 6, 6)
    assert logged_steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert len([text for text in caplog.messages if "lines wait in memory" in text]) == 1


def test_parameters_become_short_texts_under_dotted_names():
    long = "x" * 600
    assert flatten({"a": {"b": 1, "c": [1, 2], "e": []}, "d": long}) == {
        "a.b": "1",
        "a.c.0": "1",
        "a.c.1": "2",
        "a.e": "[]",
        "d": long[:500],
    }
