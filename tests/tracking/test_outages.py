"""Training goes on whatever happens to the store or disk, and all that it logs arrives once."""

import contextlib
import logging
import os
import socket
import sqlite3
import subprocess
import threading
import time

import numpy as np
import pytest
from support import small_server

from srt.common.errors import UserError
from srt.tracking.delivery import deliver
from srt.tracking.outbox import read_events
from srt.tracking.tracker import open_tracker
from workflow.tools.deliver import deliver_all

PICTURE = np.zeros((8, 8, 3), np.uint8)


def log_steps(tracker, first, last):
    """Log the steps from `first` to `last`."""
    for step in range(first, last + 1):
        tracker.log_metrics({"loss": 1 / step}, step)


def expected_points(last):
    """Return the steps and losses that `log_steps` logs from step 1 on."""
    return [(step, 1 / step) for step in range(1, last + 1)]


def last_step_on_disk(tracker):
    """Return the last step that is in the run's folder, whether it was delivered or not."""
    return max(event["step"] for *_, event in read_events(tracker.folder) if "metrics" in event)


@pytest.fixture
def connecting_threads(monkeypatch):
    """Return a set to which every thread is added that opens a network connection."""
    threads = set()
    connect = socket.socket.connect

    def connect_and_record(self, address):
        threads.add(threading.current_thread())
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_and_record)
    return threads


