"""The style that all figures share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from srt.common.shapes import UInt8

# Okabe and Ito's palette without its yellow, which is lost on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")  # tell models apart where colours do not
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # and datasets
WIDTH = 10  # inches
DOTS_PER_INCH = 150


def figure_pixels(
    title: str,
    height: float,
    draw: Callable[[Any], None],
    rows: int = 1,
    columns: int = 2,
    **subplots: Any,
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns panels in the reports' style, with one legend below.

    Args:
        height: in inches.
        draw: is given the panels' axes.
        rows: of panels.
        columns: of panels.
        subplots: what matplotlib's `subplots` is to know.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, **subplots)
        for axes in figure.axes:  # before they are drawn on: a figure may want no grid
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        draw(panels)
        named: dict[str, Any] = {}
        for axes in figure.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
        figure.suptitle(title)
        place: Any = {"loc": "outside lower center", "ncols": max(1, min(5, len(named)))}
        figure.legend(list(named.values()), list(named), frameon=False, **place)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
