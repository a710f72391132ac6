"""Full held-out images, predicted and measured. Nothing here draws a random number.

An item is a scene with its input views; all other views are its targets. Items are measured one by
one, so that a figure depends neither on a batch size nor on the number of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srt.baselines import guesses
from srt.config import Protocol
from srt.data.sampling import Batch, Presentation, whole_views
from srt.data.scenes import Scenes
from srt.distributed import Processes
from srt.errors import DataError, UserError
from srt.metrics import Lpips
from srt.models import SRT, decode_in_groups, precision
from srt.models.decoder import Prediction
from srt.pictures import comparison_columns, grid, to_uint8
from srt.scores import measure
from srt.shapes import Float, Int, UInt8

GOLDEN = (5**0.5 - 1) / 2  # its multiples, but for whole numbers, are spread evenly


@dataclass(frozen=True)
class Conditions:
    """What an evaluation changes in a protocol; without arguments: nothing."""

    input_views: int | None = None  # None: as many as in training
    pose_noise: float = 0.0  # see `with_pose_noise`


@dataclass(frozen=True)
class Item:
    """What is measured at once: a scene, by its place in the split, and its input views."""

    scene: int
    inputs: tuple[int, ...]
    withheld: tuple[int, ...] = ()  # views that are not given to the model, nor targets
    pose_noise: float = 0.0


@dataclass(frozen=True)
class Views:
    """An item's images: inputs, targets, and what the model sees from the targets' cameras."""

    inputs: Float[Tensor, "v h w 3"]
    targets: Float[Tensor, "t h w 3"]
    predictions: Float[Tensor, "t h w 3"]
    depths: Float[Tensor, "t h w"] | None  # along the rays, of a model that knows them


def protocol_items(
    scenes: Scenes,
    protocol: Protocol,
    input_views: int,
    limit: int | None,
    conditions: Conditions = Conditions(),
) -> list[Item]:
    """Returns a protocol's items, or `limit` of them that are spread evenly over all.

    `stelzner`: every scene with each of its views as input; of several input views, every scene
    with its first ones (published: drawn anew at each evaluation), as in `gta`. `pixelnerf`: every
    scene with the one source view that is written down for it; raises DataError where there is
    none. With fewer inputs than in training the targets stay: the first views are withheld.

    Args:
        input_views: of the training.
    """
    given = conditions.input_views or (1 if protocol == "pixelnerf" else input_views)
    check_conditions(scenes, protocol, given, conditions)
    if protocol == "pixelnerf":
        sources = [scenes.info(s).source_view for s in range(len(scenes))]
        items = [Item(s, (view or 0,)) for s, view in enumerate(sources)]
        if None in sources:
            raise DataError(
                f"{scenes.names[sources.index(None)]} has no source view, which protocol pixelnerf"
                " needs: name a view_list for its dataset in params.yaml, or leave the protocol out"
            )
    elif protocol == "stelzner" and given == input_views == 1:
        # Each scene begins with another view: so some of all items are of many scenes and views.
        count, views = len(scenes), scenes.views
        first = [int(s * GOLDEN % 1 * views) for s in range(count)]
        items = [Item(s, ((first[s] + v) % views,)) for s in range(count) for v in range(views)]
    else:
        inputs, withheld = tuple(range(given)), tuple(range(given, input_views))
        items = [Item(s, inputs, withheld, conditions.pose_noise) for s in range(len(scenes))]
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def check_conditions(
    scenes: Scenes, protocol: Protocol, given: int, conditions: Conditions
) -> None:
    """Raises UserError for conditions under which a protocol measures nothing, or nothing else."""
    if given >= scenes.views:
        raise UserError(
            f"evaluate.input_views {given}: no target is left of the scenes' {scenes.views} views;"
            " give less"
        )
    if protocol == "pixelnerf" and given != 1:
        raise UserError(
            f"evaluate.input_views {given}: protocol pixelnerf has one source view for each scene;"
            " leave it out of evaluate.protocols, or give null"
        )
    if conditions.pose_noise and given == 1:
        raise UserError(
            f"evaluate.pose_noise {conditions.pose_noise}: the pose of the first input camera stays"
            f" as it is and protocol {protocol} has no other; give 0.0"
        )


@torch.no_grad()
def predict(
    model: SRT, batch: Batch, rays_per_group: int | None, as_trained: bool = False
) -> Prediction:
    """Returns colours, in float32, and depth that the model sees along a batch's target rays.

    Args:
        as_trained: with products of the precision that training has on this device; else float32.
    """
    device = batch.images.device
    with precision(device) if as_trained else contextlib.nullcontext():
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        keys_values = model.decoder.keys_values(tokens)
        seen = decode_in_groups(model, keys_values, batch.rays, rays_per_group)
    return seen._replace(colours=seen.colours.float())


def predict_item(
    model: SRT,
    scenes: Scenes,
    item: Item,
    *,
    shown: Presentation,
    rays_per_group: int | None,
    wanted: Sequence[int] | None = None,
    as_trained: bool = False,
) -> Views:
    """Returns an item's images with the model's predictions.

    Args:
        wanted: the views to predict; None: all of its targets.
        as_trained: see `predict`. Cameras are float32 in any case: those of NMR would be off by a
            third of a pixel in bfloat16.
    """
    wanted = target_views(scenes, item, shown) if wanted is None else wanted
    scene, inputs, targets = (
        torch.tensor(index, device=scenes.device)
        for index in ([item.scene], [item.inputs], [list(wanted)])
    )
    batch = whole_views(scenes, scene, inputs, targets, shown)
    if item.pose_noise:
        batch = with_pose_noise(batch, scenes.names[item.scene], item)
    size = (len(wanted), scenes.height, scenes.width, 3)
    predicted = predict(model, batch, rays_per_group, as_trained)
    return Views(
        inputs=whole_images(scenes, scene, inputs),
        targets=batch.colours[0].view(size),
        predictions=predicted.colours[0].view(size),
        depths=None if predicted.depth is None else predicted.depth[0].view(size[:3]),
    )


def target_views(scenes: Scenes, item: Item, shown: Presentation) -> list[int]:
    """Returns the views that a model must show."""
    others = set(range(scenes.views)).difference(item.inputs, item.withheld)
    return list(range(scenes.views)) if shown.all_targets else sorted(others)


def item_guesses(
    scenes: Scenes,
    item: Item,
    views: Views,
    shown: Presentation,
    mean_colour: Sequence[float],
) -> dict[str, Float[Tensor, "t h w 3"]]:
    """Returns what the baselines show for an item's targets; they know the true cameras."""
    scene, inputs, targets = (
        torch.tensor(index, device=scenes.device)
        for index in ([item.scene], item.inputs, target_views(scenes, item, shown))
    )
    intrinsics, poses = scenes.cameras(scene)
    return guesses(views.inputs, (intrinsics[0], poses[0]), inputs, targets, mean_colour)


