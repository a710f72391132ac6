"""Measures how fast the published models render on one GPU: time to encode a scene, and of a frame.

    python -m benchmarks.rendering --out reports/rendering.json

`plain` is the published algorithm in float32 (benchmarks/plain.py). `ours` is what workflow.render
runs. `compiled` is ours with a compiled decoder, which takes some seconds to start.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import make_parser
from benchmarks.plain import plainly
from benchmarks.training import paper
from srt.config.schema import Experiment
from srt.data.batch import Batch
from srt.evaluation.evaluator import encode_batch
from srt.geometry.rays import Rays
from srt.model.inference import decode_in_groups
from srt.model.srt import SRT, build_model

FRAMES = [  # experiment, height, width
    ("nmr_srt", 64, 64),
    ("msn_srt", 128, 128),
    ("msn_isrt", 128, 128),
    ("msn_isrt", 240, 320),
    ("nmr_vsrt", 64, 64),
]
COMPILED = ("msn_srt", "msn_isrt")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def median_ms(work: Callable[[], object], count: int = 20) -> float:
    """Return the median time of a function on the device. The first three calls do not count."""
    times = []
    for number in range(count + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if number >= 3:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def random_batch(experiment: Experiment, scenes: int, rays: int) -> Batch:
    """Return a batch of random images, cameras and rays."""
    views, (height, width) = experiment.dataset.input_views, experiment.dataset.image_size

    def random_directions(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, 3, device=DEVICE), dim=-1)

    return Batch(
        images=torch.rand(scenes, views, height, width, 3, device=DEVICE),
        image_origins=torch.randn(scenes, views, 3, device=DEVICE),
        image_directions=random_directions(scenes, views, height, width),
        origins=torch.randn(scenes, 1, 3, device=DEVICE).expand(scenes, rays, 3),
        directions=random_directions(scenes, rays),
        colours=torch.rand(scenes, rays, 3, device=DEVICE),
        near=experiment.dataset.near,
        far=experiment.dataset.far,
        uniforms=None,
    )


def measure(model: SRT, batch: Batch, way: str) -> dict[str, float]:
    """Return the milliseconds of encoding and of a frame, and the peak memory."""
    torch.cuda.reset_peak_memory_stats()
    rays: Rays = batch.rays
    with plainly() if way == "plain" else contextlib.nullcontext():
        if way == "plain":
            tokens = (batch.images, batch.image_origins, batch.image_directions)
            keys_values = model.decoder.scene_keys_values(model.encode(*tokens))
            encoding = median_ms(lambda: model.decoder.scene_keys_values(model.encode(*tokens)))
            frame = median_ms(lambda: decode_in_groups(model, keys_values, rays, 32768))
        else:
            scene = encode_batch(model, batch, None, mixed_precision=True)
            encoding = median_ms(lambda: encode_batch(model, batch, None, mixed_precision=True))
            frame = median_ms(lambda: scene.decode_recorded(rays))
    peak = torch.cuda.max_memory_allocated() / 1e9
    return {"encode_ms": encoding, "frame_ms": frame, "peak_gb": peak}


@torch.no_grad()
def main() -> None:
    """Print a table, and write it as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, height, width in FRAMES:
        experiment = paper(name)
        model = build_model(experiment.model, seed=0).to(DEVICE)
        batch = random_batch(experiment, 1, height * width)

        # Compiling changes the model, so it comes last.
        ways = ("plain", "ours", "compiled") if name in COMPILED else ("plain", "ours")
        for way in ways:
            if way == "compiled":
                model.decoder.compile(dynamic=False)
            figures = measure(model, batch, way)
            rows.append({"model": name, "frame": f"{height}x{width}", "way": way, **figures})
            print(
                f"{name:9} {height:3}x{width:3} {way:8} encode {figures['encode_ms']:7.2f} ms,"
                f" frame {figures['frame_ms']:7.3f} ms, {1000 / figures['frame_ms']:7.0f} frames/s",
                flush=True,
            )
        torch.compiler.reset()
    results = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
