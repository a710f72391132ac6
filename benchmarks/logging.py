"""Measures how long logging takes in a training loop, with stores of MLflow that work or fail.

    python -m benchmarks.logging

Each step computes for a few milliseconds and logs what training logs. A delivery starts every
`--every` steps, as at a saved state, and the machine's load is logged. `call` is the time of the
logging calls, `step` that of the whole step, which the thread of a delivery may slow down.

Deliveries go to a new SQLite store (`sqlite`), to an address where nothing listens (`away`), and to
a server that accepts connections and never answers (`hung`). `none` logs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import make_parser
from srt.tracking.delivery import deliver
from srt.tracking.tracker import Tracker, open_tracker

KEYS = ("mse", "psnr", "learning_rate", "gradient_norm", "seconds")


def measure(tracker: Tracker, steps: int, every: int, size: int) -> dict[str, float]:
    """Return milliseconds of calls and steps: medians, means, 99th percentile and maximum."""
    matrix = torch.rand(size, size)
    calls, whole = [], []
    for step in range(1, steps + 1):
        start = time.perf_counter()
        value = (matrix @ matrix).mean().item()
        computed = time.perf_counter()
        tracker.log_metrics({f"train/{key}": value for key in KEYS}, step)
        if step % every == 0:
            tracker.release()
            tracker.deliver_in_background()
        end = time.perf_counter()
        calls.append(1e3 * (end - computed))
        whole.append(1e3 * (end - start))
    return {
        "call_median": statistics.median(calls),
        "call_mean": statistics.fmean(calls),
        "call_99th": statistics.quantiles(calls, n=100)[98],
        "call_longest": max(calls),
        "step_median": statistics.median(whole),
        "step_mean": statistics.fmean(whole),
    }


@contextlib.contextmanager
def open_store(state: str, root: Path) -> Iterator[str]:
    """Yield the address of a store in this state."""
    # A socket that is bound but does not listen refuses connections.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if state == "hung":
            server.listen(16)
        port = server.getsockname()[1]
        yield f"sqlite:///{root}/mlflow.db" if state == "sqlite" else f"http://127.0.0.1:{port}"


def measure_store(state: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the figures of a loop that logs to a store in this state."""
    options = (arguments.steps, arguments.every, arguments.size)
    if state == "none":
        return measure(Tracker(), *options)
    with tempfile.TemporaryDirectory() as folder, open_store(state, Path(folder)) as address:
        os.environ["MLFLOW_TRACKING_URI"] = address
        root = Path(folder)
        names = {"experiment": "benchmark", "run_name": state, "description": ""}
        tracker = open_tracker(root / "tracking", root=root, **names, tags={}, parameters={})

        # The first delivery creates the tables, which takes seconds.
        if state == "sqlite":
            deliver(root / "tracking", root)
        tracker.watch_machine(interval=1)
        figures = measure(tracker, *options)
        tracker.close("FINISHED", timeout=1 if state == "hung" else 60)
    return figures


def main() -> None:
    """Print a table and, as the last line, JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--size", type=int, default=512, help="of the matrix that a step squares")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for state in ("none", "sqlite", "away", "hung"):
        results[state] = measure_store(state, arguments)
        print(f"{state:8}", *(f"{key} {value:8.3f}" for key, value in results[state].items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
