"""Full held-out images, measured by published protocols. Nothing here draws a random number.

An item is a scene with its input views; all other views are its targets. Items are measured one by
one, so that a figure depends neither on a batch size nor on the number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from srt.data.sampling import Batch, Presentation, whole_views
from srt.data.scenes import Scenes
from srt.distributed import Processes
from srt.errors import DataError
from srt.metrics import Lpips, pooled_psnr, psnr, ssim, to_8_bit
from srt.models import SRT, decode_in_groups
from srt.models.decoder import Prediction
from srt.pictures import comparison_columns, grid, to_uint8
from srt.shapes import Float, Int, UInt8

Protocol = Literal["stelzner", "pixelnerf"]
BEST_PSNR = 100.0  # dB, of equal images, whose PSNR is infinite
MEASURES = ("psnr", "ssim", "lpips")
BASELINES = ("mean_colour", "input_view")


@dataclass(frozen=True)
class Item:
    """What is measured at once: a scene, by its place in the split, and its input views."""

    scene: int
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Views:
    """An item's images: inputs, targets, and what the model sees from the targets' cameras."""

    inputs: Float[Tensor, "v h w 3"]
    targets: Float[Tensor, "t h w 3"]
    predictions: Float[Tensor, "t h w 3"]
    depths: Float[Tensor, "t h w"] | None  # along the rays, of a model that knows them
    nearest_inputs: Float[Tensor, "t h w 3"]  # the input whose camera is nearest to the target's


def protocol_items(
    scenes: Scenes, protocol: Protocol, input_views: int, limit: int | None
) -> list[Item]:
    """Returns a protocol's items, or `limit` of them that are spread evenly over all.

    `stelzner`: every scene with each of its views as input; of several input views, every scene
    with its first ones (published: drawn anew at each evaluation). `pixelnerf`: every scene with
    the one source view that is written down for it; raises DataError where there is none.
    """
    if protocol == "pixelnerf":
        sources = [scenes.info(s).source_view for s in range(len(scenes))]
        items = [Item(s, (view or 0,)) for s, view in enumerate(sources)]
        if None in sources:
            raise DataError(
                f"{scenes.names[sources.index(None)]} has no source view, which protocol pixelnerf"
                " needs: name a view_list for its dataset in params.yaml, or leave the protocol out"
            )
    elif input_views == 1:
        items = [Item(s, (view,)) for view in range(scenes.views) for s in range(len(scenes))]
    else:
        items = [Item(s, tuple(range(input_views))) for s in range(len(scenes))]
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


@torch.no_grad()
def predict(model: SRT, batch: Batch, rays_per_group: int) -> Prediction:
    """Returns colours, in float32, and depth that the model sees along a batch's target rays."""
    tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
    keys_values = model.decoder.keys_values(tokens)
    seen = decode_in_groups(model, keys_values, batch.rays, rays_per_group)
    return seen._replace(colours=seen.colours.float())


def predict_item(
    model: SRT, scenes: Scenes, item: Item, *, shown: Presentation, rays_per_group: int
) -> Views:
    """Returns an item's images with the model's predictions."""
    wanted = [v for v in range(scenes.views) if shown.all_targets or v not in item.inputs]
    scene, inputs, targets = (
        torch.tensor(index, device=scenes.device)
        for index in ([item.scene], [item.inputs], [wanted])
    )
    batch = whole_views(scenes, scene, inputs, targets, shown)
    size = (len(wanted), scenes.height, scenes.width, 3)
    images = whole_images(scenes, scene, inputs)
    positions = scenes.cameras(scene)[1][0, :, :3, 3]
    nearest = torch.cdist(positions[targets[0]], positions[inputs[0]]).argmin(dim=1)
    predicted = predict(model, batch, rays_per_group)
    return Views(
        inputs=images,
        targets=batch.colours[0].view(size),
        predictions=predicted.colours[0].view(size),
        depths=None if predicted.depth is None else predicted.depth[0].view(size[:3]),
        nearest_inputs=images[nearest],
    )


def whole_images(
    scenes: Scenes, scene: Int[Tensor, "1"], views: Int[Tensor, "1 v"]
) -> Float[Tensor, "v h w 3"]:
    """Returns views at full size, which a model may see strided; values in [0, 1]."""
    nothing = views.new_zeros(1, 0)
    return scenes.gather(scene, views, nothing, 1)[0][0].float() / 255


