"""Puts objects on the ground of a scene: upright, turned at random, and apart from each other.

An object is a list of solids. The ground is the plane z = 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from srt.common.shapes import Float
from srt.data.synthetic.solids import Solid, bounding_box

# All objects are within this radius around the origin. Each stands in a circle of its own, and the
# circles have a gap between them.
RADIUS = 3.2
GAP = 0.1

# So many random positions are tried for an object. If none is free, all objects become smaller.
ATTEMPTS = 100


def stand_on_ground(solids: list[Solid], size: float, rng: np.random.Generator) -> list[Solid]:
    """Return an object, scaled and turned about the z axis, with its lowest point at z = 0."""
    yaw = rng.uniform(0, 2 * math.pi)
    to_world = np.diag([size, size, size, 1.0])
    to_world[:2, :2] = size * np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    to_world[2, 3] = -size * min(bounding_box(solid)[0][2] for solid in solids)
    return _transform(solids, to_world)


def _transform(solids: Sequence[Solid], matrix: Float[np.ndarray, "4 4"]) -> list[Solid]:
    """Return the solids, moved by a map from the world to the world."""
    return [replace(solid, to_world=matrix @ solid.to_world) for solid in solids]


def spread_objects(
    objects: list[list[Solid]], rng: np.random.Generator
) -> tuple[tuple[Solid, ...], ...]:
    """Return the objects at random positions where none touches another.

    If there is no room for all of them, all become smaller.
    """
    # Each object needs a circle around its z axis. Shrink the circles until all fit.
    radii = np.array([max(_radius(solid) for solid in solids) for solids in objects])
    scale = 1.0
    while (centres := _random_centres(scale * radii, rng)) is None:
        scale *= 0.95

    # Move each object to the centre of its circle.
    spread = []
    for solids, centre in zip(objects, centres):
        to_world = np.diag([scale, scale, scale, 1.0])
        to_world[:2, 3] = centre
        spread.append(tuple(_transform(solids, to_world)))
    return tuple(spread)


def _random_centres(
    radii: Float[np.ndarray, "n"], rng: np.random.Generator
) -> Float[np.ndarray, "n 2"] | None:
    """Return centres of circles that lie apart and within RADIUS, or None if that fails."""
    centres = np.zeros((0, 2))
    for index, radius in enumerate(radii):
        # Draw candidates that are evenly spread over the disc.
        angle = rng.uniform(0, 2 * math.pi, ATTEMPTS)
        distance = (RADIUS - radius) * np.sqrt(rng.uniform(0, 1, ATTEMPTS))
        candidates = np.stack((distance * np.cos(angle), distance * np.sin(angle)), axis=1)

        # The first one that is far enough from all circles so far is the centre.
        between = candidates[:, None] - centres
        gaps = np.linalg.norm(between, axis=2) - radii[:index] - radius
        free = candidates[(gaps > GAP).all(1)]
        if not len(free):
            return None
        centres = np.concatenate((centres, free[:1]))
    return centres


def _radius(solid: Solid) -> float:
    """Return a bound of the solid's distance from the z axis, equal to it or slightly larger."""
    # A box is farthest at one of its corners.
    linear, centre = solid.to_world[:2, :3], solid.to_world[:2, 3]
    if solid.shape == "box":
        corners = np.array(list(itertools.product((-1, 1), repeat=3)))
        return float(np.linalg.norm(centre + corners @ linear.T, axis=1).max())

    # For round shapes, add the largest radius to the distance of the centre or of an end.
    if solid.shape == "sphere":
        return float(np.linalg.norm(centre) + np.linalg.norm(linear, 2))
    ends = np.linalg.norm((centre - linear[:, 2], centre + linear[:, 2]), axis=1)
    return float(ends.max() + np.linalg.norm(linear[:, :2], 2))
