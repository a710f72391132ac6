"""What a protocol measures of an item's images, and what many items come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from srt.common.shapes import Float
from srt.config.schema import Protocol
from srt.evaluation.lpips import Lpips
from srt.evaluation.metrics import gaussian_ssim, pooled_psnr, psnr, ssim, to_8_bit

BEST_PSNR = 100.0  # dB, of equal images, whose PSNR is infinite
MEASURES = ("psnr", "ssim", "lpips", "lpips_alex")
BASELINES = ("mean_colour", "input_view", "warped_input")  # see srt/evaluation/baselines.py


def measure(
    predictions: Float[Tensor, "t h w 3"],
    targets: Float[Tensor, "t h w 3"],
    protocol: Protocol,
    lpips: Mapping[str, Lpips],
) -> dict[str, float | None]:
    """Returns what a protocol measures of an item; None is what it or we do not measure.

    Args:
        lpips: the distances that can be measured, by the measure's name.
    """
    figures: dict[str, float | None] = dict.fromkeys(MEASURES)
    if protocol == "stelzner":
        return figures | {"psnr": pooled_psnr(predictions, targets).clamp(max=BEST_PSNR).item()}
    similarity, distances = gaussian_ssim, ["lpips", "lpips_alex"]
    if protocol == "pixelnerf":
        predictions, targets = to_8_bit(predictions), to_8_bit(targets)
        similarity, distances = ssim, ["lpips"]
    figures["psnr"] = psnr(predictions, targets).clamp(max=BEST_PSNR).mean().item()
    figures["ssim"] = similarity(predictions, targets).mean().item()
    for name in distances:
        if name in lpips:
            figures[name] = lpips[name](predictions, targets).mean().item()
    return figures


def summarise(rows: Sequence[dict[str, Any]], of: int) -> dict[str, Any]:
    """Returns the means over all items, for each class, and of the baselines.

    Args:
        of: how many items the whole protocol has, so that a limited evaluation shows.
    """
    classes = dict.fromkeys(row["class"] for row in rows)
    return {
        "items": len(rows),
        "of": of,
        **_means(rows, ""),
        "baselines": {name: _means(rows, f"{name}_") for name in BASELINES},
        "classes": {
            name: _means([row for row in rows if row["class"] == name], "") for name in classes
        },
    }


def _means(rows: Sequence[dict[str, Any]], prefix: str) -> dict[str, float | None]:
    return {name: _mean(row[prefix + name] for row in rows) for name in MEASURES}


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    # Rounded to what float32 predictions can tell, so that the last bits do not travel.
    return round(sum(measured) / len(measured), 6) if measured else None


def metrics_text(metrics: dict[str, Any]) -> str:
    """Returns metrics.json's text: the same for the same figures."""
    return json.dumps(metrics, indent=1) + "\n"


def extremes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[str]]:
    """Returns the places of the best, the median and the worst row by PSNR, and what they are."""
    order = sorted(range(len(rows)), key=lambda index: -rows[index]["psnr"])
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    texts = [
        f"{name} of {len(rows)}: {rows[place]['psnr']:.2f} dB ({rows[place]['class']})"
        for name, place in places.items()
    ]
    return list(places.values()), texts
