"""Compares one GPU with several of one host, which share the same global batch.

    python -m benchmarks.gpu_scaling --data data/bench/packed/nmr --out reports/performance

Times of a step are measured with the published batch: on one GPU, on all GPUs under torchrun, and
on all GPUs without the exchange of gradients, which is the limit of what a faster exchange could
gain. A step is as slow as the slowest GPU.

Then nmr_srt of profile bench is trained for some steps on one GPU and on several. The losses must
be equal except for rounding. Writes gpus.json and gpus.png.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import make_parser
from benchmarks.packed import write_packed
from benchmarks.training import ENDLESS, paper, time_steps, with_size
from srt.common.distributed import Processes, join_processes
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches
from srt.training import loop
from srt.training.cuda_graph import make_step
from srt.training.loop import learning_rate
from srt.training.state import TrainingState
from workflow import REPOSITORY

SETTINGS = ("nmr_srt", "msn_srt")
SCENES = {"nmr_srt": 256, "msn_srt": 64}  # of the global batch
PACKED_SCENES = 512
TIMED_STEPS = 20

# Names of runs in the results.
ONE_GPU = "1 GPU"
WITHOUT_EXCHANGE = "nothing sent"


class Stepper:
    """A training that makes one step at each call.

    Args:
        exchange: exchange gradients between the processes.
    """

    def __init__(
        self, experiment: Experiment, scenes: Scenes, processes: Processes, exchange: bool = True
    ) -> None:
        self.state = TrainingState(experiment, processes.device)
        model = self.state.model
        reduction = processes.reduction(model.parameters()) if exchange else None
        rays = experiment.train.rays_per_group
        self.compute_step = make_step(model, processes.device, rays, reduction)
        sampler = loop.make_sampler(experiment, processes)
        self.feed = iterate_batches(sampler, scenes, 0, ENDLESS)

    def __call__(self) -> torch.Tensor:
        """Make a step, and return the loss of this process."""
        state = self.state
        rate = learning_rate(state.step, state.experiment.train)
        loss = loop.train_step(state, self.compute_step, next(self.feed), rate)
        state.step += 1
        return loss


def step_times(name: str, exchange: bool, processes: Processes, folder: Path) -> dict[str, float]:
    """Return the times of a step in the slowest process."""
    # Each process has its own files, because all write them at the same time.
    experiment = paper(name)
    path = folder / f"{experiment.dataset_name}-{processes.rank}"
    if not path.exists():
        dataset = experiment.dataset
        write_packed(path, PACKED_SCENES, dataset.views, dataset.image_size, "raw")

    sized = with_size(experiment, SCENES[name], None)
    step = Stepper(sized, Scenes(path, processes.device), processes, exchange)
    all_figures = processes.gather(time_steps(step, TIMED_STEPS))
    slowest = max(all_figures, key=lambda figures: figures["median_ms"])

    # Free the memory before the next setting.
    del step
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()
    return slowest


def train_losses(data: Path, steps: int, processes: Processes) -> list[float]:
    """Return the loss of the global batch at each step of nmr_srt of profile bench."""
    experiment = load_experiment(REPOSITORY / "params.yaml", "nmr_srt", "bench")
    step = Stepper(experiment, Scenes(data / "train", processes.device), processes)
    values = torch.stack([step() for _ in range(steps)]).cpu()
    return torch.tensor(processes.gather(values.tolist())).mean(dim=0).tolist()


def run_worker(arguments: argparse.Namespace) -> None:
    """Measure in this process and those started with it. The main one writes the results."""
    processes = join_processes()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.settings:
            results[name] = step_times(name, not arguments.apart, processes, Path(folder))
    if arguments.steps and not arguments.apart:
        results["losses"] = train_losses(arguments.data, arguments.steps, processes)
    if processes.main:
        arguments.worker.write_text(json.dumps(results))
    processes.leave()


def measure_run(arguments: argparse.Namespace, processes: int, apart: bool) -> dict[str, Any]:
    """Run this program as so many workers, and return what they have measured."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["benchmarks.gpu_scaling", f"--steps={arguments.steps}"]
    if apart:
        command.append("--apart")
    command += ["--data", str(arguments.data), "--settings", *arguments.settings]

    # One process must not touch the other GPUs.
    environment = dict(os.environ)
    if processes == 1:
        environment["CUDA_VISIBLE_DEVICES"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        subprocess.run([*command, "--worker", str(results)], env=environment, check=True)
        return json.loads(results.read_text())


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the losses of one GPU and of several, and their relative difference."""
    from srt.visualization.pictures import write_picture
    from srt.visualization.plots import COLOURS, LINE_STYLES, figure_pixels

    all_runs = results["runs"].items()
    runs = {name: torch.tensor(run["losses"]) for name, run in all_runs if "losses" in run}
    (_, alone), *several = runs.items()

    def draw_panels(axes: Any) -> None:
        # The curves lie on each other, so the later ones are thinner.
        for number, (name, values) in enumerate(runs.items()):
            style = {"color": COLOURS[number], "linestyle": LINE_STYLES[number]}
            axes[0].plot(values, label=name, linewidth=2.5 - number, **style)
        for number, (name, values) in enumerate(several, 1):
            axes[1].plot((values - alone).abs() / alone, color=COLOURS[number], label=name)
        axes[0].set_ylabel("loss of the global batch")
        axes[1].set_ylabel("relative difference")
        for panel in axes:
            panel.set_xlabel("step")
            panel.set_yscale("log")

    title = "The same training on one GPU and on several (nmr_srt, profile bench, synthetic)"
    write_picture(path, figure_pixels(title, 3.6, draw_panels))


def main() -> None:
    """Print the ratios, and write JSON and a figure."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="packed; of profile bench's nmr")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(arguments)
        return

    # Measure one run after the other, and write the results after each.
    count = torch.cuda.device_count()
    several = f"{count} GPUs"
    runs = {ONE_GPU: (1, False), several: (count, False), WITHOUT_EXCHANGE: (count, True)}
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    results |= {"gpus": count, "runs": {}, "ratios": {}}
    for name, (processes, apart) in runs.items():
        results["runs"][name] = measure_run(arguments, processes, apart)
        (arguments.out / "gpus.json").write_text(json.dumps(results, indent=1) + "\n")

    for setting in arguments.settings:
        alone, together, apart = (run[setting]["median_ms"] for run in results["runs"].values())
        results["ratios"][setting] = alone / together
        print(
            f"{setting}: {alone:.1f} ms on one, {together:.1f} ms on {several}:"
            f" {alone / together:.2f} times as fast; with nothing sent: {apart:.1f} ms"
        )
    (arguments.out / "gpus.json").write_text(json.dumps(results, indent=1) + "\n")
    if arguments.steps:
        draw(results, arguments.out / "gpus.png")


if __name__ == "__main__":
    main()