def measure(
    predictions: Float[Tensor, "t h w 3"],
    targets: Float[Tensor, "t h w 3"],
    protocol: Protocol,
    lpips: Lpips | None,
) -> dict[str, float | None]:
    """Returns what a protocol measures of an item; None is what it or we do not measure."""
    if protocol == "stelzner":
        pooled = pooled_psnr(predictions, targets).clamp(max=BEST_PSNR)
        return {"psnr": pooled.item(), "ssim": None, "lpips": None}
    predictions, targets = to_8_bit(predictions), to_8_bit(targets)
    return {
        "psnr": psnr(predictions, targets).clamp(max=BEST_PSNR).mean().item(),
        "ssim": ssim(predictions, targets).mean().item(),
        "lpips": lpips(predictions, targets).mean().item() if lpips is not None else None,
    }


def evaluate_items(
    model: SRT,
    scenes: Scenes,
    items: Sequence[Item],
    protocol: Protocol,
    *,
    mean_colour: Sequence[float],
    lpips: Lpips | None,
    shown: Presentation,
    rays_per_group: int,
    processes: Processes,
) -> list[dict[str, Any]]:
    """Returns a row for each item, in order, in every process; each measures its share.

    A row holds the scene, its class, the input views, the protocol's measures, and the same of two
    baselines: the training set's mean colour, and the nearest input view copied.
    """
    from tqdm import tqdm

    mine = range(processes.rank, len(items), processes.world_size)
    rows = []
    for index in tqdm(mine, desc=f"evaluate {protocol}", unit="item", disable=not processes.main):
        item = items[index]
        views = predict_item(model, scenes, item, shown=shown, rays_per_group=rays_per_group)
        mean = views.targets.new_tensor(mean_colour).expand_as(views.targets)
        images = {"": views.predictions, "mean_colour_": mean, "input_view_": views.nearest_inputs}
        info = scenes.info(item.scene)
        row: dict[str, Any] = {"scene": info.name, "class": info.class_name}
        row["inputs"] = " ".join(map(str, item.inputs))
        for prefix, image in images.items():
            figures = measure(image, views.targets, protocol, lpips)
            row |= {f"{prefix}{name}": value for name, value in figures.items()}
        rows.append((index, row))
    shares = processes.gather(rows)
    return [row for _, row in sorted((pair for share in shares for pair in share), key=_index)]


def _index(pair: tuple[int, dict[str, Any]]) -> int:
    return pair[0]


def summarise(rows: Sequence[dict[str, Any]], of: int) -> dict[str, Any]:
    """Returns the means over all items, for each class, and of the baselines.

    Args:
        of: how many items the whole protocol has, so that a limited evaluation shows.
    """
    classes = dict.fromkeys(row["class"] for row in rows)
    return {
        "items": len(rows),
        "of": of,
        **_means(rows, ""),
        "baselines": {name: _means(rows, f"{name}_") for name in BASELINES},
        "classes": {
            name: _means([row for row in rows if row["class"] == name], "") for name in classes
        },
    }


def _means(rows: Sequence[dict[str, Any]], prefix: str) -> dict[str, float | None]:
    return {name: _mean(row[prefix + name] for row in rows) for name in MEASURES}


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    # Rounded to what float32 predictions can tell, so that the last bits do not travel.
    return round(sum(measured) / len(measured), 6) if measured else None


def comparison(
    model: SRT,
    scenes: Scenes,
    items: Sequence[Item],
    *,
    shown: Presentation,
    rays_per_group: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture of inputs, target, prediction and error, one row an item.

    The targets go around: each row shows another angle from the input.
    """
    inputs, targets, predictions = [], [], []
    for number, item in enumerate(items):
        views = predict_item(model, scenes, item, shown=shown, rays_per_group=rays_per_group)
        angle = ((number + 1) * len(views.targets)) // (len(items) + 1)
        inputs.append(views.inputs)
        targets.append(views.targets[angle])
        predictions.append(views.predictions[angle])
    images = [to_uint8(torch.stack(part)) for part in (inputs, targets, predictions)]
    return grid(comparison_columns(*images))


def metrics_text(metrics: dict[str, Any]) -> str:
    """Returns metrics.json's text: the same for the same figures."""
    return json.dumps(metrics, indent=1) + "\n"