def with_pose_noise(batch: Batch, scene: str, item: Item) -> Batch:
    """Returns a batch of one scene with other poses of its input cameras, the first one's apart.

    Each is turned about its own place by a rotation vector (radians) and moved (units of the
    world), much as by `camera_noise` in autonomousvision/gta: six numbers of a normal distribution
    with deviation `item.pose_noise`. They are hashes of the scene's name and the view.
    """
    draws = torch.tensor([_normal_numbers(f"{scene}/{view}") for view in item.inputs])
    noise = item.pose_noise * draws.to(batch.image_origins)
    noise[0] = 0
    x, y, z = noise[:, :3].unbind(dim=1)
    nought = torch.zeros_like(x)
    cross = torch.stack((nought, -z, y, z, nought, -x, -y, x, nought), dim=1).view(-1, 3, 3)
    turned = torch.einsum(
        "vij,bvhwj->bvhwi", torch.linalg.matrix_exp(cross), batch.image_directions
    )
    moved = batch.image_origins + noise[:, 3:]
    return dataclasses.replace(batch, image_origins=moved, image_directions=turned)


def _normal_numbers(text: str) -> list[float]:
    """Returns six independent normal numbers, the same for the same text."""
    integers = struct.unpack(">6I", hashlib.sha256(text.encode()).digest()[:24])
    return [NormalDist().inv_cdf((integer + 0.5) / 2**32) for integer in integers]


def whole_images(
    scenes: Scenes, scene: Int[Tensor, "1"], views: Int[Tensor, "1 v"]
) -> Float[Tensor, "v h w 3"]:
    """Returns views at full size, which a model may see strided; values in [0, 1]."""
    nothing = views.new_zeros(1, 0)
    return scenes.gather(scene, views, nothing, 1)[0][0].float() / 255


def evaluate_items(
    model: SRT,
    scenes: Scenes,
    items: Sequence[Item],
    protocol: Protocol,
    *,
    mean_colour: Sequence[float] | None,
    lpips: Mapping[str, Lpips] | None,
    shown: Presentation,
    rays_per_group: int | None,
    processes: Processes,
    as_trained: bool = False,
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
    asked: Any = {"shown": shown, "rays_per_group": rays_per_group, "as_trained": as_trained}
    for index in tqdm(mine, desc=f"evaluate {protocol}", unit="item", disable=not processes.main):
        item = items[index]
        views = predict_item(model, scenes, item, **asked)
        images = {"": views.predictions}
        if mean_colour is not None:
            shown_by = item_guesses(scenes, item, views, shown, mean_colour)
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


def comparison(
    model: SRT,
    scenes: Scenes,
    items: Sequence[Item],
    *,
    shown: Presentation,
    rays_per_group: int | None,
    labels: Sequence[str] = (),
    as_trained: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture of inputs, target, prediction and error, one row an item.

    The targets go around: each row shows another angle from the input, which is none of them.

    Args:
        labels: what is written above each row, if anything.
        as_trained: see `predict`.
    """
    asked: Any = {"shown": shown, "rays_per_group": rays_per_group, "as_trained": as_trained}
    inputs, targets, predictions = [], [], []
    for number, item in enumerate(items):
        others = [v for v in target_views(scenes, item, shown) if v not in item.inputs]
        angle = others[((number + 1) * len(others)) // (len(items) + 1)]
        views = predict_item(model, scenes, item, wanted=[angle], **asked)
        inputs.append(views.inputs)
        targets.append(views.targets[0])
        predictions.append(views.predictions[0])
    images = [to_uint8(torch.stack(part)) for part in (inputs, targets, predictions)]
    return grid(comparison_columns(*images), labels)
