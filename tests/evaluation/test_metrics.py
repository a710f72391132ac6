import hashlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from srt.evaluation.lpips import Lpips
from srt.evaluation.metrics import gaussian_ssim, pooled_psnr, psnr, ssim, to_8_bit

# What the published networks do, layer by layer: (name in torchvision's file, output channels,
# kernel, stride, padding), "pool", or "tap" where LPIPS compares the two images.
VGG = []
for start, count, width in ((0, 2, 64), (5, 2, 128), (10, 3, 256), (17, 3, 512), (24, 3, 512)):
    VGG += ["pool"] if start else []
    VGG += [(f"features.{start + 2 * i}", width, 3, 1, 1) for i in range(count)]
    VGG += ["tap"]
ALEX = [
    *(("features.0", 64, 11, 4, 2), "tap", "pool"),
    *(("features.3", 192, 5, 1, 2), "tap", "pool"),
    *(("features.6", 384, 3, 1, 1), "tap"),
    *(("features.8", 256, 3, 1, 1), "tap"),
    *(("features.10", 256, 3, 1, 1), "tap"),
]
LAYERS = {"vgg": (VGG, 2), "alex": (ALEX, 3)}  # and the size of the pooling window, of stride 2
STEM = {"vgg": "vgg16", "alex": "alexnet-owt"}


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def save_backbone(state: dict[str, Tensor], folder: Path, stem: str) -> Path:
    """Returns the file, named after its own checksum as torchvision names its files."""
    torch.save(state, folder / "unnamed.pth")
    digest = hashlib.sha256((folder / "unnamed.pth").read_bytes()).hexdigest()
    return (folder / "unnamed.pth").rename(folder / f"{stem}-{digest[:8]}.pth")


def random_backbone(network: str, rng: torch.Generator) -> dict[str, Tensor]:
    state, channels = {}, 3
    for name, width, kernel, _, _ in (x for x in LAYERS[network][0] if isinstance(x, tuple)):
        weight = torch.randn(width, channels, kernel, kernel, generator=rng)
        state[f"{name}.weight"] = weight * (2 / (channels * kernel**2)) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=rng)
        channels = width
    return state | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module", params=["vgg", "alex"])
def random_lpips(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lpips, dict[str, Tensor]]:
    network = request.param
    state = random_backbone(network, torch.Generator().manual_seed(1))
    file = save_backbone(state, tmp_path_factory.mktemp(network), STEM[network])
    return Lpips(file, network), state


def plain_lpips(network: str, state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """LPIPS 0.1 of two images (3, h, w) in [-1, 1], written from its definition."""
    package = Path(find_spec("torchmetrics").submodule_search_locations[0])
    heads = torch.load(package / f"functional/image/lpips_models/{network}.pth", map_location="cpu")
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((z - shift[:, None, None]) / scale[:, None, None])[None] for z in (x, y))
    steps, pool = LAYERS[network]
    distance, tap = torch.zeros(()), 0
    for step in steps:
        if step == "pool":
            x, y = F.max_pool2d(x, pool, 2), F.max_pool2d(y, pool, 2)
        elif step == "tap":
            unit_x, unit_y = (z / ((z**2).sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
            weighted = F.conv2d((unit_x - unit_y) ** 2, heads[f"lin{tap}.model.1.weight"])
            distance, tap = distance + weighted.mean(), tap + 1
        else:
            name, _, _, stride, padding = step
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            x, y = (F.conv2d(z, weight, bias, stride, padding).relu() for z in (x, y))
    return distance


def natural_images() -> tuple[Tensor, Tensor]:
    """A photograph, noisy and clean, and the same moved by two pixels and clean."""
    clean = torch.from_numpy(data.astronaut()[:200, :160] / 255.0)
    noise = 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    noisy = (clean + noise).clamp(0, 1)
    return torch.stack((noisy, clean.roll(2, dims=0))), torch.stack((clean, clean))


def image_pairs() -> dict[str, tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(3)
    pairs = {"natural": natural_images()}
    for height, width in ((7, 7), (7, 20), (64, 64), (33, 10)):
        x, y = torch.rand(2, 3, height, width, 3, generator=rng)
        pairs[f"random {height}x{width}"] = (x, y)
        pairs[f"alike {height}x{width}"] = ((x + 0.05 * y).clamp(0, 1), x)
    for x, y in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.999), (0.3, 0.7)):
        pairs[f"constant {x} {y}"] = (torch.full((1, 16, 16, 3), x), torch.full((1, 16, 16, 3), y))
    return pairs


PAIRS = image_pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_ssim_is_that_of_scikit_image(name: str) -> None:
    prediction, target = PAIRS[name]
    expected = [
        structural_similarity(x, y, channel_axis=-1, data_range=1, win_size=7)
        for x, y in zip(prediction.double().numpy(), target.double().numpy())
    ]
    np.testing.assert_allclose(ssim(prediction, target), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n, (x, _) in PAIRS.items() if min(x.shape[1:3]) > 10])
