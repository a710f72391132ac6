"""The table of baselines: predictions that need no training, for each dataset and protocol."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import EN_DASH, format_decibels
from srt.report.format.table import Table, drop_empty_columns, move_conditions_to_notes
from srt.report.tables.cells import dataset_cell, items_cell, protocol_cell
from srt.report.tables.result_rows import ResultRow

# The columns of figures, which are in dB.
TITLES = ("mean colour", "input copied", "input warped")

NOTE = (
    "PSNR in dB of predictions that need no training. Mean colour: the training set's mean colour"
    " everywhere. Input copied: the nearest input view as the prediction. Input warped: a classic"
    " that learns nothing but knows the cameras; the nearest input view as if it were painted on a"
    " plane through the world's origin that faces its camera, the mean colour of its edge around"
    " it."
)


def baselines_table(rows: Sequence[ResultRow], profile: str) -> Table:
    """Return the PSNR of the baselines, a row for each dataset and protocol."""
    # Runs that were measured on the same items have the same baselines, which are shown once.
    cells = list(dict.fromkeys(_cells(row) for row in rows))

    # Evaluations from before the warped input was measured have no figure of it.
    notes = [NOTE]
    if any(row.warped_input_psnr is None for row in rows):
        notes.append(f"Input warped {EN_DASH}: evaluated before this was measured.")
    header = ["dataset", "protocol", "items measured", *TITLES]
    table = Table(
        title=f"Baselines of profile {profile}",
        align="llr" + "r" * len(TITLES),
        header=header,
        rows=[list(row) for row in cells],
        notes=notes,
    )
    return drop_empty_columns(move_conditions_to_notes(table))


def _cells(row: ResultRow) -> tuple[str, ...]:
    """Return the cells of the baselines that a run is compared with."""
    figures = (row.mean_colour_psnr, row.input_view_psnr, row.warped_input_psnr)
    cells = map(format_decibels, figures)
    return dataset_cell(row), protocol_cell(row), items_cell(row), *cells
