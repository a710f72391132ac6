"""LPIPS: a perceptual distance between images, computed from features of VGG or AlexNet.

The backbone's weights are torchvision's, which the pipeline fetches, as published or from a
package. The weights of its channels come with torchmetrics. n images, c channels, h x w pixels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from srt.common.shapes import Float
from srt.evaluation.metrics import channels_first, check_size

LpipsNetwork = Literal["vgg", "alex"]
# The five activations that LPIPS compares, as indices into torchvision's `features`.
_TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
_SMALLEST_SIDE = {"vgg": 16, "alex": 31}  # pixels; a smaller image has nothing left to pool
_PUBLISHED_FILE = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


class Lpips(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018), as the package `lpips` 0.1.4 computes it."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone_file: Path, network: LpipsNetwork) -> None:
        """Read the weights on the CPU. The module can be moved to a device with `.to`.

        It computes in float64; after `.float()` in float32, which differs in the sixth decimal.

        Args:
            backbone_file: torchvision's ImageNet weights, under their published file name, or
                their convolutions as safetensors, as fetch converts them from a package.

        Raises:
            FileNotFoundError: the file is missing.
            ValueError: the file does not hold what its name says.
        """
        super().__init__()
        self.network = network
        self.features = _vgg16_features() if network == "vgg" else _alexnet_features()
        _load_backbone(self.features, backbone_file, network)
        self.heads = nn.ParameterList(_load_heads(network))

        # The backbones were trained with this mean and deviation; images are in [-1, 1] before.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).reshape(3, 1, 1))
        self.double().eval().requires_grad_(False)

    def forward(
        self,
        prediction: Float[Tensor, "*images height width 3"],
        target: Float[Tensor, "*images height width 3"],
    ) -> Float[Tensor, "*images"]:
        """Return the distance of each pair of images: 0 if they are equal, else positive."""
        check_size(prediction, _SMALLEST_SIDE[self.network])
        distance = prediction.new_zeros(prediction.shape[:-3].numel(), dtype=torch.float64)  # (n)
        x, y = self._normalise(prediction), self._normalise(target)  # (n, 3, h, w)

        # Five activations are compared on the way through the backbone. A head weights their
        # channels, and the five distances add up.
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in _TAPS[self.network]:
                head = self.heads[_TAPS[self.network].index(index)]
                difference = (_unit_channels(x) - _unit_channels(y)) ** 2  # (n, c, h, w)
                distance = distance + (difference.mean(dim=(2, 3)) @ head).double()
        return distance.reshape(prediction.shape[:-3])

    def _normalise(
        self, images: Float[Tensor, "*images height width 3"]
    ) -> Float[Tensor, "n 3 height width"]:
        normalised = (2 * channels_first(images) - 1 - self.shift) / self.scale
        return normalised.to(self.shift.dtype)


def _vgg16_features() -> nn.Sequential:
    """Return torchvision's `vgg16().features` up to the last activation that LPIPS reads."""
    layers: list[nn.Module] = []
    channels = 3

    # Each block of convolutions but the first begins with a pooling layer, which halves the size.
    for block in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _alexnet_features() -> nn.Sequential:
    """Return torchvision's `alexnet().features` up to the last activation that LPIPS reads."""
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
    """Load torchvision's weights into the layers, after checks of name, checksum and tensors."""
    _check_backbone_file(file, network)
    if file.suffix == ".safetensors":
        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"{file}: holds a {type(state).__name__}, not a dictionary of tensors")

    # LPIPS does not need the classifier, which is also in the file.
    tensors = {str(key): value for key, value in state.items() if str(key).startswith("features.")}
    expected = features.state_dict(prefix="features.")

    # Name all problems at once.
    problems = [f"{key} is missing" for key in expected.keys() - tensors.keys()]
    problems += [f"{key} is not expected" for key in tensors.keys() - expected.keys()]
    for key in expected.keys() & tensors.keys():
        shape, expected_shape = tuple(tensors[key].shape), tuple(expected[key].shape)
        if shape != expected_shape:
            problems.append(f"{key} has shape {shape} instead of {expected_shape}")
    if problems:
        raise ValueError(
            f"{file}: not the weights of LPIPS backbone {network}: {'; '.join(sorted(problems))}. "
            f"Use torchvision's {_PUBLISHED_FILE[network]}"
        )

    features.load_state_dict({key.removeprefix("features."): tensors[key] for key in tensors})


def _check_backbone_file(file: Path, network: LpipsNetwork) -> None:
    """Check that the file exists and that its sha256 begins with the digits in its name.

    The name must be the published one too. Torchvision also has VGG16 weights that were trained
    with another scaling of the input. Their tensors have the same names, but with them the result
    would not be LPIPS.
    """
    published = _PUBLISHED_FILE[network]
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: there is no such file; put torchvision's {published} there"
        )

    # The name holds the first 8 digits of the checksum.
    stem = published.rsplit("-", 1)[0]
    name = re.fullmatch(rf"{stem}-([0-9a-f]{{8}})\.(?:pth|safetensors)", file.name)
    if name is None:
        raise ValueError(
            f"{file}: LPIPS backbone {network} is read from a file named {stem}-<first 8 digits of "
            f"its sha256>.pth; use torchvision's {published}, under that name"
        )

    # An interrupted download has the right name but another checksum.
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(name[1]):
        raise ValueError(
            f"{file}: its sha256 begins with {digest[:8]}, not with the {name[1]} of its name, so "
            "the file is damaged or incomplete; delete it and fetch it again"
        )


def _load_heads(network: LpipsNetwork) -> list[Float[Tensor, " channels"]]:
    """Return the learned channel weights of the five layers (LPIPS 0.1) from torchmetrics' folder.

    The package is located but not imported: an import takes seconds, and it fails if the installed
    torchvision does not fit the installed torch.
    """
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("LPIPS reads weights from torchmetrics: pip install torchmetrics")
    file = Path(package.origin).parent / "functional/image/lpips_models" / f"{network}.pth"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: LPIPS' weights are missing; reinstall torchmetrics")

    # The heads are 1 x 1 convolutions to one channel: a vector of weights.
    state = torch.load(file, map_location="cpu", weights_only=True)
    return [state[f"lin{index}.model.1.weight"].flatten() for index in range(len(_TAPS[network]))]


def _unit_channels(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return the features with the channels of each pixel scaled to unit length."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
