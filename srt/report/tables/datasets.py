"""The table of datasets, from the statistics that `workflow.survey` writes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from srt.report.format.numbers import format_count
from srt.report.format.table import Table


def datasets_table(surveys: Sequence[dict[str, Any]]) -> Table:
    """Return the size of each dataset and the ranges of its cameras, a row for each.

    Args:
        surveys: the content of the datasets' statistics.json.
    """
    header = ["dataset", "train", "val", "test", "classes", "views", "size", "uncompressed"]
    header += ["camera distance", "elevation", "field of view"]
    return Table(
        title="Datasets",
        align="l" + "r" * (len(header) - 1),
        header=header,
        rows=[_dataset_row(survey) for survey in surveys],
        notes=[
            "Sizes are rows × columns. Camera distances are to the world's origin; ranges are over"
            " all views of the training scenes, as is the horizontal field of view. Scenes by class"
            " and the statistics of pixels are in datasets/<dataset>/statistics.json."
        ],
    )


def _dataset_row(survey: dict[str, Any]) -> list[str]:
    """Return a dataset's cells: scenes of each split, bytes of all, cameras of the training's."""
    # Cameras and classes are those of the training split, which is the largest.
    splits = survey["splits"]
    train = splits["train"]
    total_bytes = sum(split["uncompressed_bytes"] for split in splits.values())
    return [
        data_label(survey),
        *(format_count(split["scenes"]) for split in splits.values()),
        str(len(train["classes"])),
        str(train["views"]),
        " × ".join(map(str, train["image_size"])),
        f"{total_bytes / 1e9:.1f} GB" if total_bytes > 1e9 else f"{total_bytes / 1e6:.1f} MB",
        _camera_range(train, "distance_to_origin", 2, ""),
        _camera_range(train, "elevation_degrees", 0, "°"),
        _camera_range(train, "field_of_view_degrees", 0, "°"),
    ]


def _camera_range(split: Mapping[str, Any], name: str, digits: int, unit: str) -> str:
    """Return e.g. `10 to 35°`, or one value if both ends look equal."""
    # Of the smallest, median and largest value, the table shows the ends.
    low, _, high = (f"{value:.{digits}f}" for value in split["cameras"][name])
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def data_label(survey: dict[str, Any]) -> str:
    """Return a dataset's name, and that it is synthetic if it is."""
    suffix = " (synthetic)" if survey["synthetic"] else ""
    return f"{survey['dataset']}{suffix}"
