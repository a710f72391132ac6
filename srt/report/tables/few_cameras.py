"""The table of the known limit: how models that were trained on few cameras do between them.

`benchmarks.camera_overfitting` makes the measurement. It is the same in the reports of all
profiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from srt.report.format.numbers import format_count
from srt.report.format.table import Table

TITLE = "Known limit: few cameras"

# How to read the table. The second note on it depends on the measurement.
ANGLE_NOTE = (
    "PSNR in dB of new synthetic objects, by the angle between the camera that shows them"
    " and the nearest of 24 fixed cameras. Fixed: trained on these cameras alone, as NMR"
    " has them; dense: on cameras anywhere; jitter: with every item's world turned at"
    " random."
)


def few_cameras_table(measured: Mapping[str, Any]) -> Table:
    """Return the PSNR by the angle to the nearest training camera, a row a model and a baseline.

    Args:
        measured: the content of the benchmark's results.json.
    """
    # A column is a range of angles, which reads `0–10°`.
    edges = measured["angle_edges"]
    ranges = [f"{low:g}–{high:g}°" for low, high in itertools.pairwise(edges)]

    # A baseline is not trained, so its label has no steps.
    rows = [
        _row(_label(name, run["steps"]), run["psnr_by_angle"])
        for name, run in measured["runs"].items()
    ]
    rows += [_row(name, values) for name, values in measured["baselines"].items()]
    objects = format_count(measured["objects"])
    return Table(
        title=TITLE,
        align="l" + "r" * len(ranges),
        header=["model, cameras, steps", *ranges],
        rows=rows,
        notes=[
            ANGLE_NOTE,
            f"Not of this profile's runs: models of the published sizes, each trained for"
            f" {measured['seconds_of_training']:g} s of one {measured['device']} on"
            f" {objects} objects and measured on {measured['test_objects']}"
            " others.",
        ],
    )


def _row(label: str, values: Sequence[float]) -> list[str]:
    return [label, *(f"{value:.1f}" for value in values)]


def _label(name: str, steps: int) -> str:
    """Return `SRT, fixed, 1 360 steps` for the benchmark's run `srt, fixed`."""
    model, _, cameras = name.partition(", ")
    return f"{model.upper()}, {cameras}, {format_count(steps)} steps"
