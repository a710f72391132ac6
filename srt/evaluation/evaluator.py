"""Predict full held-out images and measure them. Nothing here draws a random number.

An item is a scene with its input views (srt/evaluation/protocols.py). Items are predicted and
measured one by one, so that a figure depends neither on a batch size nor on the number of
processes.

v input views, t target views, h x w pixels of a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srt.common.distributed import Processes
from srt.common.shapes import Float
from srt.config.schema import Protocol
from srt.data.batch import Batch, ViewConfig, make_full_view_batch, read_full_images
from srt.data.packed.reader import Scenes
from srt.evaluation.baselines import baseline_predictions
from srt.evaluation.lpips import Lpips
from srt.evaluation.protocols import Item, add_pose_noise
from srt.evaluation.scores import measure
from srt.model.decoder import Prediction
from srt.model.scene import Scene, SceneFrame, encode_scene
from srt.model.srt import SRT
from srt.results.record_tables import ItemScores
from srt.results.records import Baselines


@dataclass(frozen=True)
class ItemImages:
    """An item's input images, target images and the model's predictions of the targets."""

    inputs: Float[Tensor, "v h w 3"]
    targets: Float[Tensor, "t h w 3"]
    predictions: Float[Tensor, "t h w 3"]
    depths: Float[Tensor, "t h w"] | None  # along the rays; None: the model predicts no depth


def encode_batch(
    model: SRT, batch: Batch, rays_per_group: int | None, mixed_precision: bool = False
) -> Scene:
    """Return the scenes of a batch, encoded from its input images.

    Args:
        rays_per_group: the queries that are decoded at once; None: as many as fit.
        mixed_precision: multiply in the precision of training on this device; False: in float32.
    """
    return encode_scene(
        model,
        batch.images,
        batch.image_origins,
        batch.image_directions,
        SceneFrame(batch.near, batch.far),
        mixed_precision=mixed_precision,
        queries_per_group=rays_per_group,
    )


def predict(
    model: SRT, batch: Batch, rays_per_group: int | None, mixed_precision: bool = False
) -> Prediction:
    """Return the model's colours, in float32, and depth along the target rays of a batch.

    Args:
        rays_per_group, mixed_precision: see `encode_batch`.
    """
    scene = encode_batch(model, batch, rays_per_group, mixed_precision)
    prediction = scene.decode(batch.rays)
    return prediction._replace(colours=prediction.colours.float())


def predict_item(
    model: SRT,
    scenes: Scenes,
    item: Item,
    *,
    view_config: ViewConfig,
    rays_per_group: int | None,
    views_to_predict: Sequence[int] | None = None,
    mixed_precision: bool = False,
) -> ItemImages:
    """Return an item's images with the model's predictions.

    Args:
        views_to_predict: None: all targets of the item.
        mixed_precision: see `predict`. Cameras are float32 in any case, because bfloat16 would
            shift those of NMR by a third of a pixel.
    """
    if views_to_predict is None:
        views_to_predict = target_views(scenes, item, view_config)

    # The target rays go through all pixels of the views. The batch has one scene.
    scene = torch.tensor([item.scene], device=scenes.device)  # (1)
    inputs = torch.tensor([item.inputs], device=scenes.device)  # (1, v)
    targets = torch.tensor([list(views_to_predict)], device=scenes.device)  # (1, t)
    batch = make_full_view_batch(scenes, scene, inputs, targets, view_config)
    if item.pose_noise:
        batch = add_pose_noise(batch, scenes.names[item.scene], item)
    prediction = predict(model, batch, rays_per_group, mixed_precision)

    # Rays are in the order of views, rows and columns: they become images again.
    size = (len(views_to_predict), scenes.height, scenes.width, 3)
    return ItemImages(
        inputs=read_full_images(scenes, scene, inputs),
        targets=batch.colours[0].view(size),  # (t, h, w, 3)
        predictions=prediction.colours[0].view(size),
        depths=None if prediction.depth is None else prediction.depth[0].view(size[:3]),
    )


def target_views(scenes: Scenes, item: Item, view_config: ViewConfig) -> list[int]:
    """Return the views that a model must predict.

    They are all views but the inputs and the withheld ones, or all views if `all_targets` is set.
    """
    if view_config.all_targets:
        return list(range(scenes.views))
    return sorted(set(range(scenes.views)).difference(item.inputs, item.withheld))


def predict_item_baselines(
    scenes: Scenes,
    item: Item,
    images: ItemImages,
    view_config: ViewConfig,
    mean_colour: Sequence[float] | None,
) -> dict[str, Float[Tensor, "t h w 3"]]:
    """Return the baselines' predictions of an item's targets.

    Args:
        mean_colour: of the training set; None: no baseline is computed.
    """
    if mean_colour is None:
        return {}

    # Baselines use the exact cameras, even if the model's input cameras have pose noise.
    scene = torch.tensor([item.scene], device=scenes.device)
    inputs = torch.tensor(item.inputs, device=scenes.device)
    targets = torch.tensor(target_views(scenes, item, view_config), device=scenes.device)
    intrinsics, poses = scenes.cameras(scene)  # (1, views, 3, 3), (1, views, 4, 4)
    return baseline_predictions(
        images.inputs, (intrinsics[0], poses[0]), inputs, targets, mean_colour
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
) -> list[ItemScores]:
    """Measure the items and return a row of `measure_item` for each of them, in order.

    Each process measures its share of the items, and all processes return all rows.

    Args:
        mean_colour: of the training set; None: no baseline is measured.
        lpips: the distances that can be measured, by the names of their measures; None: none.
        mixed_precision: see `predict`.
    """
    from tqdm import tqdm

    # The processes take turns, so that their shares differ by one item at most.
    own_items = range(processes.rank, len(items), processes.world_size)
    progress = tqdm(own_items, desc=f"evaluate {protocol}", unit="item", disable=not processes.main)

    # Predict and measure the items one by one.
    rows: list[tuple[int, ItemScores]] = []
    for index in progress:
        images = predict_item(
            model,
            scenes,
            items[index],
            view_config=view_config,
            rays_per_group=rays_per_group,
            mixed_precision=mixed_precision,
        )
        baselines = predict_item_baselines(scenes, items[index], images, view_config, mean_colour)
        row = measure_item(scenes, items[index], protocol, images, baselines, lpips or {})
        rows.append((index, row))

    # Collect the rows of all processes and restore the order of the items.
    all_rows = [row for share in processes.gather(rows) for row in share]
    return [row for _, row in sorted(all_rows, key=_item_index)]


def measure_item(
    scenes: Scenes,
    item: Item,
    protocol: Protocol,
    images: ItemImages,
    baselines: Mapping[str, Float[Tensor, "t h w 3"]],
    lpips: Mapping[str, Lpips],
) -> ItemScores:
    """Return an item's row: the scene, its class, the input views and all measures.

    Args:
        baselines: predictions by the name of the baseline; empty: none is measured.
    """
    info = scenes.info(item.scene)
    scores = measure(images.predictions, images.targets, protocol, lpips)
    baseline_scores = {
        name: measure(prediction, images.targets, protocol, lpips)
        for name, prediction in baselines.items()
    }
    return ItemScores(
        protocol=protocol,
        scene=info.name,
        class_name=info.class_name,
        inputs=item.inputs,
        scores=scores,
        baselines=Baselines(**baseline_scores) if baseline_scores else None,
    )


def _item_index(indexed_row: tuple[int, ItemScores]) -> int:
    return indexed_row[0]
