"""Logging goes on if MLflow is away, hangs or is not installed."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from srt.tracking.outbox import read_events
from srt.tracking.tracker import Tracker, open_tracker


def open_run(folder):
    return open_tracker(
        folder,
        root=folder,
        experiment="quick",
        run_name="nmr_srt",
        description="",
        tags={},
        parameters={},
    )


@pytest.fixture
def silent_server():
    """Return the socket of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        server.settimeout(120)  # for a connection that never comes
        yield server


def test_a_silent_server_delays_neither_the_loop_nor_the_end(tmp_path, monkeypatch, silent_server):
    host, port = silent_server.getsockname()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}:{port}")
    tracker = open_run(tmp_path)
    tracker.deliver_in_background()

    # From here on, the delivery waits for an answer that never comes. The rest does not.
    connection, _ = silent_server.accept()
    with connection:
        for step in range(100):
            tracker.log_metrics({"loss": 1.0}, step)
        assert tracker._delivery.is_alive()
        tracker.close("FINISHED", timeout=0.3)
        assert tracker._delivery.is_alive()


def test_only_one_delivery_runs_at_a_time(tmp_path, monkeypatch):
    started, may_end = threading.Event(), threading.Event()
    deliveries = []

    def deliver_slowly(folder, root):
        deliveries.append(folder)
        started.set()
        may_end.wait()

    monkeypatch.setattr("srt.tracking.tracker.deliver", deliver_slowly)
    tracker = open_run(tmp_path)
    tracker.deliver_in_background()
    started.wait()
    tracker.deliver_in_background()
    assert len(deliveries) == 1
    may_end.set()
    tracker.close("FINISHED")
    assert len(deliveries) == 2


def test_without_mlflow_everything_is_kept_and_a_warning_names_the_folder(tmp_path):
    script = f"""
import sys
from pathlib import Path
import srt.tracking.tracker
assert "mlflow" not in sys.modules
sys.modules["mlflow"] = None
folder = Path({str(tmp_path)!r})
tracker = srt.tracking.tracker.open_tracker(
    folder, root=folder, experiment="", run_name="", description="", tags={{}}, parameters={{}}
)
tracker.log_metrics({{"loss": 1.0}}, 1)
tracker.deliver_in_background()
tracker.close("FINISHED")
"""
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 <= process.stderr.count(str(tmp_path)) <= 2
    _, _, event = next(read_events(tmp_path))
    assert event["metrics"] == {"loss": 1.0}


def test_a_tracker_without_a_folder_discards_everything():
    tracker = Tracker()
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_image("prediction", np.zeros((8, 8, 3), np.uint8), 1)
    tracker.log_artifact(Path("none"), "tables")
    tracker.watch_machine(1.0)
    tracker.release()
    tracker.rewind(0)
    tracker.deliver_in_background()
    tracker.close("FINISHED")
