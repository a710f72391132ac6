"""Compares a training in float32, as published, with the same training as we run it on a GPU.

    python -m benchmarks.convergence --data data/quick/packed/nmr --steps 1200 --out reports

Writes the validation PSNR by step to convergence.json and convergence.png. The experiment is
nmr_srt of profile quick, with more steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.command_line import make_parser
from benchmarks.plain import plainly
from benchmarks.training import ALONE
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.training import cuda_graph, loop, monitoring
from srt.training.loop import learning_rate
from srt.training.state import TrainingState
from workflow import REPOSITORY

POINTS = 8  # of a curve
ITEMS = 128  # that are measured at each point


def measure_curve(
    experiment: Experiment, data: monitoring.TrainingData, fast: bool
) -> dict[str, Any]:
    """Train, and return the steps and the PSNR of all validations.

    Args:
        fast: as we train on a GPU, and not as published.
    """
    state, train = TrainingState(experiment, ALONE.device), experiment.train
    sampler = loop.make_sampler(experiment, ALONE)
    points, start = [], time.perf_counter()
    with contextlib.nullcontext() if fast else plainly():
        rays = train.rays_per_group
        if fast:
            compute_step = cuda_graph.make_step(state.model, ALONE.device, rays)
        else:
            compute_step = cuda_graph.plain_step(state.model, rays)
        for batch in iterate_batches(sampler, data.train, 0, train.steps):
            rate = learning_rate(state.step, train)
            loop.train_step(state, compute_step, batch, rate)
            state.step += 1
            if state.step % train.validate_every == 0:
                points.append((state.step, monitoring.measure_validation(state, data, ALONE)))
    return {"points": points, "seconds": time.perf_counter() - start}


def draw(curves: dict[str, Any], path: Path) -> None:
    """Draw all curves, and how far ours are from the published ones."""
    from srt.visualization.pictures import write_picture
    from srt.visualization.plots import COLOURS, LINE_STYLES, figure_pixels

    ways = list(curves.values())

    def draw_panels(axes: Any) -> None:
        # Curves alternate: first the published way, then ours.
        styles = zip(COLOURS, itertools.cycle(LINE_STYLES[:2]))
        for (name, way), (colour, line) in zip(curves.items(), styles):
            axes[0].plot(*zip(*way["points"]), line, label=name, color=colour, marker="o")
        axes[0].set(xlabel="step", ylabel="validation PSNR, dB")

        # Differences within 0.1 dB are shaded.
        axes[1].axhspan(-0.1, 0.1, color="0.92")
        for plain, ours, colour in zip(ways[::2], ways[1::2], COLOURS[1::2]):
            pairs = zip(plain["points"], ours["points"])
            differences = [(step, ours - plain) for (step, plain), (_, ours) in pairs]
            axes[1].plot(*zip(*differences), color=colour, marker="o")
        axes[1].set(xlabel="step", ylabel="ours minus published, dB")

    title = "The same training in float32 and as it runs on a GPU (nmr_srt, profile quick)"
    write_picture(path, figure_pixels(title, 3.6, draw_panels))


def main() -> None:
    """Print the curves, and write them."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    # The learning rate falls over the whole training, which is validated at each point.
    experiment = load_experiment(REPOSITORY / "params.yaml", "nmr_srt", "quick")
    steps = arguments.steps
    changes: dict[str, Any] = {"validate_every": steps // POINTS, "validation_items": ITEMS}
    train = dataclasses.replace(experiment.train, steps=steps, decay_steps=steps, **changes)
    data = monitoring.TrainingData(
        Scenes(arguments.data / "train", ALONE.device), Scenes(arguments.data / "val", ALONE.device)
    )

    # Train both ways with each seed.
    curves = {}
    for seed in arguments.seeds:
        seeded = dataclasses.replace(experiment, train=train, seed=seed)
        for name, fast in (("float32, as published", False), ("ours on a GPU", True)):
            curves[f"{name}, seed {seed}"] = measure_curve(seeded, data, fast)
            print(name, seed, curves[f"{name}, seed {seed}"], flush=True)
    (arguments.out / "convergence.json").write_text(json.dumps(curves, indent=1) + "\n")
    draw(curves, arguments.out / "convergence.png")


if __name__ == "__main__":
    main()
