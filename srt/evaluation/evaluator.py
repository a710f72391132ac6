"""Full held-out images, predicted and measured. Nothing here draws a random number.

Items are measured one by one, so that a figure depends neither on a batch size nor on the number of
processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srt.common.distributed import Processes
from srt.common.shapes import Float
from srt.config.schema import Protocol
from srt.data.batch import Batch, ViewConfig, make_full_view_batch, read_full_images
from srt.data.packed.reader import Scenes
from srt.evaluation.baselines import baseline_predictions
from srt.evaluation.lpips import Lpips
from srt.evaluation.protocols import Item, with_pose_noise
from srt.evaluation.scores import measure
from srt.model.decoder import Prediction
from srt.model.inference import decode_in_groups, float32_precision, training_precision
from srt.model.srt import SRT


@dataclass(frozen=True)
class Views:
    """An item's images: inputs, targets, and what the model sees from the targets' cameras."""

    inputs: Float[Tensor, "v h w 3"]
    targets: Float[Tensor, "t h w 3"]
    predictions: Float[Tensor, "t h w 3"]
    depths: Float[Tensor, "t h w"] | None  # along the rays, of a model that knows them


@torch.no_grad()
def predict(
    model: SRT, batch: Batch, rays_per_group: int | None, mixed_precision: bool = False
) -> Prediction:
    """Returns colours, in float32, and depth that the model sees along a batch's target rays.

    Args:
        as_trained: with products of the precision that training has on this device; else float32.
    """
    device = batch.images.device
    with training_precision(device) if mixed_precision else float32_precision():
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = model.decoder.scene_keys_values(tokens)
        seen = decode_in_groups(model, keys_values, batch.rays, rays_per_group)
    return seen._replace(colours=seen.colours.float())


def predict_item(
    model: SRT,
    scenes: Scenes,
    item: Item,
    *,
    view_config: ViewConfig,
    rays_per_group: int | None,
    views_to_predict: Sequence[int] | None = None,
    mixed_precision: bool = False,
) -> Views:
    """Returns an item's images with the model's predictions.

    Args:
        wanted: the views to predict; None: all of its targets.
        as_trained: see `predict`. Cameras are float32 in any case: those of NMR would be off by a
            third of a pixel in bfloat16.
    """
    views_to_predict = (
        target_views(scenes, item, view_config) if views_to_predict is None else views_to_predict
    )
    scene, inputs, targets = (
        torch.tensor(index, device=scenes.device)
        for index in ([item.scene], [item.inputs], [list(views_to_predict)])
    )
    batch = make_full_view_batch(scenes, scene, inputs, targets, view_config)
    if item.pose_noise:
        batch = with_pose_noise(batch, scenes.names[item.scene], item)
    size = (len(views_to_predict), scenes.height, scenes.width, 3)
    predicted = predict(model, batch, rays_per_group, mixed_precision)
    return Views(
        inputs=read_full_images(scenes, scene, inputs),
        targets=batch.colours[0].view(size),
        predictions=predicted.colours[0].view(size),
        depths=None if predicted.depth is None else predicted.depth[0].view(size[:3]),
    )


def target_views(scenes: Scenes, item: Item, view_config: ViewConfig) -> list[int]:
    """Returns the views that a model must show."""
    others = set(range(scenes.views)).difference(item.inputs, item.withheld)
    return list(range(scenes.views)) if view_config.all_targets else sorted(others)


def item_baselines(
    scenes: Scenes,
    item: Item,
    views: Views,
    view_config: ViewConfig,
    mean_colour: Sequence[float],
) -> dict[str, Float[Tensor, "t h w 3"]]:
    """Returns what the baselines show for an item's targets; they know the true cameras."""
    scene, inputs, targets = (
        torch.tensor(index, device=scenes.device)
        for index in ([item.scene], item.inputs, target_views(scenes, item, view_config))
    )
    intrinsics, poses = scenes.cameras(scene)
    return baseline_predictions(
        views.inputs, (intrinsics[0], poses[0]), inputs, targets, mean_colour
    )


def evaluate_items(
    model: SRT,
    scenes: Scenes,
    items: Sequence[Item],
    protocol: Protocol,
    *,
    mean_colour: Sequence[float] | None,
    lpips: Mapping[str, Lpips] | None,
    view_config: ViewConfig,
    rays_per_group: int | None,
    processes: Processes,
    mixed_precision: bool = False,
) -> list[dict[str, Any]]:
    """Returns a row for each item, in order, in every process; each measures its share.

    A row holds the scene, its class, the input views, the protocol's measures, and the same of the
    baselines: the training set's mean colour, the nearest input view copied, and this view warped.

    Args:
        mean_colour: of the training set; None: no baseline is measured.
        lpips: the distances that can be measured, by the measure's name; None: there are none.
        as_trained: see `predict`.
    """
    from tqdm import tqdm

    mine = range(processes.rank, len(items), processes.world_size)
    rows: list[tuple[int, dict[str, Any]]] = []
    predict_options: Any = {
        "view_config": view_config,
        "rays_per_group": rays_per_group,
        "mixed_precision": mixed_precision,
    }
    for index in tqdm(mine, desc=f"evaluate {protocol}", unit="item", disable=not processes.main):
        item = items[index]
        views = predict_item(model, scenes, item, **predict_options)
        images = {"": views.predictions}
        if mean_colour is not None:
            shown_by = item_baselines(scenes, item, views, view_config, mean_colour)
            images |= {f"{name}_": image for name, image in shown_by.items()}
        info = scenes.info(item.scene)
        row: dict[str, Any] = {"scene": info.name, "class": info.class_name}
        row["inputs"] = " ".join(map(str, item.inputs))
        for prefix, image in images.items():
            figures = measure(image, views.targets, protocol, lpips or {})
            row |= {f"{prefix}{name}": value for name, value in figures.items()}
        rows.append((index, row))
    shares = processes.gather(rows)
    return [row for _, row in sorted((pair for share in shares for pair in share), key=_index)]


def _index(pair: tuple[int, dict[str, Any]]) -> int:
    return pair[0]
