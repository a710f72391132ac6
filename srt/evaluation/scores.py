"""The measures of one item by a protocol, and their means over many items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from srt.common.shapes import Float
from srt.config.schema import Protocol
from srt.evaluation.lpips import Lpips
from srt.evaluation.metrics import gaussian_ssim, pooled_psnr, psnr, ssim, to_8_bit

BEST_PSNR = 100.0  # dB; replaces the infinite PSNR of equal images
MEASURES = ("psnr", "ssim", "lpips", "lpips_alex")
BASELINES = ("mean_colour", "input_view", "warped_input")  # see srt/evaluation/baselines.py


def measure(
    predictions: Float[Tensor, "t h w 3"],
    targets: Float[Tensor, "t h w 3"],
    protocol: Protocol,
    lpips: Mapping[str, Lpips],
) -> dict[str, float | None]:
    """Return an item's measures; None where the protocol has no such measure or no weights exist.

    Args:
        lpips: the distances that can be measured, by the names of their measures.
    """
    # `stelzner` measures only the PSNR, of the mean error over all views.
    figures: dict[str, float | None] = dict.fromkeys(MEASURES)
    if protocol == "stelzner":
        figures["psnr"] = pooled_psnr(predictions, targets).clamp(max=BEST_PSNR).item()
        return figures

    # `gta` measures the predictions as they are, and `pixelnerf` reads them from image files.
    if protocol == "pixelnerf":
        predictions, targets = to_8_bit(predictions), to_8_bit(targets)
        similarity = ssim
        distances = ["lpips"]
    else:
        similarity = gaussian_ssim
        distances = ["lpips", "lpips_alex"]

    # Both average the measures of single views.
    figures["psnr"] = psnr(predictions, targets).clamp(max=BEST_PSNR).mean().item()
    figures["ssim"] = similarity(predictions, targets).mean().item()
    for name in distances:
        if name in lpips:
            figures[name] = lpips[name](predictions, targets).mean().item()
    return figures


def summarise(rows: Sequence[dict[str, Any]], total_items: int) -> dict[str, Any]:
    """Return the means over all items: the model's, the baselines', and the model's by class.

    Args:
        total_items: how many items the whole protocol has. It is written beside the number of
            measured items, so that readers notice a limited evaluation.
    """
    baselines = {name: _means(rows, f"{name}_") for name in BASELINES}

    # The classes are in the order in which they first occur.
    classes = {}
    for class_name in dict.fromkeys(row["class"] for row in rows):
        classes[class_name] = _means([row for row in rows if row["class"] == class_name], "")

    return {
        "items": len(rows),
        "of": total_items,
        **_means(rows, ""),
        "baselines": baselines,
        "classes": classes,
    }


def _means(rows: Sequence[dict[str, Any]], prefix: str) -> dict[str, float | None]:
    return {name: _mean(row[prefix + name] for row in rows) for name in MEASURES}


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that were measured, or None if none was."""
    # Predictions are float32, which has no more correct digits. Rounding removes the last bits, in
    # which machines differ.
    measured = [value for value in values if value is not None]
    return round(sum(measured) / len(measured), 6) if measured else None


def metrics_text(metrics: dict[str, Any]) -> str:
    """Return the text of metrics.json. Equal figures give equal bytes."""
    return json.dumps(metrics, indent=1) + "\n"


def extremes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[str]]:
    """Return the indices of the best, the median and the worst row by PSNR, and their labels."""
    # Order the rows from the best to the worst.
    order = sorted(range(len(rows)), key=lambda index: -rows[index]["psnr"])
    indices = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}

    # A label names the rank, the PSNR and the scene's class.
    labels = []
    for rank, index in indices.items():
        row = rows[index]
        labels.append(f"{rank} of {len(rows)}: {row['psnr']:.2f} dB ({row['class']})")
    return list(indices.values()), labels
