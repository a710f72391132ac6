"""LPIPS: equality with a plain implementation, and refusal of files that are not its weights.

The backbones have random weights, because the tests download nothing.
"""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from skimage import data
from torch import Tensor

from srt.evaluation.lpips import Lpips

# What the published networks do, layer by layer: (name in torchvision's file, output channels,
# kernel, stride, padding), "pool", or "tap" where LPIPS compares the two images.
VGG = []
for start, count, width in ((0, 2, 64), (5, 2, 128), (10, 3, 256), (17, 3, 512), (24, 3, 512)):
    VGG += ["pool"] if start else []
    VGG += [(f"features.{start + 2 * i}", width, 3, 1, 1) for i in range(count)]
    VGG += ["tap"]
ALEX = [
    ("features.0", 64, 11, 4, 2),
    "tap",
    "pool",
    ("features.3", 192, 5, 1, 2),
    "tap",
    "pool",
    ("features.6", 384, 3, 1, 1),
    "tap",
    ("features.8", 256, 3, 1, 1),
    "tap",
    ("features.10", 256, 3, 1, 1),
    "tap",
]
LAYERS = {"vgg": VGG, "alex": ALEX}
POOLING_WINDOW = {"vgg": 2, "alex": 3}  # pixels, always with stride 2
STEM = {"vgg": "vgg16", "alex": "alexnet-owt"}


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def save_backbone(state: dict[str, Tensor], folder: Path, stem: str) -> Path:
    """Write a file whose name holds its own checksum, like torchvision's, and return it."""
    torch.save(state, folder / "unnamed.pth")
    digest = hashlib.sha256((folder / "unnamed.pth").read_bytes()).hexdigest()
    return (folder / "unnamed.pth").rename(folder / f"{stem}-{digest[:8]}.pth")


def random_backbone(network: str, rng: torch.Generator) -> dict[str, Tensor]:
    """Return random weights under torchvision's names, with a tensor of the classifier."""
    state, channels = {}, 3
    convolutions = [layer for layer in LAYERS[network] if isinstance(layer, tuple)]
    for name, width, kernel, _, _ in convolutions:
        # This deviation keeps the size of the activations from layer to layer.
        weight = torch.randn(width, channels, kernel, kernel, generator=rng)
        state[f"{name}.weight"] = weight * (2 / (channels * kernel**2)) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=rng)
        channels = width
    return state | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module", params=["vgg", "alex"])
def random_lpips(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lpips, dict[str, Tensor]]:
    """Return the distance of a network with random weights, and these weights."""
    network = request.param
    state = random_backbone(network, torch.Generator().manual_seed(1))
    file = save_backbone(state, tmp_path_factory.mktemp(network), STEM[network])
    return Lpips(file, network), state


