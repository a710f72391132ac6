"""Statistics and pictures of a packed dataset, to check the data before training on them.

`workflow.survey` writes what is made here: the counts, pixel statistics and camera ranges of each
split, a contact sheet of its scenes, and a plot of where its cameras stand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from srt.common.shapes import Float, Int, UInt8
from srt.data.packed.reader import Scenes
from srt.results.records import CameraRange, CameraRanges, PixelStatistics, SplitSurvey
from srt.visualization.pictures import add_margin, add_outline, caption, enlarge, tile
from srt.visualization.plots import COLOURS, figure_pixels

# The contact sheet: scenes of each split, views of each scene, pixels of an image's shorter side.
SHEET_SCENES = 3
SHEET_VIEWS = 8
SHEET_IMAGE = 96

# The plot shows at most so many cameras of each split.
PLOTTED_CAMERAS = 1000

# The cameras of so many scenes are in memory at once.
SCENES_PER_BLOCK = 10_000


def split_summary(scenes: Scenes, header: Mapping[str, Any]) -> SplitSurvey:
    """Return a split's counts, pixel statistics, and ranges over all of its cameras.

    Args:
        header: of the split, from `read_split_header`.
    """
    ranges = camera_ranges(scenes)
    counts = Counter(scenes.info(index).class_name for index in range(len(scenes)))
    return SplitSurvey(
        scenes=len(scenes),
        views=scenes.views,
        image_size=(scenes.height, scenes.width),
        storage=header["storage"],
        uncompressed_bytes=scenes.bytes,
        classes=dict(sorted(counts.items())),
        pixels=PixelStatistics(**_round_values(header["statistics"])),
        cameras=CameraRanges(**_round_values(ranges)),
    )


def _round_values(values: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float, float]]:
    """Return the three values of each name with four decimals."""
    return {name: (round(a, 4), round(b, 4), round(c, 4)) for name, (a, b, c) in values.items()}


def camera_ranges(scenes: Scenes) -> dict[str, CameraRange]:
    """Return the smallest, median and largest value of each of `camera_measures`."""
    # A dataset may have millions of cameras, so their matrices are read block by block.
    blocks = []
    for start in range(0, len(scenes), SCENES_PER_BLOCK):
        indices = torch.arange(start, min(start + SCENES_PER_BLOCK, len(scenes)))
        blocks.append(camera_measures(scenes, indices))

    # The median needs all values at once, which are much smaller than the matrices.
    ranges = {}
    for name in blocks[0]:
        values = np.concatenate([block[name] for block in blocks])
        ranges[name] = (float(values.min()), float(np.median(values)), float(values.max()))
    return ranges


def camera_measures(
    scenes: Scenes, indices: Int[torch.Tensor, "scenes"]
) -> dict[str, Float[np.ndarray, "cameras"]]:
    """Return where the cameras of these scenes stand, and how they look at the world's origin."""
    intrinsics, poses = (cameras.cpu().numpy() for cameras in scenes.cameras(indices))
    positions = poses[..., :3, 3].reshape(-1, 3)  # (cameras, 3)
    distances = np.linalg.norm(positions, axis=1)
    focal_lengths = intrinsics[..., 0, 0].ravel()

    # The third column of a pose is the camera's viewing direction, and the origin is at -position.
    viewing_directions = poses[..., :3, 2].reshape(-1, 3)
    cosines = -(viewing_directions * positions).sum(axis=1) / distances
    return {
        "distance_to_origin": distances,
        "elevation_degrees": np.degrees(np.arcsin(positions[:, 2] / distances)),
        "angle_off_origin_degrees": np.degrees(np.arccos(cosines.clip(-1, 1))),
        "field_of_view_degrees": np.degrees(2 * np.arctan(scenes.width / 2 / focal_lengths)),
    }


def contact_sheet(splits: Mapping[str, Scenes]) -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture of a few scenes of each split: a row a scene, its views side by side."""
    # Splits stand below one another, so that a difference between them is seen.
    rows = []
    for split, scenes in splits.items():
        for index in spread_indices(len(scenes), SHEET_SCENES).unique().tolist():
            # Read whole views, and no single pixels.
            views = torch.arange(min(SHEET_VIEWS, scenes.views), device=scenes.device)[None]
            scene = torch.tensor([index], device=scenes.device)
            images, _ = scenes.gather(scene, views, views[:, :0], stride=1)  # (1, v, h, w, 3)

            # Above the views stands which scene it is.
            row = tile(list(add_outline(enlarge(images[0].cpu().numpy(), SHEET_IMAGE))), axis=1)
            info = scenes.info(index)
            number_of_views = f"{len(views[0])} of {scenes.views} views"
            text = f"{split} {index}: {info.class_name}, {info.name}, {number_of_views}"
            rows += [caption(text, row.shape[1]), row]
    return add_margin(tile(rows, axis=0))


def camera_figure(splits: Mapping[str, Scenes], title: str) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the camera positions as seen from above, and their height by distance from the z axis.

    Args:
        title: the name of the dataset.
    """

    def draw(panels: Any) -> None:
        from_above, by_height = panels
        for (split, scenes), colour in zip(splits.items(), COLOURS):
            # The more cameras there are, the smaller are their dots.
            positions = camera_positions(scenes)
            size = 3 + 200 / math.sqrt(len(positions))
            style = {"s": size, "color": colour, "alpha": 0.5, "linewidths": 0, "label": split}
            from_above.scatter(positions[:, 0], positions[:, 1], **style)
            axis_distances = np.linalg.norm(positions[:, :2], axis=1)
            by_height.scatter(axis_distances, positions[:, 2], **style)

        # A cross marks the world's origin.
        for axes, name, x_label, y_label in (
            (from_above, "from above", "x", "y"),
            (by_height, "height by distance from the z axis", "distance", "z"),
        ):
            axes.plot(0, 0, "k+", markersize=10)
            axes.set(title=name, xlabel=x_label, ylabel=y_label, aspect="equal")
            axes.set_title(name, fontsize="medium")

    return figure_pixels(f"Cameras of {title} (+: the world's origin)", 5.0, draw)


def camera_positions(scenes: Scenes) -> Float[np.ndarray, "cameras 3"]:
    """Return the camera positions of as many scenes of a split as the plot has room for."""
    indices = spread_indices(len(scenes), max(1, PLOTTED_CAMERAS // scenes.views))
    _, poses = scenes.cameras(indices)
    return poses[..., :3, 3].reshape(-1, 3).cpu().numpy()


def spread_indices(scenes: int, most: int) -> Int[torch.Tensor, "indices"]:
    """Return the numbers of at most `most` scenes, spread evenly over the first to the last."""
    return torch.linspace(0, scenes - 1, min(most, scenes)).round().long()
