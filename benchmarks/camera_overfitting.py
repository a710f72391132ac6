"""Measures how SRT depends on its training cameras: PSNR by the angle to the nearest of them.

    python -m benchmarks.camera_overfitting --out reports/camera_overfitting

The same synthetic objects are seen by NMR's 24 fixed cameras and by random ones. Models of the
published sizes train on either set for the same wall-clock time, from one input view in its own
frame, as published. Then all render the same new objects, given a view of a fixed camera, for
cameras that are more and more distant from the fixed ones.

`jitter` is an attempt to improve this with the same data: the frame of each item is turned by a
random rotation, so that no model can learn absolute positions.

Runs that the output folder has are not repeated if they were made with the same options.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.command_line import make_parser
from benchmarks.few_camera_scenes import make_scenes, nearest_camera_angles, rotate_items
from srt.common.devices import best_device
from srt.common.distributed import Processes
from srt.config.load import load_experiment
from srt.config.schema import Experiment, VsrtConfig
from srt.data.batch import make_full_view_batch, make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict
from srt.training import loop
from srt.training.cuda_graph import make_step
from srt.training.loop import learning_rate
from srt.training.state import TrainingState
from srt.visualization.pictures import enlarge, tile, to_uint8
from workflow import REPOSITORY

# The edges of the bins of angles, in degrees. The first bin has the fixed cameras themselves.
EDGES = (0.0, 0.5, 4, 8, 12, 18, 25, 35, 45)

RUNS = (  # model, cameras
    ("srt", "fixed"),
    ("srt", "dense"),
    ("vsrt", "fixed"),
    ("vsrt", "dense"),
    ("isrt", "fixed"),
    ("isrt", "dense"),
    ("srt", "fixed, jitter"),
)
PUBLISHED = {"srt": "nmr_srt", "isrt": "nmr_isrt", "vsrt": "nmr_vsrt"}

# What must be equal for runs to be compared with each other.
OPTIONS = ("device", "torch", "objects", "test_objects", "seconds_of_training")


def train(
    experiment: Experiment, scenes: Scenes, seconds: float, jitter: bool, processes: Processes
) -> tuple[TrainingState, dict[str, Any]]:
    """Train for so many seconds. Return the model, and what its training took."""
    state = TrainingState(experiment, processes.device)
    sampler = loop.make_sampler(experiment, processes)
    compute_step = make_step(state.model, processes.device, experiment.train.rays_per_group)
    start, loss = time.perf_counter(), torch.zeros(())
    compile_seconds = 0.0
    while True:
        batch = sampler.batch(scenes, state.step)
        batch = rotate_items(batch, state.step) if jitter else batch
        rate = learning_rate(state.step, experiment.train)
        loss = loop.train_step(state, compute_step, batch, rate)
        state.step += 1

        # The first step compiles. The clock starts after it.
        if state.step == 1:
            loss.item()
            compile_seconds, start = time.perf_counter() - start, time.perf_counter()

        # Reading the loss waits for the device, so the clock is read only now and then.
        if state.step % 20 == 0:
            psnr = -10 * math.log10(max(loss.item(), 1e-9))
            if time.perf_counter() - start > seconds:
                break
    return state, {"steps": state.step, "train_psnr": psnr, "compile_seconds": compile_seconds}


@torch.no_grad()
def measure(
    state: TrainingState, scenes: Scenes, experiment: Experiment
) -> tuple[np.ndarray, np.ndarray]:
    """Return the PSNR of each test view, (objects, views - 1), and predictions of three objects."""
    view_config, rows, pictures = make_view_config(experiment), [], []
    device, size = scenes.device, (scenes.height, scenes.width)
    targets = torch.arange(1, scenes.views, device=device)[None]
    for index in range(len(scenes)):
        # View 0 is the input, all others are targets.
        scene, inputs = torch.tensor([index], device=device), torch.zeros(1, 1).long().to(device)
        batch = make_full_view_batch(scenes, scene, inputs, targets, view_config)
        rays = experiment.train.rays_per_group
        predicted = predict(state.model, batch, rays, mixed_precision=True).colours

        error = (predicted.clamp(0, 1) - batch.colours).square().view(scenes.views - 1, -1)
        rows.append((-10 * error.mean(dim=1).clamp_min(1e-9).log10()).cpu().numpy())
        if index < 3:
            pictures.append(to_uint8(predicted.view(-1, *size, 3)))
    return np.stack(rows), np.stack(pictures)


def mean_by_angle(psnr: np.ndarray, angle: np.ndarray) -> list[float | None]:
    """Return the mean PSNR of each bin; None for an empty one."""
    bins = np.digitize(angle, EDGES) - 1
    members = [psnr[bins == number] for number in range(len(EDGES) - 1)]
    return [round(float(values.mean()), 3) if len(values) else None for values in members]


def baseline_psnr(scenes: Scenes, guess: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Return the PSNR that a guess from the images has for each test view."""
    rows = []
    for index in range(len(scenes)):
        views = torch.arange(scenes.views, device=scenes.device)[None]
        scene = torch.tensor([index], device=scenes.device)
        images = scenes.gather(scene, views, views[:, :0], 1)[0][0].float() / 255
        error = (guess(images) - images[1:]).square().mean(dim=(1, 2, 3))
        rows.append((-10 * error.clamp_min(1e-9).log10()).cpu().numpy())
    return np.stack(rows)