def test_gaussian_ssim_is_that_of_scikit_image_without_the_border(name: str) -> None:
    prediction, target = PAIRS[name]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        structural_similarity(x, y, channel_axis=-1, data_range=1, **settings)
        for x, y in zip(prediction.double().numpy(), target.double().numpy())
    ]
    np.testing.assert_allclose(gaussian_ssim(prediction, target), expected, atol=1e-9, rtol=0)


def test_the_gaussian_window_is_the_definitions_and_lies_inside_the_image() -> None:
    x, y = torch.rand(2, 11, 11, 3, generator=torch.Generator().manual_seed(5)).double()
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights = torch.from_numpy(weights / weights.sum())[..., None]
    mean_x, mean_y = ((weights * z).sum((0, 1)) for z in (x, y))
    variance_x, variance_y = ((weights * z**2).sum((0, 1)) for z in (x - mean_x, y - mean_y))
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum((0, 1))
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4)
    expected = (luminance * structure).mean()
    torch.testing.assert_close(gaussian_ssim(x, y), expected, atol=1e-12, rtol=0)


def test_psnr_is_that_of_scikit_image() -> None:
    prediction, target = PAIRS["random 64x64"]
    expected = [
        peak_signal_noise_ratio(y, x, data_range=1)
        for x, y in zip(prediction.double().numpy(), target.double().numpy())
    ]
    np.testing.assert_allclose(psnr(prediction, target), expected, rtol=1e-9)


def test_psnr_of_a_known_error_is_exact_in_float32_and_infinite_without_error() -> None:
    target = torch.full((2, 8, 8, 3), 0.5)
    prediction = target + torch.tensor([0.25, 0.0])[:, None, None, None]
    expected = torch.tensor([20 * np.log10(4), np.inf], dtype=torch.float64)
    torch.testing.assert_close(psnr(prediction, target), expected)


def test_pooled_psnr_averages_errors_before_the_logarithm(rng: torch.Generator) -> None:
    prediction, target = torch.rand(2, 4, 5, 8, 9, 3, generator=rng)  # 4 items of 5 views
    prediction[:, 0] = target[:, 0] + 0.01
    pooled = pooled_psnr(prediction, target)
    one_tall_image = psnr(prediction.flatten(1, 2), target.flatten(1, 2))
    torch.testing.assert_close(pooled, one_tall_image)
    assert (pooled < psnr(prediction, target).mean(dim=1)).all()


def test_eight_bit_images_are_unchanged_by_rounding_and_others_go_to_the_nearest_level() -> None:
    levels = torch.arange(256) / 255
    torch.testing.assert_close(to_8_bit(levels), levels, atol=0, rtol=0)
    torch.testing.assert_close(to_8_bit(levels + 0.4 / 255), levels, atol=0, rtol=0)
    between = torch.tensor([-0.2, 0.2 / 255, 0.8 / 255, 1.2])
    torch.testing.assert_close(to_8_bit(between), torch.tensor([0.0, 0.0, 1 / 255, 1.0]))


@pytest.mark.parametrize("metric", [psnr, ssim, gaussian_ssim])
def test_metrics_keep_leading_dimensions_and_do_not_depend_on_the_batch(
    metric: Callable[[Tensor, Tensor], Tensor], rng: torch.Generator
) -> None:
    prediction, target = torch.rand(2, 2, 3, 12, 11, 3, generator=rng)
    together = metric(prediction, target)
    assert together.shape == (2, 3)
    assert together.dtype == torch.float64
    torch.testing.assert_close(together[1, 2], metric(prediction[1, 2], target[1, 2]))


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match=r"width 6.*at least 7 pixels"):
        ssim(torch.rand(1, 9, 6, 3), torch.rand(1, 9, 6, 3))
    with pytest.raises(ValueError, match=r"width 10.*at least 11 pixels"):
        gaussian_ssim(torch.rand(1, 12, 10, 3), torch.rand(1, 12, 10, 3))


