"""What a protocol measures of images that are given, and the means over items."""

import numpy as np
import pytest
import torch
from torch import nn

from srt.evaluation.lpips import Lpips
from srt.evaluation.scores import BASELINES, measure, summarise

SIZE = 16


class AnyDistance(Lpips):
    """Measures something without weights."""

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, prediction, target):
        return (prediction - target).mean(dim=(1, 2, 3))


def test_gta_takes_the_mean_of_the_views_as_they_are_predicted():
    targets = torch.rand(3, SIZE, SIZE, 3)
    errors = [0.001, 0.1, 0.7]  # no whole levels, and beyond 1 or below 0
    away = (targets > 0.5).float().mul(2).sub(1)
    predictions = targets + torch.tensor(errors)[:, None, None, None] * away
    figures = measure(predictions, targets, "gta", {})
    assert figures["psnr"] == pytest.approx((-10 * np.log10(np.square(errors))).mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("protocol", "measured"),
    [("stelzner", []), ("pixelnerf", ["lpips"]), ("gta", ["lpips", "lpips_alex"])],
)
def test_each_protocol_measures_its_own_distances(protocol, measured):
    known = {name: AnyDistance() for name in ("lpips", "lpips_alex")}
    figures = measure(*torch.rand(2, 3, SIZE, SIZE, 3), protocol, known)
    assert [name for name in known if figures[name] is not None] == measured
    assert all(
        measure(*torch.rand(2, 3, SIZE, SIZE, 3), protocol, {})[name] is None for name in known
    )


def row(class_name, psnr, ssim, baseline):
    measures = {"psnr": psnr, "ssim": ssim, "lpips": None, "lpips_alex": None}
    baselines = {
        f"{name}_{measure}": value
        for shift, name in enumerate(BASELINES)
        for measure, value in (measures | {"psnr": baseline + shift}).items()
    }
    return {"class": class_name, **measures, **baselines}


def test_the_summary_holds_means_over_items_classes_and_baselines():
    rows = [
        row("ball", 20.0, 0.5, 10.0),
        row("cube", 30.0, 0.7, 11.0),
        row("ball", 26.0, 0.9, 15.0),
    ]
    summary = summarise(rows, total_items=24)
    assert (summary["items"], summary["of"]) == (3, 24)
    assert summary["psnr"] == pytest.approx(76 / 3, abs=1e-6)  # over items, not over classes
    assert summary["ssim"] == pytest.approx(0.7)
    assert summary["lpips"] is None
    assert summary["classes"] == {
        "ball": {"psnr": 23.0, "ssim": 0.7, "lpips": None, "lpips_alex": None},
        "cube": {"psnr": 30.0, "ssim": 0.7, "lpips": None, "lpips_alex": None},
    }
    assert summary["baselines"]["mean_colour"]["psnr"] == 12
    assert summary["baselines"]["input_view"]["psnr"] == 13
    assert summary["baselines"]["warped_input"]["psnr"] == 14
