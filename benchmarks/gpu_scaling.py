"""One GPU and several of one host, with the same global batch: time of a step, and the loss.

    python -m benchmarks.gpu_scaling --data data/bench/packed/nmr --out reports/performance

Each setting of benchmarks.training runs its published batch alone and under torchrun, and under
torchrun once more with nothing sent: what a step would take then, on the slowest of the GPUs.
Then profile bench's nmr_srt is trained for some steps on one GPU and on several: the same losses,
but for rounding. Writes gpus.json and gpus.png.
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
DRAWN = 512
TIMED = 20
ALONE, APART = "1 GPU", "nothing sent"


class Stepper:
    """A training of drawn or given scenes, a step at a time."""

    def __init__(
        self, experiment: Experiment, scenes: Scenes, processes: Processes, apart: bool = False
    ) -> None:
        self.state = TrainingState(experiment, processes.device)
        self.compute_step = make_step(self.state.model, processes.device)
        parameters = self.state.model.parameters()
        self.reduction = None if apart else processes.reduction(parameters)
        sampler = loop.make_sampler(experiment, processes)
        self.feed = iterate_batches(sampler, scenes, 0, ENDLESS)

    def __call__(self) -> torch.Tensor:
        """Returns this process' loss."""
        state = self.state
        rate = learning_rate(state.step, state.experiment.train)
        loss = loop.train_step(state, self.compute_step, next(self.feed), rate, self.reduction)
        state.step += 1
        return loss


def step_times(name: str, apart: bool, processes: Processes, folder: Path) -> dict[str, float]:
    """Returns what a step takes in the slowest of the processes."""
    experiment = paper(name)
    path = folder / f"{experiment.dataset_name}-{processes.rank}"
    if not path.exists():
        dataset = experiment.dataset
        write_packed(path, DRAWN, dataset.views, dataset.image_size, "raw")
    sized, scenes = with_size(experiment, SCENES[name], None), Scenes(path, processes.device)
    step = Stepper(sized, scenes, processes, apart)
    every = processes.gather(time_steps(step, TIMED))
    figures = max(every, key=lambda each: each["median_ms"])
    del step
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()
    return figures


def losses(data: Path, steps: int, processes: Processes) -> list[float]:
    """Returns the global batch' loss at each step of profile bench's nmr_srt."""
    experiment = load_experiment(REPOSITORY / "params.yaml", "nmr_srt", "bench")
    step = Stepper(experiment, Scenes(data / "train", processes.device), processes)
    values = torch.stack([step() for _ in range(steps)]).cpu()
    return torch.tensor(processes.gather(values.tolist())).mean(dim=0).tolist()


def work(arguments: argparse.Namespace) -> None:
    """Measures in this process and those beside it; the first one prints a line of JSON."""
    processes = join_processes()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.settings:
            found[name] = step_times(name, arguments.apart, processes, Path(folder))
    if arguments.steps and not arguments.apart:
        found["losses"] = losses(arguments.data, arguments.steps, processes)
    if processes.main:
        arguments.worker.write_text(json.dumps(found))
    processes.leave()


def measured(arguments: argparse.Namespace, processes: int, apart: bool) -> dict[str, Any]:
    """Returns what a run of so many processes measures."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [sys.executable, "-m", *(launcher if processes > 1 else ())]
    command += [
        "benchmarks.gpu_scaling",
        f"--steps={arguments.steps}",
        *(["--apart"] if apart else ()),
    ]
    command += ["--data", str(arguments.data), "--settings", *arguments.settings]
    environment = dict(os.environ)
    if processes == 1:
        environment["CUDA_VISIBLE_DEVICES"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        subprocess.run([*command, "--worker", str(found)], env=environment, check=True)
        return json.loads(found.read_text())


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the losses of one GPU and of several, and how far they are apart."""
    from srt.visualization.pictures import write_picture
    from srt.visualization.plots import COLOURS, LINES, figure_pixels

    every = results["runs"].items()
    runs = {name: torch.tensor(run["losses"]) for name, run in every if "losses" in run}
    (_, alone), *others = runs.items()

    def panels(axes: Any) -> None:
        for number, (name, values) in enumerate(runs.items()):
            style = {
                "color": COLOURS[number],
                "linestyle": LINES[number],
                "linewidth": 2.5 - number,
            }
            axes[0].plot(values, label=name, **style)
        for number, (name, values) in enumerate(others, 1):
            axes[1].plot((values - alone).abs() / alone, color=COLOURS[number], label=name)
        axes[0].set_ylabel("loss of the global batch")
        axes[1].set_ylabel("relative difference")
        for panel in axes:
            panel.set_xlabel("step")
            panel.set_yscale("log")

    title = "The same training on one GPU and on several (nmr_srt, profile bench, synthetic)"
    write_picture(path, figure_pixels(title, 3.6, panels))


def main() -> None:
    """Prints the ratios, and writes JSON and a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="packed; of profile bench's nmr")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    count = torch.cuda.device_count()
    several = f"{count} GPUs"
    wanted = {ALONE: (1, False), several: (count, False), APART: (count, True)}
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    results |= {"gpus": count, "runs": {}, "ratios": {}}
    for name, (processes, apart) in wanted.items():
        results["runs"][name] = measured(arguments, processes, apart)
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
