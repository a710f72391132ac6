"""The figures of the runs: learning curves, quality against compute, classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from srt.common.shapes import Float, UInt8
from srt.report.tables.classes import published_class
from srt.report.tables.results import applies_to
from srt.results.curves import Curve
from srt.results.published_figures import Result, published_result
from srt.results.runs import Run, by_dataset
from srt.visualization.plots import COLOURS, LINES, MARKERS, figure_pixels

POINTS = 100  # of a line at most: noise that is drawn thicker than its lines hides them
LABELLED = 40  # bars at most that have their number above them
CURVES = ("train_psnr", "validation_psnr")


def learning_curves(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the PSNR by step and by time, a row a dataset.

    A training does not write when each step was: its time is spread evenly over its steps.
    """
    from matplotlib.ticker import EngFormatter

    groups, models = by_dataset(runs), models_of(runs)

    def draw(panels: Any) -> None:
        for (data, group), (by_step, by_time) in zip(groups.items(), panels, strict=True):
            for run in group:
                style = _style(models.index(run.model))
                minutes = run.training["seconds"] / 60 / run.training["steps"]
                _draw_curve(by_step, run, 1.0, style)
                _draw_curve(by_time, run, minutes, style)
            by_step.set_ylim(bottom=_floor(group))
            by_step.set_ylabel(f"{data}\nPSNR (dB)")
            by_step.xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[-1][0].set_xlabel("step")
        panels[-1][1].set_xlabel("minutes of training")

    title = f"Learning curves, profile {profile}"
    height = 1.2 + 2.0 * len(groups)
    return figure_pixels(title, height, draw, rows=len(groups), sharey="row", squeeze=False)


def _floor(group: Sequence[Run]) -> float:
    """Returns what curves reach after a tenth of their steps: the climb to it tells nothing."""
    later = [
        value
        for run in group
        for key in CURVES
        for step, value in run.history[key]
        if step >= run.training["steps"] / 10
    ]
    return min(later) - 0.5


def _draw_curve(axes: Any, run: Run, scale: float, style: dict[str, Any]) -> None:
    """Draws training thin, validation thick, and a ring at the weights that are measured."""
    for key, width, alpha in zip(CURVES, (0.8, 2.0), (0.55, 1.0), strict=True):
        steps, values = moving_average(run.history[key], POINTS).T
        label = run.model.upper() if key == "validation_psnr" else None
        axes.plot(scale * steps, values, **style, linewidth=width, alpha=alpha, label=label)
    best = run.training["best_step"]
    ring = {"markeredgewidth": 1.8, "markerfacecolor": "white", "markersize": 7}
    height = dict(run.history["validation_psnr"])[best]
    axes.plot(scale * best, height, "o", color=style["color"], zorder=3, **ring)


