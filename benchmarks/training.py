"""Measures training steps of the published settings on one GPU: time, memory, share of its peak.

    python -m benchmarks.training --out reports/training.json [--settings nmr_srt msn_srt]
    python -m benchmarks.training --cards 8 16 24 40 80 --out reports/cards.json

A step is sampling, forward, backward and optimiser. A figure is the median of several steps.
`plain` is the published algorithm in the same run (benchmarks/plain.py).

Model FLOPs are those of the published algorithm: three times those of its forward pass. So the
share of the peak does not depend on how much our algorithm saves.

With --cards, the memory is restricted to that of smaller cards.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command_line import make_parser
from benchmarks.packed import write_packed
from benchmarks.plain import plainly
from srt.common.distributed import Processes
from srt.common.files import write_atomically
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.batch import Batch
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.model import inference
from srt.model.srt import SRT
from srt.training import cuda_graph, loop
from srt.training.state import TrainingState
from workflow import REPOSITORY

ALONE = Processes(0, 1, torch.device("cuda"), None)

# Scenes of a step. The rays of a scene are as published.
SETTINGS = {
    "nmr_srt": 256,
    "msn_srt": 64,
    "msn_isrt": 24,
    "nmr_vsrt": 32,
}

# The whole published batch, for which the published code needs several GPUs.
WHOLE_BATCH = ("msn_srt", 256)

# Steps after which everything is compiled and recorded.
COMPILING = 5

# Steps that are timed: of ours (fast), of the published algorithm, and with --cards.
STEPS = {True: 20, False: 3}
CARD_STEPS = 6

# More batches than any measurement needs.
ENDLESS = 10**9


def time_steps(step: Callable[[], Any], steps: int) -> dict[str, float]:
    """Return the milliseconds of a step, the seconds of the first steps, and the peak memory."""
    # The first steps compile. The published algorithm, with few steps, needs only one.
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(COMPILING if steps > 5 else 1):
        step()
    torch.cuda.synchronize()
    first = time.perf_counter() - start

    # As in training, nothing waits for the device between steps.
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    times = [begin.elapsed_time(end) for begin, end in itertools.pairwise(marks)]
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "start_s": first,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def measure_training(
    experiment: Experiment, scenes: Scenes, fast: bool, steps: int | None = None
) -> dict[str, float]:
    """Return the figures of `time_steps`, and the model's FLOPs.

    Args:
        fast: as we train on a GPU, and not as published.
    """
    # Free the memory of the training before.
    gc.collect()
    torch.cuda.empty_cache()
    state = TrainingState(experiment, ALONE.device)
    sampler = loop.make_sampler(experiment, ALONE)
    model, feed = state.model, iterate_batches(sampler, scenes, 0, ENDLESS)
    rays = experiment.train.rays_per_group
    if fast:
        compute_step = cuda_graph.make_step(model, ALONE.device, rays)
    else:
        compute_step = cuda_graph.plain_step(model, rays)

    def step() -> None:
        loop.train_step(state, compute_step, next(feed), 1e-4)
        state.step += 1

    # FLOPs are counted in either case.
    with contextlib.nullcontext() if fast else plainly():
        figures = time_steps(step, steps or STEPS[fast])
        figures["flops"] = model_flops(model, sampler.batch(scenes, 0))
    torch.compiler.reset()
    return figures


def model_flops(model: SRT, batch: Batch) -> float:
    """Return the operations of the published algorithm for a training step with this batch."""
    # Tensors on the device "meta" have shapes and no content, so counting costs nothing.
    tensors: Any = {name: value[:1].to("meta") for name, value in batch.tensors().items()}
    scene = dataclasses.replace(batch, **tensors)
    meta_model = copy.deepcopy(model).to("meta")
    with plainly(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        tokens = meta_model.encode(scene.images, scene.image_origins, scene.image_directions)
        meta_model.decode(meta_model.decoder.scene_keys_values(tokens), scene.rays)

    # The backward pass has twice the operations of the forward pass.
    return 3.0 * counter.get_total_flops() * len(batch.images)


def matrix_peak() -> float:
    """Return the FLOP/s that the GPU reaches in a large bfloat16 product of random matrices."""
    factor = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    figures = time_steps(lambda: factor @ factor, 20)
    return 2 * 8192**3 / figures["median_ms"] * 1000


def with_size(experiment: Experiment, scenes: int, rays_per_group: int | None) -> Experiment:
    """Return the experiment with another batch size and another number of rays in a group."""
    changes: dict[str, Any] = {"batch_size": scenes, "rays_per_group": rays_per_group}
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **changes))


def paper(name: str) -> Experiment:
    """Return an experiment of profile paper."""
    return load_experiment(REPOSITORY / "params.yaml", name, "paper")


def packed_scenes(folder: Path, experiment: Experiment, count: int) -> Scenes:
    """Return drawn scenes in the sizes of an experiment's dataset, on the GPU."""
    dataset, path = experiment.dataset, folder / experiment.dataset_name
    if not path.exists():
        write_packed(path, count, dataset.views, dataset.image_size, "raw")
    return Scenes(path, ALONE.device)


