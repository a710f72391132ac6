"""The table of datasets: what each holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srt.report.format.table import Table


def datasets_table(surveys: Sequence[dict[str, Any]]) -> Table:
    """Returns what each dataset holds, a row each."""
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
    splits, train = survey["splits"], survey["splits"]["train"]
    total = sum(split["uncompressed_bytes"] for split in splits.values())

    def range_of(name: str, digits: int, unit: str) -> str:
        low, _, high = (f"{value:.{digits}f}" for value in train["cameras"][name])
        return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"

    return [
        data_label(survey),
        *(f"{splits[split]['scenes']:,}".replace(",", "\u00a0") for split in splits),
        str(len(train["classes"])),
        str(train["views"]),
        " × ".join(map(str, train["image_size"])),
        f"{total / 1e9:.1f} GB" if total > 1e9 else f"{total / 1e6:.1f} MB",
        range_of("distance_to_origin", 2, ""),
        range_of("elevation_degrees", 0, "°"),
        range_of("field_of_view_degrees", 0, "°"),
    ]


def data_label(survey: dict[str, Any]) -> str:
    """Returns a dataset's name, and that it is synthetic where it is."""
    return f"{survey['dataset']}{' (synthetic)' if survey['synthetic'] else ''}"