def test_lpips_is_that_of_a_plain_implementation(
    random_lpips: tuple[Lpips, dict[str, Tensor]], rng: torch.Generator
) -> None:
    lpips, state = random_lpips
    prediction, target = torch.rand(2, 2, 32, 40, 3, generator=rng)
    expected = [
        plain_lpips(lpips.network, state, *(2 * z.permute(2, 0, 1) - 1 for z in pair))
        for pair in zip(prediction, target)
    ]
    np.testing.assert_allclose(lpips(prediction, target), expected, rtol=1e-5)


def test_lpips_is_zero_for_equal_images_and_grows_with_noise(
    random_lpips: tuple[Lpips, dict[str, Tensor]],
) -> None:
    lpips, _ = random_lpips
    clean = torch.from_numpy(data.astronaut()[100:132, 200:232] / 255.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    noisy = torch.stack([(clean + sigma * noise).clamp(0, 1) for sigma in (0.0, 0.02, 0.1, 0.4)])
    distances = lpips(noisy, clean.expand_as(noisy))
    assert distances[0] == 0
    assert (distances.diff() > 0).all()


def test_lpips_does_not_depend_on_the_batch_or_on_autocast(
    random_lpips: tuple[Lpips, dict[str, Tensor]], rng: torch.Generator
) -> None:
    lpips, _ = random_lpips
    prediction, target = torch.rand(2, 1, 2, 32, 32, 3, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        together = lpips(prediction, target)
    assert together.shape == (1, 2)
    torch.testing.assert_close(together[0, 1], lpips(prediction[0, 1], target[0, 1]))


def test_lpips_refuses_images_that_its_pooling_would_use_up(
    random_lpips: tuple[Lpips, dict[str, Tensor]],
) -> None:
    lpips, _ = random_lpips
    smallest = {"vgg": 16, "alex": 31}[lpips.network]
    lpips(torch.rand(1, smallest, smallest, 3), torch.rand(1, smallest, smallest, 3))
    with pytest.raises(ValueError, match=f"at least {smallest} pixels"):
        lpips(torch.rand(1, smallest - 1, 64, 3), torch.rand(1, smallest - 1, 64, 3))


def test_a_missing_backbone_file_is_named_with_the_one_to_get(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pth.*vgg16-397923af\.pth"):
        Lpips(tmp_path / "absent.pth", "vgg")


def test_a_damaged_backbone_file_is_refused_with_both_checksums(tmp_path: Path) -> None:
    file = tmp_path / "alexnet-owt-7be5be79.pth"
    file.write_bytes(b"half a download")
    digest = hashlib.sha256(b"half a download").hexdigest()
    with pytest.raises(ValueError, match=f"{digest[:8]}.*7be5be79"):
        Lpips(file, "alex")


@pytest.mark.parametrize(
    "name", ["vgg16.pth", "vgg16_features-amdegroot-88682ab5.pth", "alexnet-owt-7be5be79.pth"]
)
def test_a_backbone_file_of_another_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name}.*vgg16-397923af.pth"):
        Lpips(tmp_path / name, "vgg")


def test_missing_unknown_and_misshapen_tensors_are_all_named(
    tmp_path: Path, rng: torch.Generator
) -> None:
    state = random_backbone("alex", rng)
    del state["features.3.bias"]
    state["features.12.weight"] = torch.zeros(1)
    state["features.8.bias"] = torch.zeros(7)
    file = save_backbone(state, tmp_path, STEM["alex"])
    with pytest.raises(ValueError, match="LPIPS backbone alex") as error:
        Lpips(file, "alex")
    assert "features.3.bias is missing" in str(error.value)
    assert "features.12.weight is not expected" in str(error.value)
    assert "features.8.bias has shape (7,) instead of (256,)" in str(error.value)


def test_lpips_is_built_without_importing_torchmetrics(
    tmp_path: Path, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_backbone(random_backbone("alex", rng), tmp_path, STEM["alex"])
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    Lpips(file, "alex")
    assert "torchmetrics" not in sys.modules
