"""Published checkpoints as a file: what is read, and what is refused without being run."""

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
from support.published_form import STEP, published_content, same
from support.tiny_training import PARAMS, VARIANTS, one_thread, tiny_experiment

from srt.common.errors import UserError
from srt.config.load import load_experiment
from srt.model.srt import build_model
from srt.published.checkpoint import from_training, read_checkpoint, to_training
from srt.published.tensor_names import published_order


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return tiny_experiment(tmp_path_factory.mktemp("params"))


@pytest.mark.parametrize("name", ["nmr_srt", "msn_isrt", "nmr_vsrt"])
def test_tensors_are_in_the_order_of_a_published_checkpoint_and_all_of_its_shapes(name):
    experiment = load_experiment(PARAMS, name, "paper")
    with torch.device("meta"):
        ours = build_model(experiment.model, seed=0).state_dict()
    file = REFERENCE / f"manifest_{experiment.model.name}.json"
    shapes = {t: list(ours[name].shape) for t, name in published_order(experiment.model, ours)}
    assert list(shapes.items()) == list(json.loads(file.read_text())["tensors"].items())


@pytest.mark.parametrize("numpy", ["numpy._core", "numpy.core"])  # of NumPy 2 and 1
def test_numbers_of_numpy_and_steps_of_pytorch_1_11_are_read(experiment, tmp_path, numpy):
    content, *_ = published_content(experiment)
    content["loss_val_best"] = np.float64(27.28)
    content["t"] = np.float32(0.5)
    for state in content["optimizer"]["state"].values():
        state["step"] = int(state["step"])
    for key in ("maximize", "foreach", "capturable", "differentiable", "fused"):
        content["optimizer"]["param_groups"][0].pop(key)
    torch.save(content, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "m.pt", "w") as m:
        for name in new.namelist():
            pickled = re.sub(rb"numpy\._?core\.multi", numpy.encode() + b".multi", new.read(name))
            m.writestr(name, pickled)
    training = to_training(read_checkpoint(tmp_path / "m.pt"), experiment, True, tmp_path / "m.pt")
    assert (training.best_psnr, training.seconds) == (27.28, 0.5)
    assert all(float(state["step"]) == STEP for state in training.optimizer.state.values())


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def with_code(path, content):
    torch.save({**content, "run_id": Harmful(path.parent / "harm")}, path)


def with_a_class(path, content):
    torch.save({**content, "run_id": Harmful}, path)


def with_an_array(path, content):
    torch.save({**content, "run_id": np.zeros(2)}, path)


def truncated(path, content):
    path.write_bytes(path.read_bytes()[:-2000])


def with_a_flipped_bit(path, content):
    file, weights = bytearray(path.read_bytes()), next(iter(content["encoder"].values()))
    file[file.find(weights.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(file)


def bare_pickle(path, content):
    path.write_bytes(pickle.dumps(Harmful(path.parent / "harm"), 2))


def empty(path, content):
    path.write_bytes(b"")


def a_tensor(path, content):
    torch.save(torch.zeros(3), path)


def a_state_dict(path, content):
    torch.save(content["encoder"], path)


def gone(path, content):
    path.unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (with_code, r"holds (posix|nt)\.mkdir, which would be run"),
        (with_a_class, r"holds test_published_checkpoint\.Harmful, which"),
        (with_an_array, r"holds numpy\..*_reconstruct, numpy\.ndarray, which"),
        (truncated, r"damaged, or not what torch.save writes \(BadZipFile"),
        (with_a_flipped_bit, r"damaged: model/data/\d+ does not have its checksum"),
        (bare_pickle, r"damaged, or not what torch.save writes"),
        (empty, r"damaged, or not what torch.save writes"),
        (a_tensor, r"has encoder and decoder, this: Tensor"),
        (a_state_dict, r"has encoder and decoder, this: \['pixel_embedding'"),
        (gone, r"there is no such file"),
    ],
)
def test_a_file_that_is_no_whole_and_plain_checkpoint_is_refused(
    harm, message, experiment, tmp_path
):
    content, *_ = published_content(experiment)
    path = tmp_path / "model.pt"
    torch.save(content, path)
    harm(path, content)
    with pytest.raises(UserError, match=rf"model\.pt: .*{message}"):
        read_checkpoint(path)
    assert not (tmp_path / "harm").exists()


def missing(content):
    del content["decoder"]["ray_predictor.output_mlp.2.bias"]


def unknown(content):
    content["encoder"]["module.slots"] = torch.zeros(2)


def other_shape(content):
    content["encoder"]["per_patch_linear.bias"] = torch.zeros(17)


def other_type(content):
    content["encoder"]["per_patch_linear.bias"] = torch.zeros(16).half()


def no_tensor(content):
    content["encoder"]["per_patch_linear.bias"] = 0.0


def no_steps(content):
    content["it"] = None


def no_psnr(content):
    content["loss_val_best"] = torch.zeros(2)


def no_optimizer(content):
    del content["optimizer"]


def no_moment(content):
    del content["optimizer"]["state"][2]


def fewer_moments(content):
    content["optimizer"]["param_groups"][0]["params"].pop()


def moment_of_another(content):
    states = content["optimizer"]["state"]
    states[0], states[3] = states[3], states[0]


def other_betas(content):
    content["optimizer"]["param_groups"][0]["betas"] = (0.9, 0.95)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, r"decoder\.ray_predictor\.output_mlp\.2\.bias of nmr_srt's model missing"),
        (unknown, r"encoder\.module\.slots: not of nmr_srt's model"),
        (other_shape, r"encoder\.per_patch_linear\.bias: \[17\] .* there, \[16\] .* here"),
        (other_type, r"encoder\.per_patch_linear\.bias: .*float16 there, .*float32 here"),
        (no_tensor, r"encoder\.per_patch_linear\.bias: float instead of a tensor"),
        (no_steps, r"it: None is not a number"),
        (no_psnr, r"loss_val_best: tensor.* is not a number"),
        (no_optimizer, r"optimizer: not the state .*without --data its weights alone"),
        (no_moment, r"optimizer: not the state .*without --data its weights alone"),
        (fewer_moments, r"optimizer: of \d+ tensors, not of \d+"),
        (moment_of_another, r"optimizer: exp_avg of encoder\.pixel_embedding: .* there, .* here"),
        (other_betas, r"optimizer: betas \(0.9, 0.999\) here, \(0.9, 0.95\) there"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_the_tensors_name(change, message, experiment):
    content, *_ = published_content(experiment)
    change(content)
    with pytest.raises(UserError, match=rf"model\.pt: {message}"):
        to_training(content, experiment, True, Path("model.pt"))


def test_two_nets_are_not_taken_for_one(tmp_path):
    one, two = (tiny_experiment(tmp_path, VARIANTS[name]) for name in ("vsrt", "vsrt, two nets"))
    content, *_ = published_content(two)
    with pytest.raises(UserError, match=r"decoder\.fine_net\..* differs .*separate_fine_net: true"):
        to_training(content, one, False, Path("model.pt"))


@pytest.mark.slow
def test_a_round_trip_at_the_published_size(tmp_path):
    experiment = load_experiment(PARAMS, "nmr_srt", "paper")
    content, *_ = published_content(experiment, step=1)
    torch.save(content, tmp_path / "model.pt")
    read = read_checkpoint(tmp_path / "model.pt")
    training = to_training(read, experiment, True, tmp_path / "model.pt")
    assert sum(t.numel() for t in training.model.parameters()) == 73_932_563
    back = from_training(training, 1, "2x8k1")
    assert [key for key in content if not same(content[key], back[key])] == []
