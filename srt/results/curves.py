"""Learning curves, and how to compare several of them at one position on their horizontal axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

# Points (x, value) in the order of x, which is a number of steps or of seconds.
Curve = list[tuple[float, float]]


def common_end(curves: Sequence[Curve]) -> float:
    """Return the largest x that all curves reach."""
    return min(curve[-1][0] for curve in curves)


def value_at(curve: Curve, x: float | None) -> float | None:
    """Return a curve's value at `x`, or None if `x` is None or outside the curve.

    Between two points, the curve is a straight line.
    """
    if x is None or not curve[0][0] <= x <= curve[-1][0]:
        return None

    # Find the two points that x lies between, and interpolate.
    for (left_x, left_value), (right_x, right_value) in itertools.pairwise(curve):
        if left_x <= x < right_x:
            rise = (right_value - left_value) * (x - left_x) / (right_x - left_x)
            return round(left_value + rise, 6)

    # No point is to the right of x, so x is the last point.
    return curve[-1][1]
