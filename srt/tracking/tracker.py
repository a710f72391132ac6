"""What the stages log, delivered in the background: the run's outbox, and threads that send it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srt.common.errors import UserError
from srt.tracking import outbox
from srt.tracking.delivery import deliver
from srt.tracking.system_metrics import Machine

log = logging.getLogger(__name__)


def open_tracker(
    folder: Path,
    *,
    root: Path,
    experiment: str,
    run_name: str,
    description: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, Any],
    parent: str = "",
) -> Tracker:
    """Returns the tracker of a run. A folder that has a run keeps its description: stages share it.

    Args:
        root: where mlflow.db and mlruns are, unless MLFLOW_TRACKING_URI names another store.
        experiment: MLflow's heading for the runs that are compared with each other.
        parent: name of the run below which this one and its like are shown.
    """
    try:
        if not (folder / "run.json").exists():
            own_tags = {"mlflow.note.content": description} | dict(tags)
            outbox.describe_run(folder, experiment, run_name, own_tags, parameters, parent)
        return Tracker(folder, root)
    except OSError as error:  # later, a full disk stops no training; here nothing is lost yet
        raise UserError(f"{folder}: {error.strerror or error}; nothing can be logged") from error


class Tracker(outbox.Outbox):
    """A run's outbox and its deliveries; `Tracker()` has no folder and forgets everything."""

    def __init__(self, folder: Path | None = None, root: Path = Path()) -> None:
        super().__init__(folder)
        self.root = root
        self._delivery = threading.Thread()
        self._closed = threading.Event()
        self._warned = False

    def watch_machine(self, interval: float | int) -> None:
        """Logs the machine's load every `interval` seconds, at the step that was logged last."""
        if self.folder is not None:
            threading.Thread(target=self._watch_machine, args=(interval,), daemon=True).start()

    def deliver_in_background(self) -> None:
        """Starts a delivery, unless one is under way."""
        if self.folder is not None and not self._delivery.is_alive():
            folder = (self.folder,)
            self._delivery = threading.Thread(target=self._deliver, args=folder, daemon=True)
            self._delivery.start()

    def close(self, status: str, timeout: float | int = 60) -> None:
        """Logs how the stage ended, FINISHED, FAILED or KILLED, and waits for a last delivery.

        FINISHED releases everything. What has not arrived after `timeout` seconds stays in the
        folder, for the next stage or run that opens it.
        """
        if self.folder is None:
            return
        self._closed.set()
        self._append({"status": status})
        if status == "FINISHED":
            self.release()
        end = time.monotonic() + timeout
        if self._delivery.is_alive():  # it may have begun before the last lines
            self._delivery.join(timeout)
        self._warned = False  # an outage that lasts is said once more, at the end
        self.deliver_in_background()
        self._delivery.join(max(0.0, end - time.monotonic()))
        if self._delivery.is_alive():
            self._warn(f"not done after {timeout:g} s")
        self._close_file()

    def _deliver(self, folder: Path) -> None:
        try:
            deliver(folder, self.root)
            self._warned = False
        except Exception as error:  # whatever it is, it must not end the training
            self._warn(f"{type(error).__name__}: {error}"[:400])

    def _warn(self, reason: str) -> None:
        if not self._warned:
            kept = f"what was logged is kept in {self.folder}, and sent at the next occasion"
            log.warning("MLflow: %s; %s, or by `python -m workflow.tools.deliver`", reason, kept)
        self._warned = True

    def _watch_machine(self, interval: float | int) -> None:
        try:
            machine = Machine()
            while not self._closed.wait(interval):
                self._append({"step": self._step, "metrics": machine.sample()})
        except Exception as error:  # an odd machine must not end the training
            log.warning("no system metrics: %s", error)
