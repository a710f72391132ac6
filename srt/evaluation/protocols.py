"""The items that a protocol measures. An item is a scene with its input views.

All views of the scene that are neither inputs nor withheld are targets. Nothing here draws a random
number.
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

GOLDEN = (5**0.5 - 1) / 2  # the fractional parts of its multiples are spread evenly in [0, 1)


@dataclass(frozen=True)
class Conditions:
    """What an evaluation changes in a protocol. Without arguments, it changes nothing."""

    input_views: int | None = None  # None: as many as in training
    pose_noise: float = 0.0  # the standard deviation; see `add_pose_noise`


@dataclass(frozen=True)
class Item:
    """What is predicted and measured together: a scene and its input views."""

    scene: int  # its number in the split
    inputs: tuple[int, ...]
    withheld: tuple[int, ...] = ()  # views that are neither inputs nor targets
    pose_noise: float = 0.0


def protocol_items(
    scenes: Scenes,
    protocol: Protocol,
    input_views: int,
    limit: int | None,
    conditions: Conditions = Conditions(),
) -> list[Item]:
    """Return a protocol's items, or `limit` of them that are spread evenly over all.

    - `stelzner` with one input view: every scene with each of its views as input.
    - `stelzner` with several, and `gta`: every scene with its first views as inputs. The published
      evaluation of `stelzner` draws them anew each time.
    - `pixelnerf`: every scene with the one source view that the dataset names for it.

    With fewer inputs than in training, the targets stay the same: the rest of the training's input
    views is withheld.

    Args:
        input_views: their number in training.

    Raises:
        DataError: a scene has no source view.
        UserError: the conditions leave nothing to measure or do not fit the protocol.
    """
    count = conditions.input_views or (1 if protocol == "pixelnerf" else input_views)
    check_conditions(scenes, protocol, count, conditions)

    if protocol == "pixelnerf":
        items = _source_view_items(scenes)
    elif protocol == "stelzner" and count == input_views == 1:
        items = _single_view_items(scenes)
    else:
        inputs, withheld = tuple(range(count)), tuple(range(count, input_views))
        items = [Item(s, inputs, withheld, conditions.pose_noise) for s in range(len(scenes))]

    # A limited evaluation takes every n-th item.
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _source_view_items(scenes: Scenes) -> list[Item]:
    """Return every scene with its source view as the input."""
    sources = [scenes.info(scene).source_view for scene in range(len(scenes))]
    if None in sources:
        raise DataError(
            f"{scenes.names[sources.index(None)]} has no source view, which protocol pixelnerf"
            " needs: name a view_list for its dataset in params.yaml, or leave the protocol out"
        )
    return [Item(scene, (view or 0,)) for scene, view in enumerate(sources)]


def _single_view_items(scenes: Scenes) -> list[Item]:
    """Return every scene with each of its views as the only input."""
    # Each scene begins with another view. A limited evaluation takes every n-th item, which would
    # otherwise have the same view of many scenes.
    items = []
    for scene in range(len(scenes)):
        first = int(scene * GOLDEN % 1 * scenes.views)
        for offset in range(scenes.views):
            items.append(Item(scene, ((first + offset) % scenes.views,)))
    return items


def check_conditions(
    scenes: Scenes, protocol: Protocol, input_views: int, conditions: Conditions
) -> None:
    """Check that a protocol can be measured under the conditions.

    Args:
        input_views: their number under the conditions.

    Raises:
        UserError: no target view remains, or the conditions do not fit the protocol.
    """
    if input_views >= scenes.views:
        raise UserError(
            f"evaluate.input_views {input_views}: no target is left of the scenes'"
            f" {scenes.views} views; choose a smaller number"
        )

    # The protocol of pixelNeRF defines its single input view.
    if protocol == "pixelnerf" and input_views != 1:
        raise UserError(
            f"evaluate.input_views {input_views}: protocol pixelnerf has one source view for each"
            " scene; leave it out of evaluate.protocols, or set input_views to null"
        )

    # The first input camera defines the coordinates, so it never has noise.
    if conditions.pose_noise and input_views == 1:
        raise UserError(
            f"evaluate.pose_noise {conditions.pose_noise}: the pose of the first input camera gets"
            f" no noise, and protocol {protocol} has no other input camera; set pose_noise to 0.0"
        )


def add_pose_noise(batch: Batch, scene: str, item: Item) -> Batch:
    """Return a batch of one scene in which all input cameras but the first have noisy poses.

    Each camera is rotated about its own position by a rotation vector (radians) and moved (units of
    the world), much as by `camera_noise` in autonomousvision/gta. The six numbers have a normal
    distribution with deviation `item.pose_noise`. They are hashes of the scene's name and the
    view, so they are always the same.

    Args:
        scene: its name.
    """
    # Three numbers of each view rotate, and three move. The first camera stays exact.
    numbers = torch.tensor([_normal_numbers(f"{scene}/{view}") for view in item.inputs])
    noise = item.pose_noise * numbers.to(batch.image_origins)  # (v, 6)
    noise[0] = 0

    # The matrix exponential of a rotation vector's cross-product matrix is the rotation.
    x, y, z = noise[:, :3].unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=1).view(-1, 3, 3)
    rotations = torch.linalg.matrix_exp(cross)  # (v, 3, 3)
    directions = torch.einsum("vij,bvhwj->bvhwi", rotations, batch.image_directions)

    origins = batch.image_origins + noise[:, 3:]  # (1, v, 3)
    return dataclasses.replace(batch, image_origins=origins, image_directions=directions)


def _normal_numbers(text: str) -> list[float]:
    """Return six numbers that look independent and normally distributed, computed from the text."""
    # The quantiles of the normal distribution turn uniform numbers in (0, 1) into normal ones.
    integers = struct.unpack(">6I", hashlib.sha256(text.encode()).digest()[:24])
    return [NormalDist().inv_cdf((integer + 0.5) / 2**32) for integer in integers]
