"""What is logged is kept, line by line, whatever the disk and the power do."""

import os

from srt.tracking.outbox import Outbox, flatten, read_events, released_end


def log_steps(outbox, first, last):
    for step in range(first, last + 1):
        outbox.log_metrics({"loss": 1 / step}, step)


def steps(folder):
    return [event["step"] for *_, event in read_events(folder) if "metrics" in event]


def test_lines_are_read_in_the_order_of_logging(tmp_path):
    outbox = Outbox(tmp_path)
    log_steps(outbox, 1, 20)
    assert steps(tmp_path) == list(range(1, 21))


def test_rewinding_keeps_what_is_released_and_what_the_state_covers(tmp_path):
    outbox = Outbox(tmp_path)
    log_steps(outbox, 1, 4)
    outbox.release()
    end = released_end(tmp_path)
    log_steps(outbox, 5, 9)
    Outbox(tmp_path).rewind(7)
    assert steps(tmp_path) == list(range(1, 8))
    Outbox(tmp_path).rewind(2)
    assert steps(tmp_path) == list(range(1, 5))
    assert released_end(tmp_path) == end


def test_a_value_is_kept_that_its_step_lacks_although_others_are_released(tmp_path):
    """A failure between two values of one step leaves the step half logged."""
    outbox = Outbox(tmp_path)
    outbox.log_metrics({"loss": 1.0}, 5)
    outbox.release()
    resumed = Outbox(tmp_path)
    resumed.rewind(4)
    resumed.log_metrics({"loss": 1.0, "psnr": 20.0}, 5)
    logged = [event["metrics"] for *_, event in read_events(tmp_path) if "metrics" in event]
    assert logged == [{"loss": 1.0}, {"psnr": 20.0}]


def test_a_line_torn_by_a_power_cut_costs_only_itself(tmp_path):
    log_steps(Outbox(tmp_path), 1, 2)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": 17')
    assert steps(tmp_path) == [1, 2]
    log_steps(Outbox(tmp_path), 3, 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_a_full_disk_loses_no_line_and_stops_nothing(tmp_path, monkeypatch, caplog):
    outbox = Outbox(tmp_path)
    write = os.write

    def full(file, data):
        raise OSError(28, "No space left on device")

    log_steps(outbox, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        log_steps(outbox, 3, 3)
        patch.setattr(os, "write", full)
        log_steps(outbox, 4, 5)
    log_steps(outbox, 6, 6)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert len([line for line in caplog.messages if "lines wait in memory" in line]) == 1


def test_parameters_are_flattened_to_dotted_names_and_cut():
    long = "x" * 600
    assert flatten({"a": {"b": 1, "c": [1, 2], "e": []}, "d": long}) == {
        "a.b": "1",
        "a.c.0": "1",
        "a.c.1": "2",
        "a.e": "[]",
        "d": long[:500],
    }
