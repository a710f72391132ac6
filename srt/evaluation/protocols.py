"""What a protocol measures: items, each a scene with its input views; all other views are targets.

Nothing here draws a random number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from dataclasses import dataclass
from statistics import NormalDist

import torch

from srt.common.errors import DataError, UserError
from srt.config.schema import Protocol
from srt.data.batch import Batch
from srt.data.packed.reader import Scenes

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
