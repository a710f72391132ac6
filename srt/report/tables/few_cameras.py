"""What `benchmarks.camera_overfitting` measured of models that saw few camera positions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from srt.report.format.numbers import EN_DASH, count
from srt.report.format.table import Table

TITLE = "Known limit: few cameras"


def few_cameras_table(measured: Mapping[str, Any]) -> Table:
    """Returns the PSNR by the angle to the nearest training camera, a row a model and a baseline.

    Args:
        measured: results.json.
    """
    edges = measured["angle_edges"]
    ranges = [f"{low:g}–{high:g}°" for low, high in itertools.pairwise(edges)]
    models = [
        _row(_label(name), count(run["steps"]), run["psnr_by_angle"])
        for name, run in measured["runs"].items()
    ]
    baselines = [_row(name, EN_DASH, values) for name, values in measured["baselines"].items()]
    return Table(
        title=TITLE,
        align="l" + "r" * (1 + len(ranges)),
        header=["model, cameras", "steps", *ranges],
        rows=models + baselines,
        notes=[
            "PSNR in dB of new synthetic objects, by the angle between the camera that shows them"
            " and the nearest of 24 fixed cameras. Fixed: trained on these cameras alone, as NMR"
            " has them; dense: on cameras anywhere; jitter: with every item's world turned at"
            " random.",
            f"Not of this profile's runs: models of the published sizes, each trained for"
            f" {measured['seconds_of_training']:g} s of one {measured['device']} on"
            f" {count(measured['objects'])} objects and measured on {measured['test_objects']}"
            " others.",
        ],
    )


def _row(label: str, steps: str, values: Sequence[float]) -> list[str]:
    return [label, steps, *(f"{value:.1f}" for value in values)]


def _label(name: str) -> str:
    model, _, cameras = name.partition(", ")
    return f"{model.upper()}, {cameras}"