def measure_baselines(scenes: Scenes, angle: np.ndarray) -> dict[str, list[float | None]]:
    """Return the PSNR by angle of two guesses, with which the models are compared."""
    copied = baseline_psnr(scenes, lambda images: images[:1])
    white = baseline_psnr(scenes, lambda images: torch.ones_like(images[:1]))
    return {"input copied": mean_by_angle(copied, angle), "white": mean_by_angle(white, angle)}


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the figure: a panel for each model, with a curve for each set of cameras."""
    from srt.visualization.pictures import write_picture
    from srt.visualization.plots import COLOURS, LINE_STYLES, figure_pixels

    centres = [(a + b) / 2 for a, b in itertools.pairwise(EDGES)]
    styles = {"fixed": 0, "dense": 1, "fixed, jitter": 2}

    def draw_panels(axes: Any) -> None:
        for axis, model in zip(axes, ("srt", "vsrt", "isrt"), strict=True):
            for name, run in results["runs"].items():
                if name.split(", ")[0] == model:
                    number = styles[run["cameras"]]
                    colour, line = COLOURS[number], LINE_STYLES[number]
                    psnr, label = run["psnr_by_angle"], run["cameras"]
                    axis.plot(centres, psnr, color=colour, linestyle=line, marker="o", label=label)
            copied = results["baselines"]["input copied"]
            axis.plot(centres, copied, color="0.6", label="baseline: input copied")
            axis.set_title(model.upper(), fontsize="medium")
            axis.set_xlabel("degrees to the nearest fixed camera")
        axes[0].set_ylabel("PSNR (dB)")

    title = "New objects, trained on 24 fixed or on random cameras (synthetic scenes)"
    write_picture(path, figure_pixels(title, 4.4, draw_panels, columns=3, sharey=True))


def sheet(rows: list[tuple[str, np.ndarray]], views: np.ndarray) -> np.ndarray:
    """Return pictures of these views of one object, with a captioned row for each entry."""
    from srt.visualization.pictures import caption

    blocks = []
    for name, images in rows:
        row = tile(list(enlarge(images[views], 96)), axis=1)
        blocks += [caption(name, row.shape[1]), row]
    return tile(blocks, axis=0)


def main() -> None:
    """Write results.json, psnr_by_angle.png and views.png."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--test-objects", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--profile", default="paper", help="quick: small models, to try this out")
    arguments = parser.parse_args()
    device = best_device()
    arguments.out.mkdir(parents=True, exist_ok=True)

    # Render all scenes.
    size = 64 if arguments.profile == "paper" else 32
    start, folder = time.perf_counter(), Path("/tmp") / f"camera-overfitting-{time.time_ns()}"
    counts = {"fixed": arguments.objects, "dense": arguments.objects}
    counts["test"] = arguments.test_objects
    sets = {name: make_scenes(folder, name, n, size, device) for name, n in counts.items()}
    test = sets["test"]
    angle = nearest_camera_angles(test)

    # `finished_runs` compares these options with those of earlier runs.
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "objects": arguments.objects,
        "test_objects": arguments.test_objects,
        "seconds_of_training": arguments.seconds,
        "angle_edges": EDGES,
        "rendering_seconds": round(time.perf_counter() - start, 1),
        "baselines": measure_baselines(test, angle),
        "runs": {},
    }
    results["runs"] = finished_runs(arguments.out / "results.json", results)
    make_runs(arguments, sets, angle, results)
    draw(results, arguments.out / "psnr_by_angle.png")


