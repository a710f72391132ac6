"""The tables of datasets, from the statistics that `workflow.survey` writes of each."""

from __future__ import annotations

from collections.abc import Sequence

from srt.report.format.numbers import format_count
from srt.report.format.table import Table
from srt.results.records import CameraRange, Survey


def datasets_tables(surveys: Sequence[Survey]) -> list[Table]:
    """Return two tables with a row for each dataset: its size, and the ranges of its cameras."""
    sizes = Table(
        title="Datasets",
        align="lrrrrrrr",
        header=["dataset", "train", "val", "test", "classes", "views", "size", "uncompressed"],
        rows=[_size_row(survey) for survey in surveys],
        notes=[
            "Sizes are rows × columns. Scenes by class and the statistics of pixels are in"
            " datasets/<dataset>/statistics.json."
        ],
    )
    cameras = Table(
        title="Cameras of the datasets",
        align="lrrr",
        header=["dataset", "camera distance", "elevation", "field of view"],
        rows=[_camera_row(survey) for survey in surveys],
        notes=[
            "Camera distances are to the world's origin; ranges are over all views of the training"
            " scenes, as is the horizontal field of view."
        ],
    )
    return [sizes, cameras]


def _size_row(survey: Survey) -> list[str]:
    """Return a dataset's scenes of each split, classes, views, image size and bytes."""
    # Classes and views are those of the training split, which is the largest.
    splits = survey.splits
    train = splits["train"]
    total_bytes = sum(split.uncompressed_bytes for split in splits.values())
    return [
        data_label(survey),
        *(format_count(split.scenes) for split in splits.values()),
        str(len(train.classes)),
        str(train.views),
        " × ".join(map(str, train.image_size)),
        f"{total_bytes / 1e9:.1f} GB" if total_bytes > 1e9 else f"{total_bytes / 1e6:.1f} MB",
    ]


def _camera_row(survey: Survey) -> list[str]:
    """Return the ranges of a dataset's cameras in the training split."""
    cameras = survey.splits["train"].cameras
    return [
        data_label(survey),
        _camera_range(cameras.distance_to_origin, 2, ""),
        _camera_range(cameras.elevation_degrees, 0, "°"),
        _camera_range(cameras.field_of_view_degrees, 0, "°"),
    ]


def _camera_range(values: CameraRange, digits: int, unit: str) -> str:
    """Return e.g. `10 to 35°`, or one value if both ends look equal."""
    # Of the smallest, median and largest value, the table shows the ends.
    low, _, high = (f"{value:.{digits}f}" for value in values)
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def data_label(survey: Survey) -> str:
    """Return a dataset's name, and that it is synthetic if it is."""
    suffix = " (synthetic)" if survey.synthetic else ""
    return f"{survey.dataset}{suffix}"
