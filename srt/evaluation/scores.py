"""The measures of one item by a protocol, and their means over many items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from srt.common.shapes import Float
from srt.config.schema import Protocol
from srt.evaluation.lpips import Lpips
from srt.evaluation.metrics import gaussian_ssim, pooled_psnr, psnr, ssim, to_8_bit
from srt.results.record_tables import ItemScores
from srt.results.records import Baselines, Measures, ProtocolScores

BEST_PSNR = 100.0  # dB; replaces the infinite PSNR of equal images


def measure(
    predictions: Float[Tensor, "t h w 3"],
    targets: Float[Tensor, "t h w 3"],
    protocol: Protocol,
    lpips: Mapping[str, Lpips],
) -> Measures:
    """Return an item's measures; None where the protocol has no such measure or no weights exist.

    Args:
        lpips: the distances that can be measured, by the names of their measures.
    """
    # `stelzner` measures only the PSNR, of the mean error over all views.
    if protocol == "stelzner":
        return Measures(psnr=pooled_psnr(predictions, targets).clamp(max=BEST_PSNR).item())

    # `gta` measures the predictions as they are, and `pixelnerf` reads them from image files.
    if protocol == "pixelnerf":
        predictions, targets = to_8_bit(predictions), to_8_bit(targets)
        similarity = ssim
        distances = ["lpips"]
    else:
        similarity = gaussian_ssim
        distances = ["lpips", "lpips_alex"]

    # Both average the measures of single views.
    measured_distances = {
        name: lpips[name](predictions, targets).mean().item() for name in distances if name in lpips
    }
    return Measures(
        psnr=psnr(predictions, targets).clamp(max=BEST_PSNR).mean().item(),
        ssim=similarity(predictions, targets).mean().item(),
        **measured_distances,
    )


def summarise(rows: Sequence[ItemScores], total_items: int) -> ProtocolScores:
    """Return the means over all items: the model's, the baselines', and the model's by class.

    Args:
        rows: of the items, which all have measures of the baselines.
        total_items: how many items the whole protocol has. It is written beside the number of
            measured items, so that readers notice a limited evaluation.
    """
    baselines = [row.baselines for row in rows if row.baselines]
    warped_inputs = [measured.warped_input for measured in baselines if measured.warped_input]

    # The classes are in the order in which they first occur.
    classes = {}
    for class_name in dict.fromkeys(row.class_name for row in rows):
        classes[class_name] = _means([row.scores for row in rows if row.class_name == class_name])

    return ProtocolScores(
        items=len(rows),
        total_items=total_items,
        **vars(_means([row.scores for row in rows])),
        baselines=Baselines(
            mean_colour=_means([measured.mean_colour for measured in baselines]),
            input_view=_means([measured.input_view for measured in baselines]),
            warped_input=_means(warped_inputs),
        ),
        classes=classes,
    )


def _means(measures: Sequence[Measures]) -> Measures:
    """Return the mean of each measure."""
    return Measures(
        psnr=_rounded_mean([each.psnr for each in measures]),
        ssim=_mean_if_measured(each.ssim for each in measures),
        lpips=_mean_if_measured(each.lpips for each in measures),
        lpips_alex=_mean_if_measured(each.lpips_alex for each in measures),
    )


def _mean_if_measured(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that were measured, or None if none was."""
    measured = [value for value in values if value is not None]
    return _rounded_mean(measured) if measured else None


def _rounded_mean(values: Sequence[float]) -> float:
    # Predictions are float32, which has no more correct digits. Rounding removes the last bits, in
    # which machines differ.
    return round(sum(values) / len(values), 6)


def extremes(rows: Sequence[ItemScores]) -> tuple[list[int], list[str]]:
    """Return the indices of the best, the median and the worst row by PSNR, and their labels."""
    # Order the rows from the best to the worst.
    order = sorted(range(len(rows)), key=lambda index: -rows[index].scores.psnr)
    indices = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}

    # A label names the rank, the PSNR and the scene's class.
    labels = []
    for rank, index in indices.items():
        row = rows[index]
        labels.append(f"{rank} of {len(rows)}: {row.scores.psnr:.2f} dB ({row.class_name})")
    return list(indices.values()), labels
