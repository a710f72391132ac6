"""What the command lines of all stages share: options from a signature, errors in one line."""

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
    """Run a stage with the arguments of this process.

    Errors that the user can solve end the process with status 1 and one line.
    """
    import tyro

    # A stage ends with the tool that started it, so that no orphan writes files.
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    # The signature of the stage gives the options, and its docstring the help.
    try:
        tyro.cli(stage, prog=program_name())
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        path = error.filename or Path.cwd()
        sys.exit(f"error: {path}: {error.strerror}; solve this, then run again to go on")


def program_name() -> str:
    """Return how this process was started: `python -m workflow.train`, or `srt train`."""
    # `python -m` leaves the path of the module's file as the name, which does not run alone.
    name = sys.argv[0]
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name}" if spec and name.endswith(".py") else name