@contextlib.contextmanager
def lock_database(database):
    """Hold the lock of a SQLite file, as a process does while it writes to the file."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


def wait_for(tracker):
    """Wait for the delivery that is running."""
    tracker._delivery.join(60)
    assert not tracker._delivery.is_alive()


def test_a_store_that_fails_for_some_time_gets_everything_once_it_is_back(
    store, monkeypatch, caplog
):
    from mlflow import MlflowClient

    def fail(*_, **__):
        raise ConnectionError("the server went away")

    tracker = store.open_run()
    log_steps(tracker, 1, 3)
    tracker.log_image("prediction", PICTURE, 3)
    tracker.release()
    tracker.deliver_in_background()
    wait_for(tracker)

    # Two states are saved while the server is away, which is warned about once.
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        for name in ("log_batch", "get_run", "search_runs", "log_image", "update_run"):
            patch.setattr(MlflowClient, name, fail)
        for last in (6, 9):
            log_steps(tracker, last - 2, last)
            tracker.log_image("prediction", PICTURE, last)
            tracker.release()
            tracker.deliver_in_background()
            wait_for(tracker)
    assert len([text for text in caplog.messages if str(tracker.folder) in text]) == 1

    log_steps(tracker, 10, 12)
    tracker.close("FINISHED")
    assert store.points() == expected_points(12)
    pictures = [file for file in store.files("images") if file.endswith(".png")]
    assert [int(file.split("+")[2]) for file in pictures] == [3, 6, 9]


def test_points_have_the_time_of_logging_even_if_they_arrive_later(store, monkeypatch):
    # The clock advances a minute with each line.
    clock = iter(range(1_000_000_000_000, 2_000_000_000_000, 60_000))
    with monkeypatch.context() as patch:
        patch.setattr("srt.tracking.outbox._milliseconds", lambda: next(clock))
        tracker = store.open_run()
        tracker.rewind(0)
        log_steps(tracker, 1, 4)
        tracker.release()
    logged = [event["time"] for *_, event in read_events(tracker.folder) if "metrics" in event]
    deliver(tracker.folder, store.root)
    history = store.client.get_metric_history(store.run().info.run_id, "loss")
    assert [point.timestamp for point in history] == logged
    assert store.run().info.start_time < logged[0]


def test_a_picture_that_was_sent_but_not_recorded_is_not_sent_again(store, monkeypatch):
    from mlflow import MlflowClient

    log_image = MlflowClient.log_image

    def send_and_die(*arguments, **options):
        log_image(*arguments, **options)
        raise KeyboardInterrupt

    tracker = store.open_run()
    for step in (1, 2):
        log_steps(tracker, step, step)
        tracker.log_image("views/validation", PICTURE, step)
    tracker.release()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_image", send_and_die)
            with pytest.raises(KeyboardInterrupt):
                deliver(tracker.folder, store.root)
    deliver(tracker.folder, store.root)
    assert len(store.files("images")) == 4  # two pictures and their previews


def test_a_locked_sqlite_file_delays_no_step(store):
    tracker = store.open_run()
    log_steps(tracker, 1, 2)
    tracker.release()
    deliver(tracker.folder, store.root)
    log_steps(tracker, 3, 4)
    tracker.release()
    with lock_database(store.root / "mlflow.db"):
        tracker.deliver_in_background()
        log_steps(tracker, 5, 500)

        # All steps are on the disk while the delivery still waits for the lock.
        assert tracker._delivery.is_alive()
        assert last_step_on_disk(tracker) == 500
    tracker.close("FINISHED")
    assert store.points() == expected_points(500)


@pytest.mark.slow
def test_a_sqlite_file_locked_for_longer_than_it_waits_gets_everything_later(store, caplog):
    tracker = store.open_run()
    log_steps(tracker, 1, 2)
    tracker.release()
    deliver(tracker.folder, store.root)
    log_steps(tracker, 3, 4)
    tracker.release()

    # MLflow waits for the lock for 20 s, and then gives up.
    with lock_database(store.root / "mlflow.db"):
        tracker.deliver_in_background()
        wait_for(tracker)
    assert "database is locked" in caplog.text
    log_steps(tracker, 5, 6)
    tracker.close("FINISHED")
    assert store.points() == expected_points(6)


def test_a_store_that_stays_away_is_warned_about_with_the_folder_and_the_remedy(
    store, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", small_server.unused_address())
    tracker = store.open_run("ckpt/quick/nmr_srt/0123456789ab/tracking")
    log_steps(tracker, 1, 3)
    with caplog.at_level(logging.WARNING):
        tracker.close("FINISHED")
    assert str(tracker.folder) in caplog.text
    assert "python -m workflow.tools.deliver" in caplog.text
    with pytest.raises(UserError, match="1 of 1 runs still wait"):
        deliver_all(states=store.root / "ckpt")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.root}/mlflow.db")
    deliver_all(states=store.root / "ckpt")
    assert store.points() == expected_points(3)
    assert store.run().info.status == "FINISHED"


def test_lines_for_which_the_disk_never_has_space_are_reported_as_lost(store, monkeypatch, caplog):
    def write_to_full_disk(file, data):
        raise OSError(28, "No space left on device")

    tracker = store.open_run()
    monkeypatch.setattr(os, "write", write_to_full_disk)
    log_steps(tracker, 1, 3)
    tracker.close("KILLED", timeout=0.1)
    assert "the disk is full: 4 lines lost" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(store):
    (store.root / "ckpt").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="nothing can be logged"):
        store.open_run("ckpt/tracking")


@pytest.fixture
def small_disk(tmp_path):
    """Return the folder of a file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(path):
    """Write a file that takes all free space."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_a_disk_that_is_full_for_some_time_costs_no_point(store, small_disk, caplog):
    tracker = open_tracker(
        small_disk / "tracking",
        root=store.root,
        experiment="quick",
        run_name="nmr_srt",
        description="",
        tags={},
        parameters={},
    )
    log_steps(tracker, 1, 100)
    tracker.release()

    # On the full disk, lines wait in memory, and logging returns. A picture is not logged.
    fill(small_disk / "ballast")
    log_steps(tracker, 101, 3000)
    assert last_step_on_disk(tracker) < 3000
    tracker.log_image("prediction", np.random.default_rng(0).integers(0, 255, (64, 64, 3), "u1"), 1)
    tracker.release()
    tracker.deliver_in_background()
    wait_for(tracker)

    (small_disk / "ballast").unlink()
    log_steps(tracker, 3001, 3100)
    tracker.close("FINISHED")
    assert store.points() == expected_points(3100)
    assert "lines wait in memory" in caplog.text
    assert "the picture prediction of step 1 is not logged" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_comes_and_goes_has_every_point_once(
    tmp_path, store, monkeypatch, connecting_threads
):
    server = small_server.Server(f"sqlite:///{store.root}/mlflow.db", tmp_path / "files")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    tracker = store.open_run()
    stop = threading.Event()
    steps = []

    # A thread logs steps, with a picture and a delivery at every 50th.
    def train():
        while not stop.is_set() or len(steps) % 50:
            step = len(steps) + 1
            steps.append(step)
            log_steps(tracker, step, step)
            if step % 50 == 0:
                tracker.log_image("prediction", PICTURE, step)
                tracker.release()
                tracker.deliver_in_background()
            stop.wait(0.005)

    training = threading.Thread(target=train)
    training.start()

    # The server starts late, and is killed twice in the middle of its work.
    for _ in range(2):
        time.sleep(3)
        with server.running():
            time.sleep(3)
    stop.set()
    training.join()
    with server.running():
        tracker.close("FINISHED")

    assert store.points() == expected_points(len(steps))
    pictures = [f for f in (tmp_path / "files").rglob("*.png") if "+step+" in f.name]
    assert len(pictures) == len(steps) // 50

    # The training itself has never waited for the network.
    assert training not in connecting_threads
