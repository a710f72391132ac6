"""Write the files of train, evaluate and render with invented figures."""

import json
import math

import numpy as np
from PIL import Image

from srt.evaluation.scores import BASELINES, summarise
from srt.rendering.video import Mp4Writer
from srt.visualization.pictures import comparison_columns, grid

PLAIN = {"input_views": 1, "trained_input_views": 1, "pose_noise": 0.0}
COUNTED = {"parameters": 74_000_000, "encode_flops": 31_400_000_000, "frame_flops": 2_500_000_000}


def metrics_of(name, profile, synthetic, of, lpips=None, classes=("table", "lamp"), items=None):
    """Return metrics.json as evaluate writes it.

    Args:
        of: how many items each protocol has.
        items: how many of them were measured; None: all.
    """
    # Every item has random figures around a mean, for the model and for each baseline.
    generator = np.random.default_rng(len(name))
    protocols = {}
    for protocol, count in of.items():
        full = protocol != "stelzner"
        rows = []
        for item in range(30):
            row = {"class": classes[item % len(classes)]}
            for prefix, psnr in (("", 24), *((f"{name}_", 13) for name in BASELINES)):
                row[f"{prefix}psnr"] = psnr + generator.normal()
                row[f"{prefix}ssim"] = 0.85 + 0.02 * generator.normal() if full else None
                row[f"{prefix}lpips"] = lpips if full else None
                row[f"{prefix}lpips_alex"] = lpips if protocol == "gta" else None
            rows.append(row)
        protocols[protocol] = {**summarise(rows, count), "items": min(items or count, count)}

    head = {"experiment": name, "profile": profile, "dataset": "nmr", "synthetic": synthetic}
    head |= {"split": "test", "conditions": PLAIN, "fingerprint": "0123456789ab"}
    return {**head, "costs": COUNTED, "protocols": protocols}


def write_run(folder, *arguments, **options):
    """Write the files of a run; `metrics_of` gets the arguments and options."""
    folder.mkdir(parents=True)
    metrics = metrics_of(folder.name, *arguments, **options)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    seconds = {"encode_seconds": 0.0123, "frame_seconds": 1.5, "hardware": "NVIDIA H200"}
    (folder / "costs.json").write_text(json.dumps(seconds))

    # The training: its cost and its learning curve.
    generator = np.random.default_rng(len(folder.name))
    cost = {"steps": 1000, "best_step": 750, "seconds": 131.7, "hardware": "x86_64 CPU, 2 threads"}
    (folder / "training.json").write_text(json.dumps({"experiment": folder.name, **cost}))
    (folder / "history.csv").write_text(history(generator))

    # Pictures and a video of random pixels.
    pixels = generator.integers(0, 255, (5, 2, 16, 16, 3), dtype=np.uint8)
    picture = grid(comparison_columns(pixels[:1].repeat(2, 0)[:, :1], pixels[1], pixels[2]))
    for name in ("comparison.png", "extremes.png"):
        Image.fromarray(picture).save(folder / name)
    with Mp4Writer(folder / "video.mp4", 8) as writer:
        for frame in pixels[:, 0]:
            writer.write(frame)


def history(generator):
    """Return history.csv: a curve that rises to step 750 and is 1 dB lower after it."""
    lines = ["step,train_psnr,learning_rate,validation_psnr"]
    for step in range(10, 1001, 10):
        psnr = 14 + 4 * math.log10(step) - (step > 750) + 0.3 * generator.normal()
        validation = f"{psnr - 0.8:.6g}" if step % 250 == 0 else ""
        lines.append(f"{step},{psnr:.6g},0.0001,{validation}")
    return "\n".join(lines) + "\n"
