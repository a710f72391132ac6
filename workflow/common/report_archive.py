"""The copies of small result files that a report keeps beside it, and is made of."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from srt.common.errors import UserError
from srt.common.files import write_atomically
from srt.config.schema import Experiment
from workflow.common.stage_files import FIGURES, RUN_FILES, read_repeat, seed_folders

REMARKS = "remarks.txt"  # remarks on the runs, beside them

log = logging.getLogger(__name__)


def archive_inputs(outputs: Path, out: Path, experiments: Sequence[Experiment]) -> None:
    """Copy the files that a report is made of to `runs` and `seeds` in its folder.

    Repeats from earlier reports stay, as they cost hours, until their run changes in more than the
    seed. They are no output of a pipeline tool, so that none deletes them.
    """
    # Remarks on earlier runs do not apply to these.
    runs = out / "runs"
    if not (outputs / REMARKS).is_file():
        (runs / REMARKS).unlink(missing_ok=True)
    copy_files(outputs, runs, (REMARKS,))

    for one in experiments:
        folder = outputs / one.name
        copy_files(folder, runs / one.name, RUN_FILES)
        for seed in seed_folders(folder / "seeds"):
            copy_files(seed, out / "seeds" / one.name / seed.name, FIGURES)

        remove_other_repeats(out / "seeds" / one.name, folder, one)


def remove_other_repeats(seeds: Path, run_folder: Path, experiment: Experiment) -> None:
    """Remove earlier repeats that no longer compare with their run; the log says why."""
    for seed in seed_folders(seeds):
        try:
            read_repeat(seed, run_folder, experiment)
        except UserError as error:
            log.info("removed from the report: %s", error)
            shutil.rmtree(seed)


def read_remarks(outputs: Path) -> list[str]:
    """Return the remarks on the runs, one for each line of their file; none without the file."""
    path = outputs / REMARKS
    return path.read_text().splitlines() if path.is_file() else []


def copy_files(source: Path, target: Path, files: Sequence[str]) -> None:
    """Copy those of the files that are in a folder. The two folders may be the same one."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if (source / file).is_file():
            write_atomically(target / file, (source / file).read_bytes())
