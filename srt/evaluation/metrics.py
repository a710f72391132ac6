"""Image metrics, one value an image. Images are (height, width, colour) with values in [0, 1].

Everything is computed in float64, so that a number depends neither on TF32 nor on autocast, and
on the batch size only in its last digits.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srt.common.shapes import Float

SSIM_WINDOW = 7
GAUSSIAN_WINDOW, GAUSSIAN_DEVIATION = 11, 1.5  # pixels

LpipsNetwork = Literal["vgg", "alex"]
# The five activations that LPIPS compares, as indices into torchvision's `features`.
_TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
_SMALLEST_SIDE = {"vgg": 16, "alex": 31}  # below it a pooling layer has nothing left to pool
_PUBLISHED_FILE = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


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
    _check_size(prediction, SSIM_WINDOW)
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
    _check_size(prediction, GAUSSIAN_WINDOW)
    return _similarity(prediction, target, _gaussian_mean, 1.0)


class Lpips(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018), as the package `lpips` 0.1.4 computes it."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone_file: Path, network: LpipsNetwork) -> None:
        """Reads the weights on the CPU; move the module to a device with `.to`.

        Args:
            backbone_file: torchvision's ImageNet weights, under the name they are published by.

        Raises FileNotFoundError for a missing file, ValueError for one that is not what its name
        says.
        """
        super().__init__()
        self.network = network
        self.features = _vgg16_features() if network == "vgg" else _alexnet_features()
        _load_backbone(self.features, backbone_file, network)
        self.heads = nn.ParameterList(_load_heads(network))
        # Brings images in [-1, 1] to the mean and deviation that the backbones were trained with.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).reshape(3, 1, 1))
        self.double().eval().requires_grad_(False)

    def forward(
        self,
        prediction: Float[Tensor, "*images height width 3"],
        target: Float[Tensor, "*images height width 3"],
    ) -> Float[Tensor, "*images"]:
        """Returns the distance of each pair of images: 0 for equal ones, larger for unlike ones."""
        _check_size(prediction, _SMALLEST_SIDE[self.network])
        distance = prediction.new_zeros(prediction.shape[:-3].numel(), dtype=torch.float64)
        x, y = self._scaled(prediction), self._scaled(target)
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in _TAPS[self.network]:
                head = self.heads[_TAPS[self.network].index(index)]
                difference = (_unit_channels(x) - _unit_channels(y)) ** 2  # (n, c, h, w)
                distance = distance + difference.mean(dim=(2, 3)) @ head
        return distance.reshape(prediction.shape[:-3])

    def _scaled(
        self, images: Float[Tensor, "*images height width 3"]
    ) -> Float[Tensor, "n 3 height width"]:
        return (2 * _channels_first(images) - 1 - self.shift) / self.scale


def _vgg16_features() -> nn.Sequential:
    """Returns torchvision's `vgg16().features` up to the last activation that LPIPS reads."""
    layers: list[nn.Module] = []
    channels = 3
    for block in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _alexnet_features() -> nn.Sequential:
    """Returns torchvision's `alexnet().features` up to the last activation that LPIPS reads."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _load_backbone(features: nn.Sequential, file: Path, network: LpipsNetwork) -> None:
    """Fills the layers from torchvision's file, once its name, checksum and tensors are right."""
    _check_backbone_file(file, network)
    state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"{file}: holds a {type(state).__name__}, not a dictionary of tensors")
    # The rest of the file, the classifier, is not part of LPIPS.
    found = {str(key): value for key, value in state.items() if str(key).startswith("features.")}
    wanted = features.state_dict(prefix="features.")
    problems = [f"{key} is missing" for key in wanted.keys() - found.keys()]
    problems += [f"{key} is not expected" for key in found.keys() - wanted.keys()]
    problems += [
        f"{key} has shape {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted.keys() & found.keys()
        if found[key].shape != wanted[key].shape
    ]
    if problems:
        raise ValueError(
            f"{file}: not the weights of LPIPS backbone {network}: {'; '.join(sorted(problems))}. "
            f"Use torchvision's {_PUBLISHED_FILE[network]}"
        )
    features.load_state_dict({key.removeprefix("features."): found[key] for key in found})


def _check_backbone_file(file: Path, network: LpipsNetwork) -> None:
    """Raises where the file is missing, or its sha256 does not begin with the digits in its name.

    The name must be the published one too: torchvision also has VGG16 weights with the same tensor
    names, trained with another scaling of the input, whose numbers would not be LPIPS.
    """
    published = _PUBLISHED_FILE[network]
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; put torchvision's {published} there")
    stem = published.rsplit("-", 1)[0]
    name = re.fullmatch(rf"{stem}-([0-9a-f]{{8}})\.pth", file.name)
    if name is None:
        raise ValueError(
            f"{file}: LPIPS backbone {network} is read from a file named {stem}-<first 8 digits of "
            f"its sha256>.pth; use torchvision's {published}, under that name"
        )
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(name[1]):
        raise ValueError(
            f"{file}: its sha256 begins with {digest[:8]}, not with the {name[1]} of its name, so "
            f"the file is damaged or incomplete; download torchvision's {published} again"
        )


def _load_heads(network: LpipsNetwork) -> list[Float[Tensor, " channels"]]:
    """Returns the five layers' learned channel weights (LPIPS 0.1), which torchmetrics ships.

    torchmetrics is located but not imported: that takes seconds, and fails beside a torchvision
    that does not fit the installed torch.
    """
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("LPIPS reads weights from torchmetrics: pip install torchmetrics")
    file = Path(package.origin).parent / "functional/image/lpips_models" / f"{network}.pth"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: LPIPS' weights are missing; reinstall torchmetrics")
    state = torch.load(file, map_location="cpu", weights_only=True)
    return [state[f"lin{index}.model.1.weight"].flatten() for index in range(len(_TAPS[network]))]


def _unit_channels(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


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
    x, y = _channels_first(prediction), _channels_first(target)
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


def _channels_first(
    images: Float[Tensor, "*images height width 3"],
) -> Float[Tensor, "n 3 height width"]:
    return images.double().reshape(-1, *images.shape[-3:]).permute(0, 3, 1, 2)


def _squared_error(
    prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    return (prediction.double() - target.double()) ** 2


def _decibels(mean_squared_error: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return -10 * mean_squared_error.log10()


def _check_size(images: Float[Tensor, "*images height width 3"], smallest_side: int) -> None:
    """Raises where the images are too small to be measured."""
    height, width = images.shape[-3:-1]
    if min(height, width) < smallest_side:
        raise ValueError(
            f"images of height {height} and width {width}: this metric needs at least "
            f"{smallest_side} pixels a side"
        )
