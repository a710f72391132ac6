"""SRT on few camera positions, measured: PSNR by the angle to the nearest training camera.

    python -m benchmarks.camera_overfitting --out reports/camera_overfitting

The same synthetic objects are seen from NMR's 24 fixed cameras and from random ones. Models of the
published sizes train on either set for the same wall-clock time, from one input view in its own
frame, as published; then all show the same new objects, given a view from a fixed camera, from
cameras that stand more and more apart from the fixed ones. `jitter` is an attempt to mend it at
equal data: each item's frame is turned by a random rotation, so that no absolute position can be
learnt by heart. Runs that the folder has already, made with the same options, are not made again.
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

from benchmarks.packed import write_images
from srt.common.devices import best_device
from srt.common.distributed import Processes
from srt.config.load import load_experiment
from srt.config.schema import Experiment
from srt.data.batch import Batch, make_full_view_batch, make_view_config
from srt.data.packed.reader import Scenes
from srt.data.synthetic.as_nmr import DISTANCE, FOCAL, LIGHT, turntable
from srt.data.synthetic.objects import CLASSES, random_object
from srt.data.synthetic.raycaster import pixel_rays, render
from srt.geometry.cameras import look_at, pinhole
from srt.model.inference import decode_in_groups, training_precision
from srt.training import loop
from srt.training.cuda_graph import make_step
from srt.training.loop import learning_rate
from srt.training.state import TrainingState
from srt.visualization.pictures import enlarge, tile, to_uint8
from workflow import REPOSITORY

VIEWS = 24
HIGHEST = 75.0  # degrees of elevation of random cameras
ELEVATIONS = (0, 10, 20, 25, 30, 35, 40, 50, 60, 70)  # of test cameras
AZIMUTHS = 4  # test cameras at each of them
EDGES = (0.0, 0.5, 4, 8, 12, 18, 25, 35, 45)  # of the bins of angles, in degrees
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


def sphere(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Returns camera_to_world of cameras at NMR's distance; angles in degrees."""
    azimuth, elevation = azimuth.deg2rad(), elevation.deg2rad()
    level = elevation.cos()
    direction = torch.stack((level * azimuth.cos(), level * azimuth.sin(), elevation.sin()), -1)
    return look_at(DISTANCE * direction, torch.zeros_like(direction))


def cameras(kind: str, objects: int, rng: np.random.Generator) -> Tensor:
    """Returns [objects, views, 4, 4]. Test cameras: the input, other fixed ones, then any."""
    if kind == "fixed":
        return turntable(VIEWS).expand(objects, VIEWS, 4, 4)
    if kind == "dense":
        sine = rng.uniform(0, math.sin(math.radians(HIGHEST)), (objects, VIEWS))
        azimuth = torch.from_numpy(rng.uniform(0, 360, (objects, VIEWS)))
        return sphere(azimuth, torch.from_numpy(np.degrees(np.arcsin(sine))))
    first = rng.integers(VIEWS, size=(objects, 1))
    ring = (first + np.arange(0, VIEWS, 3)) % VIEWS  # the first is the input
    elevation = torch.tensor(ELEVATIONS).double().repeat_interleave(AZIMUTHS)
    azimuth = torch.from_numpy(rng.uniform(0, 360, (objects, len(elevation))))
    anywhere = sphere(azimuth, elevation.expand_as(azimuth))
    return torch.cat((turntable(VIEWS)[ring], anywhere), dim=1)


def make_scenes(folder: Path, kind: str, objects: int, size: int, device: torch.device) -> Scenes:
    """Renders objects, the same for `fixed` and `dense`, and reads them back onto the device."""
    poses = cameras(kind, objects, np.random.default_rng(len(kind)))
    intrinsics = pinhole(FOCAL, 2.0, size, size).expand(poses.shape[1], 3, 3)
    images = np.empty((objects, poses.shape[1], size, size, 3), np.uint8)
    names = list(CLASSES)
    for index in range(objects):
        seed = [int(kind == "test"), index]
        solids = random_object(names[index % len(names)], np.random.default_rng(seed))
        rays = (part.to(device) for part in pixel_rays(intrinsics, poses[index], size, size))
        images[index] = render(solids, LIGHT, *rays).view(images.shape[1:]).cpu().numpy()
    write_images(folder / kind, images, "raw", poses=poses, focal=FOCAL / 2)
    return Scenes(folder / kind, device, resident=True)


