"""The figures of a report: learning curves, quality against compute, PSNR by class.

Each function draws one figure of all runs. A model has the same colour in all figures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from srt.common.shapes import Float, UInt8
from srt.report.tables.classes import comparable_results, published_class
from srt.results.curves import Curve
from srt.results.records import Measures, ProtocolScores
from srt.results.runs import Run, group_by_dataset
from srt.visualization.plots import COLOURS, LINE_STYLES, MARKERS, figure_pixels

# A curve has at most so many points: noise that is wider than the line would hide other lines.
POINTS_PER_LINE = 100

# The bars of a class take so much of its space, but a single bar is no wider than WIDEST_BAR.
BARS_WIDTH = 0.8
WIDEST_BAR = 0.3

# With more bars the numbers above them would overlap; with more classes their names would.
LABELLED_BARS = 40
LEVEL_NAMES = 8


def learning_curves(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the PSNR by step and by time, a row of panels for each dataset.

    A training does not write when each step was, so its time is spread evenly over its steps.
    """
    from matplotlib.ticker import EngFormatter

    groups = group_by_dataset(runs)
    models = model_names(runs)

    def draw(panels: Any) -> None:
        # A dataset has a row of two panels, and each of its runs a colour in both.
        for (data, group), (by_step, by_time) in zip(groups.items(), panels, strict=True):
            for run in group:
                style = _line_style(models.index(run.model))
                minutes_per_step = run.training.seconds / 60 / run.training.steps
                _draw_curve(by_step, run, 1.0, style)
                _draw_curve(by_time, run, minutes_per_step, style)

            # Both panels of a row share the y axis. Steps are written as `20k`.
            by_step.set_ylim(bottom=_lower_limit(group))
            by_step.set_ylabel(f"{data}\nPSNR (dB)")
            by_step.xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[-1][0].set_xlabel("step")
        panels[-1][1].set_xlabel("minutes of training")

    rows = len(groups)
    title = f"Learning curves, profile {profile}"
    return figure_pixels(title, 1.2 + 2.0 * rows, draw, rows=rows, sharey="row", squeeze=False)


def _lower_limit(group: Sequence[Run]) -> float:
    """Return the lower end of the y axis, a little below all curves after a tenth of their steps.

    The steep climb before would take most of the panel's height.
    """
    later_values = []
    for run in group:
        start = run.training.steps / 10
        for curve in (run.history.train_psnr, run.history.validation_psnr):
            later_values += [value for step, value in curve if step >= start]
    return min(later_values) - 0.5


def _draw_curve(axes: Any, run: Run, scale: float, style: dict[str, Any]) -> None:
    """Draw a run's curves: the training's thin, the validation's thick.

    Args:
        scale: what a step is on the x axis.
    """
    lines = (
        (run.history.train_psnr, 0.8, 0.55, None),
        (run.history.validation_psnr, 2.0, 1.0, run.model.upper()),
    )
    for curve, width, alpha, label in lines:
        steps, values = moving_average(curve, POINTS_PER_LINE).T
        axes.plot(scale * steps, values, **style, linewidth=width, alpha=alpha, label=label)

    # A ring is around the step whose weights were selected and measured.
    best_step = run.training.best_step
    best_psnr = dict(run.history.validation_psnr)[best_step]
    ring = {"markeredgewidth": 1.8, "markerfacecolor": "white", "markersize": 7}
    axes.plot(scale * best_step, best_psnr, "o", color=style["color"], zorder=3, **ring)


