"""Measures whether a GPU waits for data: the time of a step with loaded batches and with one batch.

    python -m benchmarks.feeding

`nmr_srt` (256 scenes a step) reads a data set on the device, `msn_srt` (64 scenes) one on disk, raw
and compressed. The files have just been written, so they are in the page cache. A figure is the
median of several rounds. As in training, the host waits for the GPU only at the end of a round.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import make_parser
from benchmarks.packed import write_packed
from srt.common.distributed import Processes
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.batch import Batch
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches, reader_thread_count
from srt.training import cuda_graph, loop
from srt.training.state import TrainingState
from workflow import REPOSITORY

ROUNDS = 5
ALONE = Processes(0, 1, torch.device("cuda"), None)


def step_time(experiment: Experiment, feed: Iterator[Batch], steps: int) -> float:
    """Return the milliseconds of a training step, the median of rounds of so many steps."""
    state = TrainingState(experiment, ALONE.device)
    compute_step = cuda_graph.make_step(state.model, ALONE.device, experiment.train.rays_per_group)
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for batch in itertools.islice(feed, steps):
            loop.train_step(state, compute_step, batch, 1e-4)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / steps)

    # The first round compiles.
    return 1e3 * statistics.median(times[1:])


def compare(experiment: Experiment, scenes: Scenes, steps: int) -> dict[str, Any]:
    """Return the time of a step with one batch again and again, and with loaded batches."""
    sampler = loop.make_sampler(experiment, ALONE)
    fixed = step_time(experiment, itertools.repeat(sampler.batch(scenes, 0)), steps)
    real = step_time(experiment, iterate_batches(sampler, scenes, 0, 10**6), steps)
    rate = experiment.train.batch_size / real * 1e3
    return {"fixed_ms": fixed, "loaded_ms": real, "ratio": real / fixed, "scenes_per_s": rate}


def main() -> None:
    """Print a table and, as the last line, JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--msn-scenes", type=int, default=6000)
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "threads": reader_thread_count(),
    }
    with tempfile.TemporaryDirectory() as folder:
        # NMR is small enough for the device.
        nmr = load_experiment(REPOSITORY / "params.yaml", "nmr_srt", "paper")
        packed = write_packed(Path(folder) / "nmr", 512, nmr.dataset.views, (64, 64), "raw")
        results["NMR, resident"] = compare(nmr, Scenes(packed, ALONE.device), arguments.steps)

        # MSN is read from disk.
        msn = load_experiment(REPOSITORY / "params.yaml", "msn_srt", "paper")
        train = dataclasses.replace(msn.train, batch_size=64)
        msn = dataclasses.replace(msn, train=train)
        for storage, count in (("raw", arguments.msn_scenes), ("compressed", 1000)):
            packed = write_packed(Path(folder) / storage, count, 10, (128, 128), storage)
            scenes = Scenes(packed, ALONE.device, resident=False)
            results[f"MSN, {storage}"] = compare(msn, scenes, arguments.steps)
            torch.cuda.empty_cache()

    for name, figures in results.items():
        if isinstance(figures, dict):
            print(f"{name:20}", *(f"{key} {value:.3f}" for key, value in figures.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
