"""Learning curves: how far several trainings had come at the same place, a step or a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Curve = list[tuple[float, float]]  # places, which grow, and the values there


def reached_by_all(curves: Sequence[Curve]) -> float:
    """Returns the farthest place that all curves reach."""
    return min(curve[-1][0] for curve in curves)


def value_at(curve: Curve, place: float | None) -> float | None:
    """Returns a curve's value, on a straight line between its points; None outside of them."""
    if place is None or not curve[0][0] <= place <= curve[-1][0]:
        return None
    for (left, low), (right, high) in itertools.pairwise(curve):
        if left <= place < right:
            return round(low + (high - low) * (place - left) / (right - left), 6)
    return curve[-1][1]
