"""Files of published checkpoints: which are read, and which are refused before their code runs."""

import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import REFERENCE
from support.published_form import STEP, equal_values, published_content
from support.tiny_training import PARAMS, VARIANTS, one_thread, tiny_experiment

from srt.common.errors import UserError
from srt.config.load import load_experiment
from srt.model.srt import build_model
from srt.published.checkpoint import (
    checkpoint_from_training,
    read_checkpoint,
    training_from_checkpoint,
)
from srt.published.tensor_names import published_order


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return tiny_experiment(tmp_path_factory.mktemp("params"))


@pytest.mark.parametrize("name", ["nmr_srt", "msn_isrt", "nmr_vsrt"])
def test_tensors_have_the_order_and_shapes_of_a_published_checkpoint(name):
    experiment = load_experiment(PARAMS, name, "paper")
    with torch.device("meta"):
        ours = build_model(experiment.model, seed=0).state_dict()
    file = REFERENCE / f"manifest_{experiment.model.name}.json"
    shapes = {t: list(ours[name].shape) for t, name in published_order(experiment.model, ours)}
    assert list(shapes.items()) == list(json.loads(file.read_text())["tensors"].items())


@pytest.mark.parametrize("numpy", ["numpy._core", "numpy.core"])  # of NumPy 2 and 1
def test_numbers_of_numpy_and_steps_of_pytorch_1_11_are_read(experiment, tmp_path, numpy):
    # PyTorch 1.11 counts the steps in Python numbers, and its Adam has fewer options.
    content, *_ = published_content(experiment)
    content["loss_val_best"] = np.float64(27.28)
    content["t"] = np.float32(0.5)
    for state in content["optimizer"]["state"].values():
        state["step"] = int(state["step"])
    for key in ("maximize", "foreach", "capturable", "differentiable", "fused"):
        content["optimizer"]["param_groups"][0].pop(key)

    # Write the file again, with the module of a NumPy of this version in its pickles.
    path = tmp_path / "model.pt"
    torch.save(content, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(path, "w") as archive:
        for name in new.namelist():
            pickled = re.sub(rb"numpy\._?core\.multi", numpy.encode() + b".multi", new.read(name))
            archive.writestr(name, pickled)
    training = training_from_checkpoint(read_checkpoint(path), experiment, True, path)
    assert (training.best_psnr, training.seconds) == (27.28, 0.5)
    assert all(float(state["step"]) == STEP for state in training.optimizer.state.values())


class Harmful:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def add_code(path, content):
    torch.save({**content, "run_id": Harmful(path.parent / "harm")}, path)


def add_class(path, content):
    torch.save({**content, "run_id": Harmful}, path)


def add_array(path, content):
    torch.save({**content, "run_id": np.zeros(2)}, path)


def truncate(path, content):
    path.write_bytes(path.read_bytes()[:-2000])


def flip_a_bit(path, content):
    file, weights = bytearray(path.read_bytes()), next(iter(content["encoder"].values()))
    file[file.find(weights.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(file)


def write_bare_pickle(path, content):
    path.write_bytes(pickle.dumps(Harmful(path.parent / "harm"), 2))


def write_nothing(path, content):
    path.write_bytes(b"")


def write_tensor(path, content):
    torch.save(torch.zeros(3), path)


def write_state_dict(path, content):
    torch.save(content["encoder"], path)


def delete(path, content):
    path.unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (add_code, r"holds (posix|nt)\.mkdir, and reading them would run code"),
        (add_class, r"holds test_published_checkpoint\.Harmful, and"),
        (add_array, r"holds numpy\..*_reconstruct, numpy\.ndarray, and"),
        (truncate, r"damaged, or not written by torch.save \(BadZipFile"),
        (flip_a_bit, r"damaged: model/data/\d+ does not have its checksum"),
        (write_bare_pickle, r"damaged, or not written by torch.save"),
        (write_nothing, r"damaged, or not written by torch.save"),
        (write_tensor, r"has encoder and decoder, but this file has: Tensor"),
        (write_state_dict, r"has encoder and decoder, but this file has: \['pixel_embedding'"),
        (delete, r"there is no such file"),
    ],
)
def test_a_damaged_or_harmful_or_foreign_file_is_refused(harm, message, experiment, tmp_path):
    content, *_ = published_content(experiment)
    path = tmp_path / "model.pt"
    torch.save(content, path)
    harm(path, content)
    with pytest.raises(UserError, match=rf"model\.pt: .*{message}"):
        read_checkpoint(path)
    assert not (tmp_path / "harm").exists()


def remove_tensor(content):
    del content["decoder"]["ray_predictor.output_mlp.2.bias"]


def add_tensor(content):
    content["encoder"]["module.slots"] = torch.zeros(2)


def change_shape(content):
    content["encoder"]["per_patch_linear.bias"] = torch.zeros(17)


def change_type(content):
    content["encoder"]["per_patch_linear.bias"] = torch.zeros(16).half()


def write_number(content):
    content["encoder"]["per_patch_linear.bias"] = 0.0


def remove_steps(content):
    content["it"] = None


def break_psnr(content):
    content["loss_val_best"] = torch.zeros(2)


def remove_optimizer(content):
    del content["optimizer"]


def remove_moment(content):
    del content["optimizer"]["state"][2]


def remove_parameter(content):
    content["optimizer"]["param_groups"][0]["params"].pop()


def swap_moments(content):
    states = content["optimizer"]["state"]
    states[0], states[3] = states[3], states[0]


def change_betas(content):
    content["optimizer"]["param_groups"][0]["betas"] = (0.9, 0.95)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_tensor, r"decoder\.ray_predictor\.output_mlp\.2\.bias of nmr_srt's model missing"),
        (add_tensor, r"encoder\.module\.slots: not of nmr_srt's model"),
        (change_shape, r"encoder\.per_patch_linear\.bias: \[17\] .* there, \[16\] .* here"),
        (change_type, r"encoder\.per_patch_linear\.bias: .*float16 there, .*float32 here"),
        (write_number, r"encoder\.per_patch_linear\.bias: float instead of a tensor"),
        (remove_steps, r"it: None is not a number"),
        (break_psnr, r"loss_val_best: tensor.* is not a number"),
        (remove_optimizer, r"optimizer: not the state .*without --data, only the weights"),
        (remove_moment, r"optimizer: not the state .*without --data, only the weights"),
        (remove_parameter, r"optimizer: of \d+ tensors, not of \d+"),
        (swap_moments, r"optimizer: exp_avg of encoder\.pixel_embedding: .* there, .* here"),
        (change_betas, r"optimizer: betas \(0.9, 0.999\) here, \(0.9, 0.95\) there"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_name_of_the_tensor(
    change, message, experiment
):
    content, *_ = published_content(experiment)
    change(content)
    with pytest.raises(UserError, match=rf"model\.pt: {message}"):
        training_from_checkpoint(content, experiment, True, Path("model.pt"))


def test_a_fine_net_that_differs_from_the_coarse_one_is_refused_by_a_model_with_one(tmp_path):
    one, two = (tiny_experiment(tmp_path, VARIANTS[name]) for name in ("vsrt", "vsrt, two nets"))
    content, *_ = published_content(two)
    with pytest.raises(UserError, match=r"decoder\.fine_net\..* differs .*separate_fine_net: true"):
        training_from_checkpoint(content, one, False, Path("model.pt"))


@pytest.mark.slow
def test_a_round_trip_at_the_published_size(tmp_path):
    experiment = load_experiment(PARAMS, "nmr_srt", "paper")
    content, *_ = published_content(experiment, step=1)
    torch.save(content, tmp_path / "model.pt")
    read = read_checkpoint(tmp_path / "model.pt")
    training = training_from_checkpoint(read, experiment, True, tmp_path / "model.pt")
    assert sum(t.numel() for t in training.model.parameters()) == 73_932_563
    back = checkpoint_from_training(training, 1, "2x8k1")
    changed = [key for key in content if not equal_values(content[key], back[key])]
    assert changed == []
