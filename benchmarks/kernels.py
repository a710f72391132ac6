"""Measures which kernels take the time of a training step on a GPU.

    python -m benchmarks.kernels --settings nmr_srt msn_srt msn_isrt

The steps are those of benchmarks.training, after they have been compiled and recorded. Raises
RuntimeError if a step waits for the device: the host could then not prepare the next step.
"""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.command_line import make_parser
from benchmarks.training import ALONE, COMPILING, ENDLESS, SETTINGS, packed_scenes, paper, with_size
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.training import cuda_graph, loop
from srt.training.state import TrainingState

STEPS = 3
LONGEST = 20

# The groups of kernels, each with texts that its kernels' names contain. The first group counts.
GROUPS = {
    "the MLP's kernels": ("_expand_kernel", "_contract_backward"),
    "the encoding's kernel": ("_encode_kernel",),
    "the first layer's kernels": ("_add_camera",),
    "attention": ("sdpa", "dot_do_o", "convert_dq", "_forward_kernel", "_gradient_kernel"),
    "convolutions": ("implicit_gemm", "wgrad", "dgrad", "nchwToNhwc"),
    "other products": ("nvjet", "cublas", "gemm"),
    "fused by the compiler": ("triton_",),
}


def kernel_group(name: str) -> str:
    """Return the group of a kernel."""
    for group, texts in GROUPS.items():
        if any(text in name for text in texts):
            return group
    return "the rest"


def prepare_step(experiment: Experiment, scenes: Scenes) -> Callable[[], None]:
    """Return a training step that has been compiled and recorded."""
    state = TrainingState(experiment, ALONE.device)
    feed = iterate_batches(loop.make_sampler(experiment, ALONE), scenes, 0, ENDLESS)
    compute_step = cuda_graph.make_step(state.model, ALONE.device, experiment.train.rays_per_group)

    def step() -> None:
        loop.train_step(state, compute_step, next(feed), 1e-4)
        state.step += 1

    for _ in range(COMPILING):
        step()

    # In this mode, PyTorch raises an error if the host waits for the device.
    torch.cuda.set_sync_debug_mode("error")
    step()
    torch.cuda.set_sync_debug_mode("default")
    return step


def kernel_times(step: Callable[[], None]) -> dict[str, float]:
    """Return the milliseconds of each kernel in a step, by the kernel's name."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as trace:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    times: dict[str, float] = collections.defaultdict(float)
    for event in trace.events():
        if event.device_type == DeviceType.CUDA:
            times[event.name] += event.device_time / 1000 / STEPS
    return times


def main() -> None:
    """Print the times of groups and of single kernels for each setting."""
    parser = make_parser(__doc__)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.settings:
            experiment = with_size(paper(name), SETTINGS.get(name, 32), None)
            scenes = packed_scenes(Path(folder), experiment, 512)
            times = kernel_times(prepare_step(experiment, scenes))
            groups: dict[str, float] = collections.defaultdict(float)
            for kernel, milliseconds in times.items():
                groups[kernel_group(kernel)] += milliseconds

            # Print groups and kernels, the longest first.
            print(f"{name}: {sum(times.values()):.1f} ms")
            for group, milliseconds in sorted(groups.items(), key=lambda item: -item[1]):
                print(f"  {milliseconds:7.2f} ms {group}")
            for kernel, milliseconds in sorted(times.items(), key=lambda item: -item[1])[:LONGEST]:
                print(f"    {milliseconds:7.3f} ms {kernel[:120]}")
            torch.compiler.reset()


if __name__ == "__main__":
    main()
