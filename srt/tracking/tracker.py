"""The tracker of a run: its outbox, and threads that send it to MLflow in the background.

All stages of a pipeline log here. Nothing that goes wrong with MLflow ends a stage.
"""

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
    """Return the tracker of a run, which is described in `folder` at the first call.

    Later stages of the same run open the same folder, and do not change its description.

    Args:
        root: where mlflow.db and mlruns are, unless MLFLOW_TRACKING_URI names another store.
        experiment: MLflow's heading for the runs that are compared with each other.
        parent: name of the run below which MLflow shows this run and similar ones; "": none.

    Raises:
        UserError: if the folder cannot be written.
    """
    # Later, a full disk stops no training. Here nothing is lost yet, so the user can make room.
    try:
        if not (folder / "run.json").exists():
            all_tags = {"mlflow.note.content": description} | dict(tags)
            outbox.describe_run(folder, experiment, run_name, all_tags, parameters, parent)
        return Tracker(folder, root)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; nothing can be logged") from error


class Tracker(outbox.Outbox):
    """The outbox of a run, with its deliveries. `Tracker()` discards everything that is logged."""

    def __init__(self, folder: Path | None = None, root: Path = Path()) -> None:
        super().__init__(folder)
        self.root = root
        self._delivery = threading.Thread()
        self._closed = threading.Event()
        self._warned = False

    def watch_machine(self, interval: float | int) -> None:
        """Log the machine's load every `interval` seconds, at the step that was logged last."""
        if self.folder is not None:
            threading.Thread(target=self._watch_machine, args=(interval,), daemon=True).start()

    def deliver_in_background(self) -> None:
        """Start a delivery, unless one is running."""
        if self.folder is not None and not self._delivery.is_alive():
            arguments = (self.folder,)
            self._delivery = threading.Thread(target=self._deliver, args=arguments, daemon=True)
            self._delivery.start()

    def close(self, status: str, timeout: float | int = 60) -> None:
        """Log how the stage ended, and wait for a last delivery.

        Whatever is not delivered within `timeout` seconds stays in the folder, for the next stage
        that opens it.

        Args:
            status: FINISHED, which releases everything, FAILED or KILLED.
        """
        if self.folder is None:
            return
        self._closed.set()
        self._append({"status": status})
        if status == "FINISHED":
            self.release()

        self._deliver_last_lines(timeout)
        self._close_file()

    def _deliver_last_lines(self, timeout: float | int) -> None:
        """Deliver what is left, and wait for that for at most `timeout` seconds."""
        # A delivery that is running may have begun before the last lines, so another one follows.
        end = time.monotonic() + timeout
        if self._delivery.is_alive():
            self._delivery.join(timeout)

        # If MLflow still fails, this last delivery repeats the warning.
        self._warned = False
        self.deliver_in_background()
        self._delivery.join(max(0.0, end - time.monotonic()))
        if self._delivery.is_alive():
            self._warn(f"the delivery did not end within {timeout:g} s")

    def _deliver(self, folder: Path) -> None:
        # No error of a delivery may end the training, whatever its type.
        try:
            deliver(folder, self.root)
            self._warned = False
        except Exception as error:
            self._warn(f"{type(error).__name__}: {error}"[:400])

    def _warn(self, reason: str) -> None:
        """Warn about a failed delivery, but only once until one succeeds."""
        if not self._warned:
            log.warning(
                "MLflow: %s; everything logged is kept in %s and will be sent with the next"
                " delivery, or by `python -m workflow.tools.deliver`",
                reason,
                self.folder,
            )
        self._warned = True

    def _watch_machine(self, interval: float | int) -> None:
        # No error of a driver or of the operating system may end the training.
        try:
            machine = Machine()
            while not self._closed.wait(interval):
                self._append({"step": self._step, "metrics": machine.sample()})
        except Exception as error:
            log.warning("no system metrics: %s", error)
