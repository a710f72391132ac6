"""A picture that compares predictions with their targets, one scene in each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from srt.common.shapes import UInt8
from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict_item, target_views
from srt.evaluation.protocols import Item
from srt.model.srt import SRT
from srt.visualization.pictures import comparison_columns, grid, to_uint8


def compare_views(
    model: SRT,
    scenes: Scenes,
    items: Sequence[Item],
    *,
    view_config: ViewConfig,
    rays_per_group: int | None,
    labels: Sequence[str] = (),
    mixed_precision: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture with a row of inputs, target, prediction and error for each item.

    A row has one target. It is never an input view, even if the model is measured on those too.

    Args:
        labels: a text to write above each row; empty: none.
        mixed_precision: see `srt.evaluation.evaluator.predict`.
    """
    inputs, targets, predictions = [], [], []
    for number, item in enumerate(items):
        # Predict one target view only.
        target = _choose_target(scenes, item, view_config, number, len(items))
        images = predict_item(
            model,
            scenes,
            item,
            view_config=view_config,
            rays_per_group=rays_per_group,
            views_to_predict=[target],
            mixed_precision=mixed_precision,
        )
        inputs.append(images.inputs)
        targets.append(images.targets[0])
        predictions.append(images.predictions[0])

    # The grid wants columns: each kind of image of all items.
    columns = comparison_columns(
        to_uint8(torch.stack(inputs)),
        to_uint8(torch.stack(targets)),
        to_uint8(torch.stack(predictions)),
    )
    return grid(columns, labels)


def _choose_target(scenes: Scenes, item: Item, view_config: ViewConfig, row: int, rows: int) -> int:
    """Return the target view of a row of the picture."""
    candidates = target_views(scenes, item, view_config)
    candidates = [view for view in candidates if view not in item.inputs]

    # The cameras of the datasets go around a scene. The rows spread the targets evenly, so that
    # each row shows another angle.
    return candidates[((row + 1) * len(candidates)) // (rows + 1)]
