"""One training step of a published setting: milliseconds and peak GPU memory, ours and plain.

    python -m benchmarks.training --experiment nmr_srt

`plain` is the published algorithm in the same run: float32, attention with materialised scores, all
rays at once. Each figure is the median of several steps on drawn images; sampling is included.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.packed import write_packed
from srt import gradients, training
from srt.config import Experiment
from srt.data.scenes import Scenes
from srt.distributed import Processes
from srt.params import load_experiment

ROOT = Path(__file__).parents[1]
ALONE = Processes(0, 1, torch.device("cuda"), None)


def materialised_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns attention with its scores written to memory, as published."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1) @ value


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Switches off what we do for speed, but for the code around it."""
    with (
        mock.patch("torch.nn.functional.scaled_dot_product_attention", materialised_attention),
        mock.patch.object(gradients, "precision", return_value=contextlib.nullcontext()),
    ):
        yield


def time_steps(step: Callable[[], Any], steps: int) -> dict[str, float]:
    """Returns median, fastest and slowest milliseconds, the first step's seconds, peak memory."""
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    for _ in range(3):
        step()
    times = []
    for _ in range(steps):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "first_step_s": first,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def run(experiment: Experiment, scenes: Scenes, fast: bool, steps: int) -> dict[str, float]:
    """Returns the figures of one way to train."""
    if not fast:
        whole = dataclasses.replace(experiment.train, rays_per_group=10**12)
        experiment = dataclasses.replace(experiment, train=whole)
    state = training.Training(experiment, ALONE.device)
    sampler = training.make_sampler(experiment, ALONE)
    model = state.model
    decode = gradients.compiled_decoder(model, ALONE.device) if fast else model.decoder

    def step() -> None:
        batch = sampler.batch(scenes, state.step)
        training.train_step(state, decode, batch, 1e-4, ALONE)
        state.step += 1

    return time_steps(step, steps)


def main() -> None:
    """Prints a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="nmr_srt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rays-per-group", type=int, nargs="*", default=[])
    parser.add_argument("--no-plain", action="store_true")
    arguments = parser.parse_args()
    experiment = load_experiment(ROOT / "params.yaml", arguments.experiment, "paper")
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        dataset, count = experiment.dataset, 2 * experiment.train.batch_size
        packed = write_packed(
            Path(folder) / "train", count, dataset.views, dataset.image_size[0], "raw"
        )
        scenes = Scenes(packed, ALONE.device)
        for rays in arguments.rays_per_group or [experiment.train.rays_per_group]:
            train = dataclasses.replace(experiment.train, rays_per_group=rays)
            grouped = dataclasses.replace(experiment, train=train)
            results[f"ours, {rays} rays"] = run(grouped, scenes, True, arguments.steps)
            torch.cuda.empty_cache()
        if not arguments.no_plain:
            with plainly():
                results["plain"] = run(experiment, scenes, False, arguments.steps)
    for name, figures in results.items():
        if isinstance(figures, dict):
            print(f"{name:24}", *(f"{key} {value:.1f}" for key, value in figures.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