def plain_lpips(network: str, state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return LPIPS 0.1 of two images (3, h, w) in [-1, 1], computed by its definition."""
    package = Path(find_spec("torchmetrics").submodule_search_locations[0])
    heads = torch.load(package / f"functional/image/lpips_models/{network}.pth", map_location="cpu")

    # Normalise the images as the backbones expect them.
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    x, y = ((x - shift) / scale)[None], ((y - shift) / scale)[None]  # (1, 3, h, w)

    distance, tap = torch.zeros(()), 0
    for layer in LAYERS[network]:
        if layer == "pool":
            window = POOLING_WINDOW[network]
            x, y = F.max_pool2d(x, window, 2), F.max_pool2d(y, window, 2)
        elif layer == "tap":
            # Compare the directions of the pixels' features, weighted by channel.
            difference = (unit_length(x) - unit_length(y)) ** 2
            weighted = F.conv2d(difference, heads[f"lin{tap}.model.1.weight"])
            distance, tap = distance + weighted.mean(), tap + 1
        else:
            name, _, _, stride, padding = layer
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            x = F.conv2d(x, weight, bias, stride, padding).relu()
            y = F.conv2d(y, weight, bias, stride, padding).relu()
    return distance


def unit_length(features: Tensor) -> Tensor:
    return features / ((features**2).sum(1, keepdim=True).sqrt() + 1e-10)


def test_lpips_is_that_of_a_plain_implementation(
    random_lpips: tuple[Lpips, dict[str, Tensor]], rng: torch.Generator
) -> None:
    lpips, state = random_lpips
    prediction, target = torch.rand(2, 2, 32, 40, 3, generator=rng)
    expected = []
    for x, y in zip(2 * prediction.permute(0, 3, 1, 2) - 1, 2 * target.permute(0, 3, 1, 2) - 1):
        expected.append(plain_lpips(lpips.network, state, x, y))
    np.testing.assert_allclose(lpips(prediction, target), expected, rtol=1e-5)


def test_the_convolutions_in_safetensors_are_read_like_the_published_file(
    random_lpips: tuple[Lpips, dict[str, Tensor]], tmp_path: Path, rng: torch.Generator
) -> None:
    lpips, state = random_lpips
    convolutions = {key: value for key, value in state.items() if key.startswith("features.")}
    save_file(convolutions, tmp_path / "unnamed")
    digest = hashlib.sha256((tmp_path / "unnamed").read_bytes()).hexdigest()
    name = f"{STEM[lpips.network]}-{digest[:8]}.safetensors"
    other = Lpips((tmp_path / "unnamed").rename(tmp_path / name), lpips.network)
    prediction, target = torch.rand(2, 2, 32, 40, 3, generator=rng)
    assert torch.equal(lpips(prediction, target), other(prediction, target))

    # In float32, which is faster on a CPU, the distance is nearly the same.
    distances = other.float()(prediction, target)
    torch.testing.assert_close(distances, lpips(prediction, target), rtol=1e-4, atol=1e-6)


def test_lpips_is_zero_for_equal_images_and_grows_with_noise(
    random_lpips: tuple[Lpips, dict[str, Tensor]],
) -> None:
    lpips, _ = random_lpips
    clean = torch.from_numpy(data.astronaut()[100:132, 200:232] / 255.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    noisy = torch.stack([(clean + sigma * noise).clamp(0, 1) for sigma in (0.0, 0.02, 0.1, 0.4)])

    # The first image has no noise, and each has more than the one before it.
    distances = lpips(noisy, clean.expand_as(noisy))
    assert distances[0] == 0
    assert (distances.diff() > 0).all()


def test_lpips_does_not_depend_on_the_batch_or_on_autocast(
    random_lpips: tuple[Lpips, dict[str, Tensor]], rng: torch.Generator
) -> None:
    lpips, _ = random_lpips
    prediction, target = torch.rand(2, 1, 2, 32, 32, 3, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        distances = lpips(prediction, target)
    assert distances.shape == (1, 2)
    torch.testing.assert_close(distances[0, 1], lpips(prediction[0, 1], target[0, 1]))


def test_lpips_refuses_images_that_are_too_small_for_its_pooling(
    random_lpips: tuple[Lpips, dict[str, Tensor]],
) -> None:
    lpips, _ = random_lpips
    smallest = {"vgg": 16, "alex": 31}[lpips.network]
    lpips(torch.rand(1, smallest, smallest, 3), torch.rand(1, smallest, smallest, 3))
    with pytest.raises(ValueError, match=f"at least {smallest} pixels"):
        lpips(torch.rand(1, smallest - 1, 64, 3), torch.rand(1, smallest - 1, 64, 3))


def test_a_missing_backbone_file_is_named_with_the_published_one(tmp_path: Path) -> None:
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


def test_all_tensors_that_are_missing_unknown_or_of_another_shape_are_named(
    tmp_path: Path, rng: torch.Generator
) -> None:
    # Remove a tensor, add one, and give one another shape.
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


def test_lpips_does_not_import_torchmetrics(
    tmp_path: Path, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_backbone(random_backbone("alex", rng), tmp_path, STEM["alex"])
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    Lpips(file, "alex")
    assert "torchmetrics" not in sys.modules