def quality_by_compute(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the test PSNR against operations, time to render and time to train, a mark a run.

    A line joins those of a dataset that no cheaper one reaches.
    """
    groups, models = by_dataset(runs), models_of(runs)
    costs: list[tuple[str, Callable[[Run], float]]] = [
        ("GFLOP for a scene and a frame", lambda run: _operations(run) / 1e9),
        ("milliseconds to render a frame", lambda run: 1000 * run.costs["frame_seconds"]),
        ("minutes of training", lambda run: run.training["seconds"] / 60),
    ]

    def draw(panels: Any) -> None:
        for axes, (name, cost) in zip(panels[0], costs, strict=True):
            for marker, group in zip(MARKERS * len(groups), groups.values()):
                ordered = sorted(group, key=cost)
                points = [(cost(run), _quality(run)) for run in ordered]
                axes.plot(*zip(*front(points)), color="0.75", zorder=1)
                for run, point in zip(ordered, points, strict=True):
                    axes.plot(*point, marker, color=_colour(models, run.model), markersize=8)
            _log_axis(axes, [cost(run) for run in runs])
            axes.set_xlabel(name)
        for name in models:
            panels[0][0].plot([], [], "o", color=_colour(models, name), label=name.upper())
        for marker, data in zip(MARKERS * len(groups), groups):
            panels[0][0].plot([], [], marker, color="0.5", label=data)
        panels[0][0].set_ylabel("test PSNR (dB)")

    title = f"Quality against compute, profile {profile}"
    return figure_pixels(title, 4.6, draw, columns=3, sharey=True, squeeze=False)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns those of (cost, quality), by cost, whose quality no cheaper one reaches."""
    found: list[tuple[float, float]] = []
    for cost, quality in points:
        if not found or quality > found[-1][1]:
            found.append((cost, quality))
    return found


def _log_axis(axes: Any, values: Sequence[float]) -> None:
    """Makes x logarithmic with few and plain numbers, however near or far apart the values are."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, 2 * max(values))
    few = max(values) < 100 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def class_bars(runs: Sequence[Run], profile: str) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the test PSNR of each class, a panel a dataset, published figures as marks.

    A dataset is shown by its last protocol, as the published classes are.
    """
    groups = {
        data: group
        for data, group in by_dataset(runs).items()
        if all(len(figures_of(run)["classes"]) > 1 for run in group)
    }
    models = models_of(runs)
    counts = [len(classes_of(group)) for group in groups.values()]

    def draw(panels: Any) -> None:
        for axes, (data, group) in zip(panels[:, 0], groups.items()):
            _draw_classes(axes, group, models)
            axes.set_title(f"{data}, protocol {protocol_of(group[0])}", fontsize="medium")
            axes.set_ylabel("PSNR (dB)")
        if not groups:
            panels[0][0].set_axis_off()
            panels[0][0].text(0.5, 0.5, "No dataset has more than one class.", ha="center")

    title = f"Test PSNR by class, profile {profile}"
    rows = max(1, len(counts))
    return figure_pixels(title, 1.2 + 2.4 * rows, draw, rows=rows, columns=1, squeeze=False)


def _draw_classes(axes: Any, group: Sequence[Run], models: Sequence[str]) -> None:
    names = classes_of(group)
    width = min(0.3, 0.8 / len(group))
    for number, run in enumerate(group):
        places = np.arange(len(names)) + (number - (len(group) - 1) / 2) * width
        values = [figures_of(run)["classes"].get(name, {}).get("psnr") for name in names]
        heights = [math.nan if value is None else value for value in values]
        colour = _colour(models, run.model)
        bars = axes.bar(places, heights, width * 0.92, color=colour, label=run.model.upper())
        if len(names) * len(group) <= LABELLED:
            axes.bar_label(bars, fmt="%.1f", fontsize="small", padding=1)
    for result in published_of(group):
        values = [published_class(result, name) for name in names]
        heights = [math.nan if value is None else value["psnr"] for value in values]
        style = {"color": "black", "markerfacecolor": "white", "markersize": 7}
        axes.plot(heights, "D", label=f"{result.method} (published)", **style)
    shown = [name.split(",")[0] for name in names]  # a dataset may list synonyms
    turned = {"rotation": 30, "ha": "right"} if len(names) > 8 else {}
    axes.set_xticks(range(len(names)), shown, **turned)
    axes.grid(visible=False, axis="x")


def moving_average(curve: Curve, points: int) -> Float[np.ndarray, "points 2"]:
    """Returns steps and values, as means of so many neighbours that few enough points are left."""
    array = np.reshape(curve, (-1, 2))
    neighbours = math.ceil(len(array) / points)
    starts = np.arange(0, len(array), max(neighbours, 1))
    counts = np.diff(starts, append=len(array))
    return np.add.reduceat(array, starts) / counts[:, None] if len(array) else array


def models_of(runs: Sequence[Run]) -> list[str]:
    """Returns the models' names: a place in this list is a colour in all figures."""
    return list(dict.fromkeys(run.model for run in runs))


def protocol_of(run: Run) -> str:
    """Returns the protocol that classes are shown by."""
    return list(run.metrics["protocols"])[-1]


def figures_of(run: Run) -> dict[str, Any]:
    """Returns what that protocol measured."""
    figures: dict[str, Any] = run.metrics["protocols"][protocol_of(run)]
    return figures


def classes_of(group: Sequence[Run]) -> list[str]:
    """Returns the classes of a dataset's runs, in order."""
    return sorted({name for run in group for name in figures_of(run)["classes"]})


def published_of(group: Sequence[Run]) -> list[Result]:
    """Returns the published results by class that may stand beside a dataset's runs."""
    results = [(run, published_result(run.name, protocol_of(run))) for run in group]
    return [
        result for run, result in results if result and result.classes and applies_to(result, run)
    ]


def _operations(run: Run) -> float:
    return float(run.metrics["costs"]["encode_flops"] + run.metrics["costs"]["frame_flops"])


def _quality(run: Run) -> float:
    """Returns a run's PSNR by its first protocol, which all experiments share."""
    return float(next(iter(run.metrics["protocols"].values()))["psnr"])


def _style(model: int) -> dict[str, Any]:
    return {"color": COLOURS[model % len(COLOURS)], "linestyle": LINES[model % len(LINES)]}


def _colour(models: Sequence[str], model: str) -> str:
    return COLOURS[models.index(model) % len(COLOURS)]
