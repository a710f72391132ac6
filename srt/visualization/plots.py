"""The style that all figures of the reports share: colours, line styles, panels and legend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from srt.common.shapes import UInt8

# Okabe and Ito's palette without its yellow, which nobody sees on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")  # distinguish models in print without colours
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # distinguish datasets
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
    """Return a figure of panels in the reports' style, with one legend below them.

    Args:
        height: in inches.
        draw: draws on the panels; its argument is what matplotlib's `subplots` returns.
        rows, columns: the numbers of panels.
        subplots: more arguments of matplotlib's `subplots`.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A user's own settings of matplotlib must not change the reports.
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, **subplots)

        # The style comes first, so that `draw` can change it: a figure may want no grid.
        for axes in figure.axes:
            _style_axes(axes)
        draw(panels)

        # One title and one legend serve all panels.
        figure.suptitle(title)
        _add_legend(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _style_axes(axes: Any) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(figure: Any) -> None:
    """Add a legend below the panels, in which each label stands once."""
    # The panels repeat their labels; the first handle of a label represents all of them.
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)

    figure.legend(
        list(handles.values()),
        list(handles),
        frameon=False,
        loc="outside lower center",
        ncols=max(1, min(5, len(handles))),
    )
