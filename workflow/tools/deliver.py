"""Send MLflow what still waits beside the resume states, for example after its server was down."""

from __future__ import annotations

import logging
from pathlib import Path

from srt.common.errors import UserError
from srt.tracking.delivery import deliver
from workflow.common.cli import run
from workflow.common.tracked_run import ROOT

log = logging.getLogger(__name__)


def deliver_all(*, states: Path = ROOT / "ckpt") -> None:
    """Send what waits, run by run.

        python -m workflow.tools.deliver

    Args:
        states: the folder of resume states.

    Raises:
        UserError: MLflow did not accept all events of some runs.
    """
    folders = sorted(path.parent for path in states.rglob("tracking/run.json"))
    failed = []
    for folder in folders:
        # Whatever goes wrong with one run, the others are sent.
        try:
            deliver(folder, ROOT)
            log.info("%s: all is sent", folder)
        except Exception as error:
            log.warning("%s: %s", folder, error)
            failed.append(folder)
    if failed:
        raise UserError(f"{len(failed)} of {len(folders)} runs still wait: {failed[0]}, …")


if __name__ == "__main__":
    run(deliver_all)
