"""A look at a packed dataset: statistics, a contact sheet, and where its cameras stand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from srt.common.shapes import Float, UInt8
from srt.data.packed.reader import Scenes
from srt.visualization.pictures import caption, enlarge, outline, tile, with_margin
from srt.visualization.plots import COLOURS, figure_pixels

SHEET_SCENES = 3  # of each split
SHEET_VIEWS = 8
SHEET_IMAGE = 96  # an image is enlarged until its shorter side has at least so many pixels
DRAWN_CAMERAS = 1000  # of each split
BLOCK = 10_000  # scenes whose cameras are in memory at once


def split_summary(scenes: Scenes, header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a split's counts, pixel statistics, and ranges over all of its cameras.

    Args:
        header: of the split, from `read_split_header`.
    """
    geometry = camera_ranges(scenes)
    counts = Counter(scenes.info(index).class_name for index in range(len(scenes)))
    return {
        "scenes": len(scenes),
        "views": scenes.views,
        "image_size": [scenes.height, scenes.width],
        "storage": header["storage"],
        "uncompressed_bytes": scenes.bytes,
        "classes": dict(sorted(counts.items())),
        "pixels": {
            name: [round(value, 4) for value in values]
            for name, values in header["statistics"].items()
        },
        "cameras": {name: [round(value, 4) for value in row] for name, row in geometry.items()},
    }


def camera_ranges(scenes: Scenes) -> dict[str, list[float]]:
    """Returns smallest, median and largest value of what tells cameras apart."""
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(scenes), BLOCK):
        block = torch.arange(start, min(start + BLOCK, len(scenes)))
        intrinsics, poses = (cameras.cpu().numpy() for cameras in scenes.cameras(block))
        position = poses[..., :3, 3].reshape(-1, 3)
        distance = np.linalg.norm(position, axis=1)
        focal = intrinsics[..., 0, 0].ravel()
        towards = -(poses[..., :3, 2].reshape(-1, 3) * position).sum(axis=1) / distance
        values = {
            "distance_to_origin": distance,
            "elevation_degrees": np.degrees(np.arcsin(position[:, 2] / distance)),
            "angle_off_origin_degrees": np.degrees(np.arccos(towards.clip(-1, 1))),
            "field_of_view_degrees": np.degrees(2 * np.arctan(scenes.width / 2 / focal)),
        }
        for name, array in values.items():
            parts.setdefault(name, []).append(array)
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {
        name: [float(array.min()), float(np.median(array)), float(array.max())]
        for name, array in joined.items()
    }


def contact_sheet(splits: Mapping[str, Scenes]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a few scenes of each split, a row each, its views side by side."""
    rows = []
    for split, scenes in splits.items():
        chosen = torch.linspace(0, len(scenes) - 1, min(SHEET_SCENES, len(scenes))).round().long()
        for index in chosen.unique().tolist():
            info = scenes.info(index)
            views = torch.arange(min(SHEET_VIEWS, scenes.views), device=scenes.device)[None]
            scene = torch.tensor([index], device=scenes.device)
            images, _ = scenes.gather(scene, views, views[:, :0], 1)
            row = tile(list(outline(enlarge(images[0].cpu().numpy(), SHEET_IMAGE))), axis=1)
            of = f"{len(views[0])} of {scenes.views} views"
            text = f"{split} {index}: {info.class_name}, {info.name}, {of}"
            rows += [caption(text, row.shape[1]), row]
    return with_margin(tile(rows, axis=0))


def camera_figure(splits: Mapping[str, Scenes], title: str) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the camera positions seen from above, and their height by distance from the axis."""

    def draw(axes: Any) -> None:
        above, beside = axes
        for (split, scenes), colour in zip(splits.items(), COLOURS):
            position = camera_positions(scenes)
            size = 3 + 200 / math.sqrt(len(position))
            style = {"s": size, "color": colour, "alpha": 0.5, "linewidths": 0, "label": split}
            above.scatter(position[:, 0], position[:, 1], **style)
            level = np.linalg.norm(position[:, :2], axis=1)
            beside.scatter(level, position[:, 2], **style)
        for axis, name, x, y in (
            (above, "from above", "x", "y"),
            (beside, "height by distance from the z axis", "distance", "z"),
        ):
            axis.plot(0, 0, "k+", markersize=10)
            axis.set(title=name, xlabel=x, ylabel=y, aspect="equal")
            axis.set_title(name, fontsize="medium")

    return figure_pixels(f"Cameras of {title} (+: the world's origin)", 5.0, draw)


def camera_positions(scenes: Scenes) -> Float[np.ndarray, "cameras 3"]:
    """Returns the positions of cameras of scenes that are spread evenly over the split."""
    count = max(1, min(len(scenes), DRAWN_CAMERAS // scenes.views))
    chosen = torch.linspace(0, len(scenes) - 1, count).round().long()
    return scenes.cameras(chosen)[1][..., :3, 3].reshape(-1, 3).cpu().numpy()