def turned(batch: Batch, seed: int) -> Batch:
    """Returns the batch with each item's world turned about the origin of its frame, at random."""
    count = len(batch.images)
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(matrices)
    rotation = (rotation * torch.linalg.det(rotation)[:, None, None].sign()).to(batch.images)
    names = ("image_origins", "image_directions", "origins", "directions")
    parts = {name: getattr(batch, name) for name in names}
    moved: dict[str, Any] = {
        name: torch.einsum("bij,b...j->b...i", rotation, x) for name, x in parts.items()
    }
    return dataclasses.replace(batch, **moved)


def train(
    experiment: Experiment, scenes: Scenes, seconds: float, jitter: bool, processes: Processes
) -> tuple[TrainingState, dict[str, Any]]:
    """Returns a model after so much time; compiling counts apart."""
    state = TrainingState(experiment, processes.device)
    sampler = loop.make_sampler(experiment, processes)
    compute_step = make_step(state.model, processes.device)
    began, loss = time.perf_counter(), torch.zeros(())
    compiled = 0.0
    while True:
        batch = sampler.batch(scenes, state.step)
        batch = turned(batch, state.step) if jitter else batch
        rate = learning_rate(state.step, experiment.train)
        loss = loop.train_step(state, compute_step, batch, rate)
        state.step += 1
        if state.step == 1:
            loss.item()
            compiled, began = time.perf_counter() - began, time.perf_counter()
        if state.step % 20 == 0:
            psnr = -10 * math.log10(max(loss.item(), 1e-9))  # waits for the device
            if time.perf_counter() - began > seconds:
                break
    return state, {"steps": state.step, "train_psnr": psnr, "compile_seconds": compiled}


