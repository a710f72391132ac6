"""The measures of a protocol, and the means over items."""

import numpy as np
import pytest
import torch
from torch import nn

from srt.evaluation.lpips import Lpips
from srt.evaluation.scores import measure, summarise
from srt.results.record_tables import BASELINES, ItemScores
from srt.results.records import Baselines, Measures

SIZE = 16


class FakeLpips(Lpips):
    """Measures a difference that needs no weights."""

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, prediction, target):
        return (prediction - target).mean(dim=(1, 2, 3))


def test_gta_averages_the_psnrs_of_views_that_are_neither_rounded_nor_clipped():
    targets = torch.rand(3, SIZE, SIZE, 3)

    # The errors are no whole levels of a byte, and the largest one leads outside of [0, 1].
    errors = [0.001, 0.1, 0.7]
    away_from_grey = (targets > 0.5).float().mul(2).sub(1)
    predictions = targets + torch.tensor(errors)[:, None, None, None] * away_from_grey
    figures = measure(predictions, targets, "gta", {})
    assert figures.psnr == pytest.approx((-10 * np.log10(np.square(errors))).mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("protocol", "measured"),
    [("stelzner", []), ("pixelnerf", ["lpips"]), ("gta", ["lpips", "lpips_alex"])],
)
def test_each_protocol_measures_its_own_distances(protocol, measured):
    lpips = {name: FakeLpips() for name in ("lpips", "lpips_alex")}
    figures = measure(*torch.rand(2, 3, SIZE, SIZE, 3), protocol, lpips)
    assert [name for name in lpips if figures.value(name) is not None] == measured

    # Without weights, nothing is measured.
    figures = measure(*torch.rand(2, 3, SIZE, SIZE, 3), protocol, {})
    assert all(figures.value(name) is None for name in lpips)


def make_row(class_name, psnr, ssim, baseline_psnr):
    """Return the row of an item. Each baseline has 1 dB more than the one before it."""
    baselines = {
        name: Measures(psnr=baseline_psnr + number, ssim=ssim)
        for number, name in enumerate(BASELINES)
    }
    return ItemScores(
        protocol="pixelnerf",
        scene="a",
        class_name=class_name,
        inputs=(0,),
        scores=Measures(psnr=psnr, ssim=ssim),
        baselines=Baselines(**baselines),
    )


def test_the_summary_holds_means_over_items_classes_and_baselines():
    rows = [
        make_row("ball", 20.0, 0.5, 10.0),
        make_row("cube", 30.0, 0.7, 11.0),
        make_row("ball", 26.0, 0.9, 15.0),
    ]
    summary = summarise(rows, total_items=24)
    assert (summary.items, summary.total_items) == (3, 24)
    assert summary.psnr == pytest.approx(76 / 3, abs=1e-6)  # over items, not over classes
    assert summary.ssim == pytest.approx(0.7)
    assert summary.lpips is None
    assert summary.classes == {
        "ball": Measures(psnr=23.0, ssim=0.7),
        "cube": Measures(psnr=30.0, ssim=0.7),
    }
    assert summary.baselines.mean_colour.psnr == 12
    assert summary.baselines.input_view.psnr == 13
    assert summary.baselines.warped_input.psnr == 14
