"""PSNR, SSIM and 8-bit images: equality with scikit-image, and properties of all metrics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from srt.evaluation.metrics import gaussian_ssim, pooled_psnr, psnr, ssim, to_8_bit


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def natural_images() -> tuple[Tensor, Tensor]:
    """Return two predictions of a photograph and the photograph twice.

    One prediction is noisy, and the other one is moved by two pixels.
    """
    clean = torch.from_numpy(data.astronaut()[:200, :160] / 255.0)
    noise = 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    noisy = (clean + noise).clamp(0, 1)
    return torch.stack((noisy, clean.roll(2, dims=0))), torch.stack((clean, clean))


def image_pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """Return predictions and targets: natural, random, similar and constant images."""
    rng = torch.Generator().manual_seed(3)
    pairs = {"natural": natural_images()}
    for height, width in ((7, 7), (7, 20), (64, 64), (33, 10)):
        x, y = torch.rand(2, 3, height, width, 3, generator=rng)
        pairs[f"random {height}x{width}"] = (x, y)
        pairs[f"similar {height}x{width}"] = ((x + 0.05 * y).clamp(0, 1), x)
    for x, y in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.999), (0.3, 0.7)):
        pairs[f"constant {x} {y}"] = (torch.full((1, 16, 16, 3), x), torch.full((1, 16, 16, 3), y))
    return pairs


PAIRS = image_pairs()
LARGE_PAIRS = [name for name, (image, _) in PAIRS.items() if min(image.shape[1:3]) > 10]


def scikit_image_values(metric: Callable[..., float], name: str, **settings: object) -> list[float]:
    """Return the values of a metric of scikit-image for all images of a pair."""
    prediction, target = PAIRS[name]
    images = zip(prediction.double().numpy(), target.double().numpy())
    return [metric(y, x, data_range=1, **settings) for x, y in images]


@pytest.mark.parametrize("name", PAIRS)
def test_ssim_is_that_of_scikit_image(name: str) -> None:
    expected = scikit_image_values(structural_similarity, name, channel_axis=-1, win_size=7)
    np.testing.assert_allclose(ssim(*PAIRS[name]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LARGE_PAIRS)
def test_gaussian_ssim_is_that_of_scikit_image_without_the_border(name: str) -> None:
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = scikit_image_values(structural_similarity, name, channel_axis=-1, **settings)
    np.testing.assert_allclose(gaussian_ssim(*PAIRS[name]), expected, atol=1e-9, rtol=0)


def test_psnr_is_that_of_scikit_image() -> None:
    expected = scikit_image_values(peak_signal_noise_ratio, "random 64x64")
    np.testing.assert_allclose(psnr(*PAIRS["random 64x64"]), expected, rtol=1e-9)


def test_the_gaussian_window_has_its_definition_and_lies_inside_the_image() -> None:
    """The image has the size of the window, so that its SSIM is that of one position."""
    x, y = torch.rand(2, 11, 11, 3, generator=torch.Generator().manual_seed(5)).double()
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights = torch.from_numpy(weights / weights.sum())[..., None]  # (11, 11, 1)

    # The weighted means, variances and covariance of each colour.
    mean_x, mean_y = (weights * x).sum((0, 1)), (weights * y).sum((0, 1))
    variance_x = (weights * (x - mean_x) ** 2).sum((0, 1))
    variance_y = (weights * (y - mean_y) ** 2).sum((0, 1))
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum((0, 1))

    # Wang et al. 2004.
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4)
    expected = (luminance * structure).mean()
    torch.testing.assert_close(gaussian_ssim(x, y), expected, atol=1e-12, rtol=0)


def test_psnr_of_a_constant_error_is_exact_and_it_is_infinite_without_error() -> None:
    target = torch.full((2, 8, 8, 3), 0.5)
    prediction = target + torch.tensor([0.25, 0.0])[:, None, None, None]
    expected = torch.tensor([20 * np.log10(4), np.inf], dtype=torch.float64)
    torch.testing.assert_close(psnr(prediction, target), expected)


def test_pooled_psnr_averages_errors_before_the_logarithm(rng: torch.Generator) -> None:
    # Four items have five views each. The first view has a small error.
    prediction, target = torch.rand(2, 4, 5, 8, 9, 3, generator=rng)
    prediction[:, 0] = target[:, 0] + 0.01

    # The views of an item are like one image that is five times as high.
    pooled = pooled_psnr(prediction, target)
    one_tall_image = psnr(prediction.flatten(1, 2), target.flatten(1, 2))
    torch.testing.assert_close(pooled, one_tall_image)
    assert (pooled < psnr(prediction, target).mean(dim=1)).all()


def test_rounding_changes_no_8_bit_image_and_gives_others_the_nearest_level() -> None:
    levels = torch.arange(256) / 255
    torch.testing.assert_close(to_8_bit(levels), levels, atol=0, rtol=0)
    torch.testing.assert_close(to_8_bit(levels + 0.4 / 255), levels, atol=0, rtol=0)
    other_values = torch.tensor([-0.2, 0.2 / 255, 0.8 / 255, 1.2])
    torch.testing.assert_close(to_8_bit(other_values), torch.tensor([0.0, 0.0, 1 / 255, 1.0]))


@pytest.mark.parametrize("metric", [psnr, ssim, gaussian_ssim])
def test_metrics_keep_leading_dimensions_and_do_not_depend_on_the_batch(
    metric: Callable[[Tensor, Tensor], Tensor], rng: torch.Generator
) -> None:
    prediction, target = torch.rand(2, 2, 3, 12, 11, 3, generator=rng)
    values = metric(prediction, target)
    assert values.shape == (2, 3)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values[1, 2], metric(prediction[1, 2], target[1, 2]))


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match=r"width 6.*at least 7 pixels"):
        ssim(torch.rand(1, 9, 6, 3), torch.rand(1, 9, 6, 3))
    with pytest.raises(ValueError, match=r"width 10.*at least 11 pixels"):
        gaussian_ssim(torch.rand(1, 12, 10, 3), torch.rand(1, 12, 10, 3))
