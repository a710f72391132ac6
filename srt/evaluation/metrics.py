"""Image metrics, one value an image. Images are (height, width, colour) with values in [0, 1].

Everything is computed in float64, so that a number depends neither on TF32 nor on autocast, and
on the batch size only in its last digits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float

SSIM_WINDOW = 7
GAUSSIAN_WINDOW, GAUSSIAN_DEVIATION = 11, 1.5  # pixels


def psnr(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "*images"]:
    """Returns each image's peak signal-to-noise ratio in dB; infinite where the two are equal."""
    return _decibels(_squared_error(prediction, target).mean(dim=(-3, -2, -1)))


def pooled_psnr(
    prediction: Float[Tensor, "*items views height width 3"],
    target: Float[Tensor, "*items views height width 3"],
) -> Float[Tensor, "*items"]:
    """Returns one PSNR an item, from the error averaged over all its views (protocol `stelzner`).

    It is never above the mean of the views' own PSNRs, because the logarithm is taken last.
    """
    return _decibels(_squared_error(prediction, target).mean(dim=(-4, -3, -2, -1)))


def to_8_bit(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns the images rounded to the 256 levels of an image file, still as values in [0, 1].

    PixelNeRF's script truncates instead when it writes its PNG, which was seen to read 0.05 dB
    lower at 27 dB. Rounding leaves images that already have 256 levels as they are.
    """
    return (images.clamp(0, 1) * 255).round() / 255


def ssim(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "*images"]:
    """Returns the structural similarity of each image: scikit-image's, with its default settings.

    These are a uniform 7 x 7 window that lies wholly inside the image, sample covariances (divided
    by 48, not 49), and the mean over positions and colours. The formula is Wang et al. 2004's.
    """
    check_size(prediction, SSIM_WINDOW)
    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    return _similarity(prediction, target, _window_mean, sample)


def gaussian_ssim(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "*images"]:
    """Returns the structural similarity of each image as pytorch_msssim has it (protocol `gta`).

    Its window is Gaussian, 11 x 11 with deviation 1.5, and lies wholly inside the image; variances
    are weighted means, not those of a sample.
    """
    check_size(prediction, GAUSSIAN_WINDOW)
    return _similarity(prediction, target, _gaussian_mean, 1.0)


def _similarity(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
    window_mean: Callable[[Tensor], Tensor],
    sample: float,
) -> Float[Tensor, "*images"]:
    """Returns the mean of Wang et al.'s formula over positions and colours.

    Args:
        sample: the factor from the window's variances to those that are meant.
    """
    x, y = channels_first(prediction), channels_first(target)
    mean_x, mean_y = window_mean(x), window_mean(y)
    variance_x = sample * (window_mean(x * x) - mean_x * mean_x)
    variance_y = sample * (window_mean(y * y) - mean_y * mean_y)
    covariance = sample * (window_mean(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3)).reshape(prediction.shape[:-3])


def _window_mean(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 _ _"]:
    return F.avg_pool2d(images, SSIM_WINDOW, stride=1)


def _gaussian_mean(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 _ _"]:
    offsets = torch.arange(GAUSSIAN_WINDOW).to(images) - GAUSSIAN_WINDOW // 2
    weights = (-(offsets**2) / (2 * GAUSSIAN_DEVIATION**2)).exp()
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    rows = F.conv2d(images, weights, groups=3)
    return F.conv2d(rows, weights.transpose(2, 3), groups=3)


def channels_first(
    images: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "n 3 height width"]:
    return images.double().reshape(-1, *images.shape[-3:]).permute(0, 3, 1, 2)


def _squared_error(
    prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    return (prediction.double() - target.double()) ** 2


def _decibels(mean_squared_error: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return -10 * mean_squared_error.log10()


def check_size(images: Float[Tensor, "*images height width 3"], smallest_side: int) -> None:
    """Raises where the images are too small to be measured."""
    height, width = images.shape[-3:-1]
    if min(height, width) < smallest_side:
        raise ValueError(
            f"images of height {height} and width {width}: this metric needs at least "
            f"{smallest_side} pixels a side"
        )