@torch.no_grad()
def measure(
    state: TrainingState, scenes: Scenes, experiment: Experiment
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the PSNR of each test view [objects, views - 1], and a few predictions."""
    view_config, rows, pictures = make_view_config(experiment), [], []
    device, size = scenes.device, (scenes.height, scenes.width)
    targets = torch.arange(1, scenes.views, device=device)[None]
    for index in range(len(scenes)):
        scene, inputs = torch.tensor([index], device=device), torch.zeros(1, 1).long().to(device)
        batch = make_full_view_batch(scenes, scene, inputs, targets, view_config)
        with training_precision(device):
            tokens = state.model.encode(batch.images, batch.image_origins, batch.image_directions)
            pairs = state.model.decoder.scene_keys_values(tokens)
            rays = experiment.train.rays_per_group
            predicted = decode_in_groups(state.model, pairs, batch.rays, rays).colours.float()
        error = (predicted.clamp(0, 1) - batch.colours).square().view(scenes.views - 1, -1)
        rows.append((-10 * error.mean(dim=1).clamp_min(1e-9).log10()).cpu().numpy())
        if index < 3:
            pictures.append(to_uint8(predicted.view(-1, *size, 3)))
    return np.stack(rows), np.stack(pictures)


def angles(scenes: Scenes) -> np.ndarray:
    """Returns the angle of each test camera to the nearest fixed one, in degrees."""
    position = scenes.cameras(torch.arange(len(scenes)))[1][..., 1:, :3, 3].cpu().double()
    fixed = turntable(VIEWS)[:, :3, 3] / DISTANCE
    cosine = (position / DISTANCE) @ fixed.T
    return np.degrees(np.arccos(cosine.amax(dim=-1).clamp(-1, 1).numpy()))


def by_angle(psnr: np.ndarray, angle: np.ndarray) -> list[float | None]:
    """Returns the mean PSNR of each bin."""
    bins = np.digitize(angle, EDGES) - 1
    chosen = [psnr[bins == number] for number in range(len(EDGES) - 1)]
    return [round(float(values.mean()), 3) if len(values) else None for values in chosen]


def baseline(scenes: Scenes, guess: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Returns the PSNR of a guess from the input view, for each test view."""
    rows = []
    for index in range(len(scenes)):
        views = torch.arange(scenes.views, device=scenes.device)[None]
        scene = torch.tensor([index], device=scenes.device)
        images = scenes.gather(scene, views, views[:, :0], 1)[0][0].float() / 255
        error = (guess(images) - images[1:]).square().mean(dim=(1, 2, 3))
        rows.append((-10 * error.clamp_min(1e-9).log10()).cpu().numpy())
    return np.stack(rows)


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes the figure: a panel a model, a line for each set of cameras."""
    from srt.visualization.pictures import write_picture
    from srt.visualization.plots import COLOURS, LINES, figure_pixels

    centres = [(a + b) / 2 for a, b in itertools.pairwise(EDGES)]
    styles = {"fixed": 0, "dense": 1, "fixed, jitter": 2}

    def panels(axes: Any) -> None:
        for axis, model in zip(axes, ("srt", "vsrt", "isrt"), strict=True):
            for name, run in results["runs"].items():
                if name.split(", ")[0] == model:
                    number = styles[run["cameras"]]
                    line = {"color": COLOURS[number], "linestyle": LINES[number], "marker": "o"}
                    axis.plot(centres, run["psnr_by_angle"], label=run["cameras"], **line)
            copied = results["baselines"]["input copied"]
            axis.plot(centres, copied, color="0.6", label="baseline: input copied")
            axis.set_title(model.upper(), fontsize="medium")
            axis.set_xlabel("degrees to the nearest fixed camera")
        axes[0].set_ylabel("PSNR (dB)")

    title = "New objects, trained on 24 fixed or on random cameras (synthetic scenes)"
    write_picture(path, figure_pixels(title, 4.4, panels, columns=3, sharey=True))


def sheet(rows: list[tuple[str, np.ndarray]], chosen: np.ndarray) -> np.ndarray:
    """Returns test views of the first object by angle: a row each for the target and the runs."""
    from srt.visualization.pictures import caption

    parts = []
    for name, images in rows:
        row = tile(list(enlarge(images[chosen], 96)), axis=1)
        parts += [caption(name, row.shape[1]), row]
    return tile(parts, axis=0)


def main() -> None:
    """Writes results.json, psnr_by_angle.png and views.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--test-objects", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--profile", default="paper", help="quick: small models, to try this out")
    arguments = parser.parse_args()
    device = best_device()
    processes = Processes(0, 1, device, None)
    arguments.out.mkdir(parents=True, exist_ok=True)
    size = 64 if arguments.profile == "paper" else 32
    began, folder = time.perf_counter(), Path("/tmp") / f"camera-overfitting-{time.time_ns()}"
    sets = {
        kind: make_scenes(folder, kind, count, size, device)
        for kind, count in (
            ("fixed", arguments.objects),
            ("dense", arguments.objects),
            ("test", arguments.test_objects),
        )
    }
    test = sets["test"]
    angle = angles(test)
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "objects": arguments.objects,
        "test_objects": arguments.test_objects,
        "seconds_of_training": arguments.seconds,
        "angle_edges": EDGES,
        "rendering_seconds": round(time.perf_counter() - began, 1),
        "baselines": {
            "input copied": by_angle(baseline(test, lambda images: images[:1]), angle),
            "white": by_angle(baseline(test, lambda images: torch.ones_like(images[:1])), angle),
        },
        "runs": {},
    }
    results["runs"] = finished_runs(arguments.out / "results.json", results)
    views = torch.arange(1, test.views, device=device)[None]
    truth = test.gather(torch.zeros(1, device=device).long(), views, views[:, :0], 1)[0][0]
    chosen = np.argsort(angle[0])[:: max(1, angle.shape[1] // 10)]
    pages = [sheet([("target, the camera more and more apart", truth.cpu().numpy())], chosen)]
    if results["runs"]:
        pages = [np.asarray(Image.open(arguments.out / "views.png"))]
    for model, kind in RUNS:
        name = f"{model}, {kind}"
        if name in results["runs"]:
            continue
        experiment = setting(model, arguments.profile)
        scenes = sets[kind.split(",")[0]]
        state, cost = train(experiment, scenes, arguments.seconds, "jitter" in kind, processes)
        psnr, pictures = measure(state, test, experiment)
        results["runs"][name] = {
            "cameras": kind,
            **cost,
            "batch": [experiment.train.batch_size, experiment.train.rays_per_scene],
            "psnr_by_angle": by_angle(psnr, angle),
            "parameters": sum(p.numel() for p in state.model.parameters()),
        }
        pages.append(sheet([(name, pictures[0])], chosen))
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        print(name, cost, results["runs"][name]["psnr_by_angle"], flush=True)
        Image.fromarray(tile(pages, axis=0)).save(arguments.out / "views.png")
        del state
        torch.cuda.empty_cache()
    draw(results, arguments.out / "psnr_by_angle.png")


def finished_runs(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the runs that a file has already; raises ValueError if its options were others."""
    if not path.exists():
        return {}
    before: dict[str, Any] = json.loads(path.read_text())
    for name in ("device", "torch", "objects", "test_objects", "seconds_of_training"):
        if before[name] != results[name]:
            raise ValueError(f"{path}: {name} was {before[name]}, is {results[name]}: remove it")
    return before["runs"]


def setting(model: str, profile: str) -> Experiment:
    """Returns a model of the profile's size, and a recipe for minutes instead of weeks."""
    experiment = load_experiment(REPOSITORY / "params.yaml", PUBLISHED[model], profile)
    sizes = dataclasses.replace(experiment.model, frame="canonical", conv_init="he")
    if model == "vsrt":
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
