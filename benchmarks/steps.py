"""Computes how many steps of an experiment this GPU makes in a given time, for params.yaml.

    python -m benchmarks.steps --profile bench --minutes 4 --experiments nmr_srt nmr_vsrt

Prints a line for each experiment, for section `experiments` of the profile, with as many
validations as `--validations`. Scenes are drawn, not published. The time of validations, pictures
and saved states is not included, nor is the memory of the scenes.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.command_line import make_parser
from benchmarks.training import ALONE, COMPILING, packed_scenes
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.training import cuda_graph, loop
from srt.training.state import TrainingState
from workflow import REPOSITORY

SCENES = 512
TIMED_STEPS = 40


def step_costs(experiment: Experiment, scenes: Scenes) -> tuple[float, float]:
    """Return the median seconds of a step, and the peak gigabytes without those of the scenes.

    A step is sampling, forward, backward and optimiser.
    """
    torch.cuda.reset_peak_memory_stats()
    scene_bytes = torch.cuda.memory_allocated()
    state = TrainingState(experiment, ALONE.device)
    sampler = loop.make_sampler(experiment, ALONE)
    compute_step = cuda_graph.make_step(state.model, ALONE.device, experiment.train.rays_per_group)

    # Steps with negative numbers compile, and are not timed.
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(TIMED_STEPS)]
    feed = iterate_batches(sampler, scenes, 0, COMPILING + TIMED_STEPS)
    for number, batch in enumerate(feed, -COMPILING):
        loop.train_step(state, compute_step, batch, 1e-4)
        state.step += 1
        if number >= 0:
            marks[number].record()

    torch.cuda.synchronize()
    torch.compiler.reset()
    milliseconds = statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks))
    return milliseconds / 1000, (torch.cuda.max_memory_allocated() - scene_bytes) / 1e9


def main() -> None:
    """Print a line of params.yaml for each experiment."""
    parser = make_parser(__doc__)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--experiments", nargs="+", required=True)
    parser.add_argument("--validations", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.experiments:
            experiment = load_experiment(REPOSITORY / "params.yaml", name, arguments.profile)
            seconds, peak = step_costs(experiment, packed_scenes(Path(folder), experiment, SCENES))

            # Steps between validations are rounded down to hundreds.
            every = int(60 * arguments.minutes / seconds / arguments.validations)
            every = max(1, every // 100 * 100 or every)
            steps = every * arguments.validations

            device = torch.cuda.get_device_name()
            print(f"# {name}: {1000 * seconds:.1f} ms a step, {peak:.1f} GB, on {device}")
            print(
                f"      {name}: {{train: {{steps: {steps}, decay_steps: {steps},"
                f" validate_every: {every}}}}}",
                flush=True,
            )


if __name__ == "__main__":
    main()
