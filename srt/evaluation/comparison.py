"""A picture of inputs, targets, predictions and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """Returns a picture of inputs, target, prediction and error, one row an item.

    The targets go around: each row shows another angle from the input, which is none of them.

    Args:
        labels: what is written above each row, if anything.
        as_trained: see `predict`.
    """
    predict_options: Any = {
        "view_config": view_config,
        "rays_per_group": rays_per_group,
        "mixed_precision": mixed_precision,
    }
    inputs, targets, predictions = [], [], []
    for number, item in enumerate(items):
        others = [v for v in target_views(scenes, item, view_config) if v not in item.inputs]
        angle = others[((number + 1) * len(others)) // (len(items) + 1)]
        views = predict_item(model, scenes, item, views_to_predict=[angle], **predict_options)
        inputs.append(views.inputs)
        targets.append(views.targets[0])
        predictions.append(views.predictions[0])
    images = [to_uint8(torch.stack(part)) for part in (inputs, targets, predictions)]
    return grid(comparison_columns(*images), labels)
