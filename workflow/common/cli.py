"""What every stage's command line shares: arguments from a signature, errors as one clear line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srt.common.devices import die_with_parent
from srt.common.errors import UserError
from srt.common.files import CANNOT_WRITE


def run(stage: Callable[..., Any]) -> None:
    """Runs a stage with the arguments of this process; exits with 1 and a line if it is refused."""
    import tyro

    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        tyro.cli(stage)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        place = error.filename or Path.cwd()
        sys.exit(f"error: {place}: {error.strerror}; mend that, then run again to go on")
