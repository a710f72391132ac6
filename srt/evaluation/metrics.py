"""Image metrics: PSNR and SSIM, one value per image.

Images are (height, width, colour) with values in [0, 1]. Everything is computed in float64, so that
a figure depends neither on TF32 nor on autocast, and on the batch size only in its last digits.
n images, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from srt.common.shapes import Float

# Sizes and deviation are in pixels.
SSIM_WINDOW = 7
GAUSSIAN_WINDOW = 11
GAUSSIAN_DEVIATION = 1.5


def psnr(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "*images"]:
    """Return each image's peak signal-to-noise ratio in dB; it is infinite for equal images."""
    return _decibels(_squared_error(prediction, target).mean(dim=(-3, -2, -1)))


def pooled_psnr(
    prediction: Float[Tensor, "*items views height width 3"],
    target: Float[Tensor, "*items views height width 3"],
) -> Float[Tensor, "*items"]:
    """Return one PSNR per item, of the error averaged over all its views (protocol `stelzner`).

    It is never above the mean of the views' own PSNRs, because the logarithm is taken last.
    """
    return _decibels(_squared_error(prediction, target).mean(dim=(-4, -3, -2, -1)))


def to_8_bit(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the images rounded to the 256 levels of an image file, as values in [0, 1].

    PixelNeRF's script truncates when it writes its PNG files, which gives 0.05 dB less at 27 dB.
    Rounding does not change images that already have 256 levels.
    """
    return (images.clamp(0, 1) * 255).round() / 255


def ssim(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "*images"]:
    """Return each image's structural similarity, as scikit-image computes it by default.

    The window is uniform, 7 x 7 pixels, and lies inside the image. Covariances are those of a
    sample (divided by 48, not 49). The result is the mean over positions and colours.
    Source: Wang et al. 2004.
    """
    # The factor turns a variance that was divided by 49 into one that is divided by 48.
    check_size(prediction, SSIM_WINDOW)
    sample_factor = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    return _similarity(prediction, target, _window_mean, sample_factor)


def gaussian_ssim(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "*images"]:
    """Return each image's structural similarity, as pytorch_msssim computes it (protocol `gta`).

    The window is Gaussian, 11 x 11 pixels with deviation 1.5, and lies inside the image. Variances
    are weighted means, not those of a sample.
    """
    check_size(prediction, GAUSSIAN_WINDOW)
    return _similarity(prediction, target, _gaussian_mean, sample_factor=1.0)


def _similarity(
    prediction: Float[Tensor, "*images height width 3"],
    target: Float[Tensor, "*images height width 3"],
    window_mean: Callable[[Tensor], Tensor],
    sample_factor: float,
) -> Float[Tensor, "*images"]:
    """Return the mean of Wang et al.'s formula over positions and colours.

    Args:
        window_mean: averages images over the window at each position.
        sample_factor: multiplies the windows' variances and covariances.
    """
    # The means, variances and covariance of the two images in each window.
    x, y = channels_first(prediction), channels_first(target)  # (n, 3, h, w)
    mean_x, mean_y = window_mean(x), window_mean(y)  # (n, 3, h - window + 1, w - window + 1)
    variance_x = sample_factor * (window_mean(x * x) - mean_x * mean_x)
    variance_y = sample_factor * (window_mean(y * y) - mean_y * mean_y)
    covariance = sample_factor * (window_mean(x * y) - mean_x * mean_y)

    # The constants of the paper, which prevent a division by zero in uniform windows.
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3)).reshape(prediction.shape[:-3])


def _window_mean(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 _ _"]:
    return F.avg_pool2d(images, SSIM_WINDOW, stride=1)


def _gaussian_mean(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 _ _"]:
    # A Gaussian is the product of one along the rows and one along the columns.
    offsets = torch.arange(GAUSSIAN_WINDOW).to(images) - GAUSSIAN_WINDOW // 2
    weights = (-(offsets**2) / (2 * GAUSSIAN_DEVIATION**2)).exp()
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)  # (3, 1, 1, window)
    rows = F.conv2d(images, weights, groups=3)
    return F.conv2d(rows, weights.transpose(2, 3), groups=3)


def channels_first(
    images: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "n 3 height width"]:
    """Return the images in float64 and in PyTorch's order of dimensions."""
    return images.double().reshape(-1, *images.shape[-3:]).permute(0, 3, 1, 2)


def _squared_error(
    prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    return (prediction.double() - target.double()) ** 2


def _decibels(mean_squared_error: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return -10 * mean_squared_error.log10()


def check_size(images: Float[Tensor, "*images height width 3"], smallest_side: int) -> None:
    """Check that the images are large enough for a metric.

    Raises:
        ValueError: a side is shorter than `smallest_side`.
    """
    height, width = images.shape[-3:-1]
    if min(height, width) < smallest_side:
        raise ValueError(
            f"images of height {height} and width {width}: this metric needs at least "
            f"{smallest_side} pixels a side"
        )