def compare(
    folder: Path, names: list[str], groups: list[int | None], plain: bool
) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting and each way to train."""
    cases = [(name, SETTINGS.get(name, paper(name).train.batch_size), True) for name in names]
    if WHOLE_BATCH[0] in names:
        cases.append((*WHOLE_BATCH, False))
    for name, scenes, with_plain in cases:
        experiment = paper(name)
        data = packed_scenes(folder, experiment, 512)
        for rays in groups:
            group = rays or inference.queries_that_fit(ALONE.device)
            figures = measure_training(with_size(experiment, scenes, group), data, fast=True)
            yield {"setting": name, "scenes": scenes, "way": f"ours, {group}", **figures}

        # The published algorithm decodes all rays at once.
        if plain and with_plain:
            figures = measure_training(with_size(experiment, scenes, 10**12), data, fast=False)
            yield {"setting": name, "scenes": scenes, "way": "plain", **figures}


def row_text(row: dict[str, Any]) -> str:
    """Return a row of results as text."""
    if "card_gb" in row:
        return str({key: value for key, value in row.items() if key != "flops"})
    teraflops = row["flops"] / row["median_ms"] / 1e9
    return (
        f"{row['setting']:9} {row['scenes']:4} {row['way']:14} {row['median_ms']:8.1f} ms"
        f" ({row['min_ms']:.1f} to {row['max_ms']:.1f}) {row['peak_gb']:6.1f} GB"
        f" {teraflops:6.0f} TFLOP/s, started in {row['start_s']:.0f} s"
    )


def measure_cards(folder: Path, names: list[str], sizes: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each published setting and card. The allocator may use the card's memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    for name in names:
        experiment = paper(name)
        data = packed_scenes(folder, experiment, 512)
        row: dict[str, Any] = {}
        for size in sizes:
            # The driver and the libraries need some of a card's memory.
            room = 0.94 * size * 1e9
            torch.cuda.set_per_process_memory_fraction(room / total)
            group = inference.queries_for_memory(int(room - torch.cuda.memory_allocated()))

            # With the same groups as on a smaller card, the time is the same as well.
            if "median_ms" in row and row["rays_per_group"] == group:
                row = row | {"card_gb": size}
                yield row
                continue
            row = {"setting": name, "card_gb": size, "rays_per_group": group}
            try:
                sized = with_size(experiment, experiment.train.batch_size, group)
                row |= measure_training(sized, data, fast=True, steps=CARD_STEPS)
            except torch.cuda.OutOfMemoryError:
                row["out_of_memory"] = True
            yield row
            torch.compiler.reset()


def main() -> None:
    """Print a table, and write JSON after each of its rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--rays-per-group", type=int, nargs="*", default=[None])
    parser.add_argument("--cards", type=int, nargs="*", default=[])
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    torch.backends.cudnn.benchmark = True
    peak = matrix_peak()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {peak / 1e12:.0f} TFLOP/s")
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "matrix_flops": peak}
    results |= {"torch": torch.__version__, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder, groups, plain = Path(name), arguments.rays_per_group, not arguments.no_plain
        rows = (
            measure_cards(folder, arguments.settings, arguments.cards)
            if arguments.cards
            else compare(folder, arguments.settings, groups, plain)
        )

        # The file is complete after each row, because a measurement takes long.
        for row in rows:
            if "median_ms" in row:
                row["share_of_peak"] = row["flops"] / row["median_ms"] * 1000 / peak
            print(row_text(row), flush=True)
            results["rows"].append(row)
            write_atomically(arguments.out, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
