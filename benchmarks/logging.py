"""What logging costs a training loop: milliseconds of a step's calls, with MLflow near, away, hung.

    python -m benchmarks.logging

Each step works for a few milliseconds and logs what training logs; a delivery starts every
`--every` steps, as at a saved state, and the machine is watched. `call` is the time in the logging
calls alone; `step` that of the whole step, in which a delivery's thread may get in the way. The
deliveries go to a new SQLite store, to an address where nothing listens, and to a server that
accepts connections and never answers.
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

from srt.tracking.delivery import deliver
from srt.tracking.tracker import Tracker, open_tracker

KEYS = ("mse", "psnr", "learning_rate", "gradient_norm", "seconds")


def measure(tracker: Tracker, steps: int, every: int, size: int) -> dict[str, float]:
    """Returns milliseconds: medians, the 99th percentile and the longest of the calls."""
    matrix = torch.rand(size, size)
    calls, whole = [], []
    for step in range(1, steps + 1):
        began = time.perf_counter()
        value = (matrix @ matrix).mean().item()
        worked = time.perf_counter()
        tracker.log_metrics({f"train/{key}": value for key in KEYS}, step)
        if step % every == 0:
            tracker.release()
            tracker.deliver_in_background()
        ended = time.perf_counter()
        calls.append(1e3 * (ended - worked))
        whole.append(1e3 * (ended - began))
    return {
        "call_median": statistics.median(calls),
        "call_mean": statistics.fmean(calls),
        "call_99th": statistics.quantiles(calls, n=100)[98],
        "call_longest": max(calls),
        "step_median": statistics.median(whole),
        "step_mean": statistics.fmean(whole),
    }


@contextlib.contextmanager
def store(kind: str, root: Path) -> Iterator[str]:
    """Gives the address of a store."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "hung":
            server.listen(16)
        port = server.getsockname()[1]
        yield f"sqlite:///{root}/mlflow.db" if kind == "sqlite" else f"http://127.0.0.1:{port}"


def run(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns what a loop's steps cost with one kind of store; `none` logs nothing."""
    options = (arguments.steps, arguments.every, arguments.size)
    if kind == "none":
        return measure(Tracker(), *options)
    with tempfile.TemporaryDirectory() as folder, store(kind, Path(folder)) as address:
        os.environ["MLFLOW_TRACKING_URI"] = address
        root = Path(folder)
        names = {"experiment": "benchmark", "run_name": kind, "description": ""}
        tracker = open_tracker(root / "tracking", root=root, **names, tags={}, parameters={})
        if kind == "sqlite":
            deliver(root / "tracking", root)  # makes the tables
        tracker.watch_machine(interval=1)
        figures = measure(tracker, *options)
        tracker.close("FINISHED", timeout=1 if kind == "hung" else 60)
    return figures


def main() -> None:
    """Prints a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--size", type=int, default=512, help="of the matrix that a step squares")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for kind in ("none", "sqlite", "away", "hung"):
        results[kind] = run(kind, arguments)
        print(f"{kind:8}", *(f"{key} {value:8.3f}" for key, value in results[kind].items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
