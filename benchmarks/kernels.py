"""Where the time of a training step is on a GPU: kernels by kind, and the longest of them.

    python -m benchmarks.kernels --settings nmr_srt msn_srt msn_isrt

Steps of benchmarks.training, after they have been compiled and recorded. Raises RuntimeError where
a step waits for the device: then the next one's launches would not be hidden behind it.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.training import ALONE, COMPILING, ENDLESS, SETTINGS, packed, paper, with_size
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.training import cuda_graph, loop
from srt.training.state import TrainingState

STEPS = 3
LONGEST = 20
KINDS = {  # a part of a kernel's name; the first that fits
    "the MLP's kernels": ("_expand_kernel", "_contract_backward"),
    "the encoding's kernel": ("_encode_kernel",),
    "the first layer's kernels": ("_add_camera",),
    "attention": ("sdpa", "dot_do_o", "convert_dq", "_forward_kernel", "_gradient_kernel"),
    "convolutions": ("implicit_gemm", "wgrad", "dgrad", "nchwToNhwc"),
    "other products": ("nvjet", "cublas", "gemm"),
    "fused by the compiler": ("triton_",),
}


def kind_of(name: str) -> str:
    """Returns what a kernel belongs to."""
    return next(
        (kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "the rest"
    )


def ready_step(experiment: Experiment, scenes: Scenes) -> Callable[[], None]:
    """Returns a training step that has run before."""
    state = TrainingState(experiment, ALONE.device)
    feed = iterate_batches(loop.make_sampler(experiment, ALONE), scenes, 0, ENDLESS)
    compute_step = cuda_graph.make_step(state.model, ALONE.device)

    def step() -> None:
        loop.train_step(state, compute_step, next(feed), 1e-4)
        state.step += 1

    for _ in range(COMPILING):
        step()
    torch.cuda.set_sync_debug_mode("error")
    step()
    torch.cuda.set_sync_debug_mode("default")
    return step


def kernel_times(step: Callable[[], None]) -> dict[str, float]:
    """Returns the milliseconds a step that each kernel takes, by its name."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    times: dict[str, float] = collections.defaultdict(float)
    for event in found.events():
        if event.device_type == DeviceType.CUDA:
            times[event.name] += event.device_time / 1000 / STEPS
    return times


def main() -> None:
    """Prints two tables for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.settings:
            experiment = with_size(paper(name), SETTINGS.get(name, 32), None)
            times = kernel_times(ready_step(experiment, packed(Path(folder), experiment, 512)))
            kinds: dict[str, float] = collections.defaultdict(float)
            for kernel, milliseconds in times.items():
                kinds[kind_of(kernel)] += milliseconds
            print(f"{name}: {sum(times.values()):.1f} ms")
            for kind, milliseconds in sorted(kinds.items(), key=lambda item: -item[1]):
                print(f"  {milliseconds:7.2f} ms {kind}")
            for kernel, milliseconds in sorted(times.items(), key=lambda item: -item[1])[:LONGEST]:
                print(f"    {milliseconds:7.3f} ms {kernel[:120]}")
            torch.compiler.reset()


if __name__ == "__main__":
    main()