def quality_by_compute(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the test PSNR against operations, time to render and time to train.

    A mark is a run: its colour is the model and its form the dataset.
    """
    groups = group_by_dataset(runs)
    models = model_names(runs)
    costs: list[tuple[str, Callable[[Run], float]]] = [
        ("GFLOP for a scene and a frame", lambda run: _operations(run) / 1e9),
        ("milliseconds to render a frame", lambda run: 1000 * run.costs.frame_seconds),
        ("minutes of training", lambda run: run.training.seconds / 60),
    ]

    def draw(panels: Any) -> None:
        # All panels show the same quality, each by another cost.
        for axes, (name, cost) in zip(panels[0], costs, strict=True):
            for group, marker in zip(groups.values(), itertools.cycle(MARKERS)):
                _draw_quality(axes, group, cost, models, marker)
            _set_log_axis(axes, [cost(run) for run in runs])
            axes.set_xlabel(name)

        # Empty lines put the colours of the models and the forms of the datasets into the legend.
        first = panels[0][0]
        for name in models:
            first.plot([], [], "o", color=_colour(models, name), label=name.upper())
        for data, marker in zip(groups, itertools.cycle(MARKERS)):
            first.plot([], [], marker, color="0.5", label=data)
        first.set_ylabel("test PSNR (dB)")

    title = f"Quality against compute, profile {profile}"
    return figure_pixels(title, 4.6, draw, columns=3, sharey=True, squeeze=False)


def _draw_quality(
    axes: Any,
    group: Sequence[Run],
    cost: Callable[[Run], float],
    models: Sequence[str],
    marker: str,
) -> None:
    """Draw a dataset's runs, and a line through those that no cheaper run reaches."""
    by_cost = sorted(group, key=cost)
    points = [(cost(run), _quality(run)) for run in by_cost]
    axes.plot(*zip(*pareto_front(points)), color="0.75", zorder=1)
    for run, point in zip(by_cost, points, strict=True):
        axes.plot(*point, marker, color=_colour(models, run.model), markersize=8)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front: the points whose quality no cheaper point reaches.

    Args:
        points: cost and quality, sorted by cost.
    """
    optimal: list[tuple[float, float]] = []
    for cost, quality in points:
        if not optimal or quality > optimal[-1][1]:
            optimal.append((cost, quality))
    return optimal


def _set_log_axis(axes: Any, values: Sequence[float]) -> None:
    """Make x logarithmic, with few and plain numbers whatever range the values have."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, 2 * max(values))

    # Powers of ten alone would be too few numbers for a range of less than two of them.
    narrow = max(values) < 100 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def class_bars(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the test PSNR of each class, a panel for each dataset, with published figures as marks.

    Every dataset is measured by its last protocol, which published classes are of, too.
    """
    # Datasets whose scenes are all of one class have no panel.
    groups = {
        data: group
        for data, group in group_by_dataset(runs).items()
        if all(len(last_protocol_scores(run).classes) > 1 for run in group)
    }
    models = model_names(runs)

    def draw(panels: Any) -> None:
        for axes, (data, group) in zip(panels[:, 0], groups.items()):
            _draw_classes(axes, group, models)
            axes.set_title(f"{data}, protocol {group[0].metrics.last_protocol}", fontsize="medium")
            axes.set_ylabel("PSNR (dB)")

        # The file of the figure must exist in any case, for it is an output of the stage.
        if not groups:
            panels[0][0].set_axis_off()
            panels[0][0].text(0.5, 0.5, "No dataset has more than one class.", ha="center")

    title = f"Test PSNR by class, profile {profile}"
    rows = max(1, len(groups))
    return figure_pixels(title, 1.2 + 2.4 * rows, draw, rows=rows, columns=1, squeeze=False)


def _draw_classes(axes: Any, group: Sequence[Run], models: Sequence[str]) -> None:
    """Draw a dataset's classes side by side: a bar for each run, a mark for each publication."""
    # The bars of a class are centred on its number. A class that a run does not have is nan.
    names = class_names(group)
    width = min(WIDEST_BAR, BARS_WIDTH / len(group))
    for number, run in enumerate(group):
        offset = (number - (len(group) - 1) / 2) * width
        measured = last_protocol_scores(run).classes
        heights = _bar_heights([measured.get(name) for name in names])
        centres = np.arange(len(names)) + offset
        colour = _colour(models, run.model)
        bars = axes.bar(centres, heights, width * 0.92, color=colour, label=run.model.upper())
        if len(names) * len(group) <= LABELLED_BARS:
            axes.bar_label(bars, fmt="%.1f", fontsize="small", padding=1)

    # A published result is a diamond in the middle of each class.
    for result in comparable_results(group, group[0].metrics.last_protocol):
        heights = _bar_heights([published_class(result, name) for name in names])
        label = f"{result.method} (published)"
        axes.plot(heights, "D", color="black", markerfacecolor="white", markersize=7, label=label)

    # A name may list synonyms, of which the first is enough for a label.
    labels = [name.split(",")[0] for name in names]
    turned = {"rotation": 30, "ha": "right"} if len(names) > LEVEL_NAMES else {}
    axes.set_xticks(range(len(names)), labels, **turned)
    axes.grid(visible=False, axis="x")


def _bar_heights(classes: Sequence[Measures | None]) -> list[float]:
    """Return the PSNR of each class, or nan, which matplotlib leaves out."""
    # A run or a publication may lack the class.
    return [math.nan if measures is None else measures.psnr for measures in classes]


def moving_average(curve: Curve, points: int) -> Float[np.ndarray, "points 2"]:
    """Return steps and values of a curve, averaged over neighbours until at most `points` are left.

    Averaging the steps as well keeps a straight line where it is.
    """
    array = np.reshape(curve, (-1, 2))
    if len(array) == 0:
        return array

    # Groups of equally many neighbours are averaged. The last group may be smaller.
    neighbours = math.ceil(len(array) / points)
    starts = np.arange(0, len(array), neighbours)
    counts = np.diff(starts, append=len(array))
    return np.add.reduceat(array, starts) / counts[:, None]


def model_names(runs: Sequence[Run]) -> list[str]:
    """Return the models of all runs. A model's index in this list chooses its colour."""
    return list(dict.fromkeys(run.model for run in runs))


def last_protocol_scores(run: Run) -> ProtocolScores:
    """Return what a run measured by its last protocol."""
    return run.metrics.protocols[run.metrics.last_protocol]


def class_names(group: Sequence[Run]) -> list[str]:
    """Return the classes of a dataset's runs, sorted."""
    return sorted({name for run in group for name in last_protocol_scores(run).classes})


def _operations(run: Run) -> float:
    """Return the operations to encode a scene and render one frame."""
    return float(run.metrics.costs.encode_flops + run.metrics.costs.frame_flops)


def _quality(run: Run) -> float:
    """Return a run's PSNR by its first protocol, which all experiments share."""
    return run.metrics.protocols[run.metrics.first_protocol].psnr


def _line_style(model: int) -> dict[str, Any]:
    return {
        "color": COLOURS[model % len(COLOURS)],
        "linestyle": LINE_STYLES[model % len(LINE_STYLES)],
    }


def _colour(models: Sequence[str], model: str) -> str:
    return COLOURS[models.index(model) % len(COLOURS)]
