"""The figures of a report: learning curves, and the runs' comparisons below each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from srt.pictures import tile
from srt.shapes import Float, UInt8
from srt.tables import Curve, Run

# Okabe and Ito's palette without its yellow, which is lost on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")  # tell the runs apart where colours do not
WIDTH = 10  # inches
DOTS_PER_INCH = 150
HEADING = 26  # pixels, the size of the text above each run's comparison
POINTS = 200  # of a line at most: noise that is drawn thicker than its lines hides them
PANELS = {
    "validation_psnr": "validation, full images (ring: the selected model)",
    "train_psnr": "training, sampled rays",
}


def learning_curves(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the PSNR by step on validation and training scenes, a ring at the selected model."""
    from matplotlib.ticker import EngFormatter

    def draw(panels: Any) -> None:
        for (key, title), axes in zip(PANELS.items(), panels, strict=True):
            _draw_lines(axes, runs, key)
            axes.set_title(title, fontsize="medium")
            axes.set_xlabel("step")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[0].set_ylabel("PSNR (dB)")

    title = f"Learning curves, profile {profile}{_scenes(runs)}"
    return figure_pixels(title, 4.4 + 0.1 * len(runs), draw, sharex=True, sharey=True)


def figure_pixels(
    title: str, height: float, draw: Callable[[Any], None], count: int = 2, **subplots: Any
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns panels in the reports' style, with one legend below.

    Args:
        height: in inches.
        draw: is given the panels' axes.
        count: of panels, side by side.
        subplots: what matplotlib's `subplots` is to know.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        panels = figure.subplots(1, count, **subplots)
        draw(panels)
        for axes in panels:
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_lines(axes: Any, runs: Sequence[Run], key: str) -> None:
    for index, run in enumerate(runs):
        steps, values = averaged(run.history[key], POINTS).T
        colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        axes.plot(steps, values, line, color=colour, linewidth=1.6, label=run.label)
        if key == "validation_psnr":
            best = run.training["best_step"]
            ring = {"markeredgewidth": 1.8, "markerfacecolor": "white", "markersize": 7}
            height = dict(run.history[key])[best]
            axes.plot(best, height, "o", color=colour, zorder=3, **ring)


def averaged(curve: Curve, points: int) -> Float[np.ndarray, "points 2"]:
    """Returns steps and values, as means of so many neighbours that few enough points are left."""
    array = np.reshape(curve, (-1, 2))
    neighbours = math.ceil(len(array) / points)
    starts = np.arange(0, len(array), max(neighbours, 1))
    counts = np.diff(starts, append=len(array))
    return np.add.reduceat(array, starts) / counts[:, None] if len(array) else array


def qualitative(
    runs: Sequence[Run], pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], profile: str
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the runs' comparisons below each other, each under the run's name."""
    parts = []
    for run, picture in zip(runs, pictures, strict=True):
        parts += [_heading(f"{run.label}, profile {profile}", picture.shape[1]), picture]
    return tile(parts, axis=0)


def _scenes(runs: Sequence[Run]) -> str:
    """Returns what a title must add about the data."""
    synthetic = {run.metrics["synthetic"] for run in runs}
    return {(True,): ", synthetic scenes", (False,): ""}.get(tuple(synthetic), ", partly synthetic")


def _heading(text: str, width: int) -> UInt8[np.ndarray, "_ {width} 3"]:
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, 2 * HEADING), "white")
    font = ImageFont.load_default(HEADING)
    ImageDraw.Draw(strip).text((8, 1.3 * HEADING), text, "black", font, anchor="lm")
    return np.asarray(strip)