def make_runs(
    arguments: argparse.Namespace, sets: dict[str, Scenes], angle: np.ndarray, results: Any
) -> None:
    """Train and measure the models that are missing. Write the results after each of them."""
    # The sheet begins with the targets. An unfinished one is continued.
    device, test = sets["test"].device, sets["test"]
    views = torch.arange(1, test.views, device=device)[None]
    truth = test.gather(torch.zeros(1, device=device).long(), views, views[:, :0], 1)[0][0]
    sheet_views = np.argsort(angle[0])[:: max(1, angle.shape[1] // 10)]
    title = "target, the camera more and more apart"
    pages = [sheet([(title, truth.cpu().numpy())], sheet_views)]
    if results["runs"]:
        pages = [np.asarray(Image.open(arguments.out / "views.png"))]

    for model, cameras in RUNS:
        name = f"{model}, {cameras}"
        if name in results["runs"]:
            continue
        experiment = make_experiment(model, arguments.profile)
        scenes, jitter = sets[cameras.split(",")[0]], "jitter" in cameras
        processes = Processes(0, 1, device, None)
        state, cost = train(experiment, scenes, arguments.seconds, jitter, processes)
        psnr, pictures = measure(state, test, experiment)
        results["runs"][name] = {
            "cameras": cameras,
            **cost,
            "batch": [experiment.train.batch_size, experiment.train.rays_per_scene],
            "psnr_by_angle": mean_by_angle(psnr, angle),
            "parameters": sum(p.numel() for p in state.model.parameters()),
        }
        pages.append(sheet([(name, pictures[0])], sheet_views))
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        print(name, cost, results["runs"][name]["psnr_by_angle"], flush=True)
        Image.fromarray(tile(pages, axis=0)).save(arguments.out / "views.png")
        del state
        torch.cuda.empty_cache()


def finished_runs(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Return the runs of an existing file, or raise ValueError if its options were others."""
    if not path.exists():
        return {}
    earlier: dict[str, Any] = json.loads(path.read_text())
    for name in OPTIONS:
        if earlier[name] != results[name]:
            raise ValueError(
                f"{path}: {name} was {earlier[name]} and is {results[name]} now: remove the file"
            )
    return earlier["runs"]


def make_experiment(model: str, profile: str) -> Experiment:
    """Return a model of the profile's size, with a recipe for minutes instead of weeks."""
    experiment = load_experiment(REPOSITORY / "params.yaml", PUBLISHED[model], profile)
    sizes = dataclasses.replace(experiment.model, frame="canonical", conv_init="he")
    if isinstance(sizes, VsrtConfig):
        coarse, fine = (48, 24) if profile == "paper" else (8, 4)
        sizes = dataclasses.replace(sizes, coarse_samples=coarse, fine_samples=fine)
    rays = {"srt": 1024, "isrt": 1024, "vsrt": 64} if profile == "paper" else {"srt": 64}
    train = dataclasses.replace(
        experiment.train,
        batch_size=64 if profile == "paper" else 16,
        rays_per_scene=rays.get(model, 32),
        learning_rate=2e-4 if profile == "paper" else 1e-3,
        warmup_steps=200,
        decay_steps=4000,
    )
    return dataclasses.replace(experiment, model=sizes, train=train)


if __name__ == "__main__":
    main()
