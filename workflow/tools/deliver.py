"""Sends MLflow what is still waiting beside the resume states, as after an outage of its server."""

from __future__ import annotations

import logging
from pathlib import Path

from srt.common.errors import UserError
from srt.tracking.delivery import deliver
from workflow.common.cli import run
from workflow.common.tracked_run import ROOT

log = logging.getLogger(__name__)


def deliver_all(*, states: Path = ROOT / "ckpt") -> None:
    """Sends what is waiting, run by run; raises UserError for runs that did not take all.

    Args:
        states: the folder of resume states.
    """
    folders = sorted(path.parent for path in states.rglob("tracking/run.json"))
    failed = []
    for folder in folders:
        try:
            deliver(folder, ROOT)
            log.info("%s: all is sent", folder)
        except Exception as error:  # of whatever kind: the other runs are sent all the same
            log.warning("%s: %s", folder, error)
            failed.append(folder)
    if failed:
        raise UserError(f"{len(failed)} of {len(folders)} runs still wait: {failed[0]}, …")


if __name__ == "__main__":
    run(deliver_all)
