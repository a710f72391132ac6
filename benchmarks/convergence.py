"""The same training in float32 as published and as we run it on a GPU: validation PSNR by step.

    python -m benchmarks.convergence --data data/quick/packed/nmr --steps 1200 --out reports

Writes convergence.json and convergence.png. The setting is profile quick's nmr_srt, longer.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.plain import plainly
from benchmarks.training import ALONE, ROOT
from srt import gradients, training
from srt.config import Experiment
from srt.data.loading import batches
from srt.data.scenes import Scenes
from srt.params import load_experiment
from srt.schedule import learning_rate
from srt.training_state import Training

POINTS = 8  # of a curve
ITEMS = 128  # measured at each


def curve(experiment: Experiment, data: training.Data, fast: bool) -> dict[str, Any]:
    """Returns steps and validation PSNR of one way to train."""
    state, train = Training(experiment, ALONE.device), experiment.train
    sampler = training.make_sampler(experiment, ALONE)
    points, began = [], time.perf_counter()
    with contextlib.nullcontext() if fast else plainly():
        decoder = state.model.decoder
        decode = gradients.compiled_decoder(state.model, ALONE.device) if fast else decoder
        for batch in batches(sampler, data.train, 0, train.steps):
            rate = learning_rate(state.step, train)
            training.train_step(state, decode, batch, rate)
            state.step += 1
            if state.step % train.validate_every == 0:
                points.append((state.step, training.measure_validation(state, data, ALONE)))
    return {"points": points, "seconds": time.perf_counter() - began}


def draw(curves: dict[str, Any], path: Path) -> None:
    """Draws both curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, way in curves.items():
        axes.plot(*zip(*way["points"]), label=name, marker="o", markersize=3)
    axes.set(
        xlabel="step", ylabel="validation PSNR, dB", title="nmr_srt, profile quick (synthetic)"
    )
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Prints the curves, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    experiment, steps = load_experiment(ROOT / "params.yaml", "nmr_srt", "quick"), arguments.steps
    changes: dict[str, Any] = {"validate_every": steps // POINTS, "validation_items": ITEMS}
    train = dataclasses.replace(experiment.train, steps=steps, decay_steps=steps, **changes)
    data = training.Data(
        *(Scenes(arguments.data / part, ALONE.device) for part in ("train", "val"))
    )
    curves = {}
    for seed in arguments.seeds:
        seeded = dataclasses.replace(experiment, train=train, seed=seed)
        for name, fast in (("float32, as published", False), ("ours on a GPU", True)):
            curves[f"{name}, seed {seed}"] = curve(seeded, data, fast)
            print(name, seed, curves[f"{name}, seed {seed}"], flush=True)
    (arguments.out / "convergence.json").write_text(json.dumps(curves, indent=1) + "\n")
    draw(curves, arguments.out / "convergence.png")


if __name__ == "__main__":
    main()
