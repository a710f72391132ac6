"""config.yaml of the published run folders: the experiments of their names, and nothing else."""

import functools
import json
import logging
from pathlib import Path

import pytest
from support.tiny_training import PARAMS

from srt.common.errors import UserError
from srt.config.load import load_experiment
from srt.published.config import check_config, published_config

# Of the six published run folders: data, model and training of config.yaml where they differ.
LAYERS = {"encoder_kwargs": {"pos_start_octave": -5}, "decoder_kwargs": {"pos_start_octave": -5}}
LIGHTFIELD = {"decoder": "lightfield", **LAYERS}
NERF = {"decoder": "nerf", **LAYERS}
HALF_SIZE = {"kwargs": {"downsample": 1}}
RUN_FOLDERS = {
    "nmr_srt": ({"dataset": "nmr", "num_points": 8192}, LIGHTFIELD, 256),
    "nmr_vsrt": ({"dataset": "nmr", "num_points": 256}, NERF, 32),
    "clevr3d_srt": ({"dataset": "clevr3d", "num_points": 8192, **HALF_SIZE}, LIGHTFIELD, 256),
    "clevr3d_vsrt": ({"dataset": "clevr3d", "num_points": 256, **HALF_SIZE}, NERF, 32),
    "msn_srt": ({"dataset": "msn", "num_points": 8192}, LIGHTFIELD, 256),
    "msn_isrt": (
        {"dataset": "msn", "num_points": 8192, "kwargs": {"canonical_view": False}},
        {"encoder": "isrt", "decoder": "isrt", **LAYERS},
        256,
    ),
}


def run_folder(name):
    data, model, batch_size = RUN_FOLDERS[name]
    numbers = {"max_it": 4000000, "decay_it": 4000000, "lr_warmup": 2500, "num_workers": 6}
    selection = {"model_selection_metric": "psnr", "model_selection_mode": "maximize"}
    training = {"batch_size": batch_size, **numbers, **selection}
    return json.loads(json.dumps({"data": data, "model": model, "training": training}))


@functools.cache
def paper(name):
    return load_experiment(PARAMS, name, "paper")


@pytest.mark.parametrize("name", RUN_FOLDERS)
def test_the_published_run_folders_are_the_experiments_of_their_names(name, caplog):
    caplog.set_level(logging.INFO)
    experiment, config = paper(name), run_folder(name)
    check_config(config, experiment, Path("config.yaml"))
    # nmr_srt's README says 3 million iterations, its config.yaml 4.
    named = [record.message.partition(": trained with")[2] for record in caplog.records]
    assert named == (
        [" other numbers than nmr_srt: steps: 3000000 here, 4000000 there"]
        if name == "nmr_srt"
        else []
    )
    config["model"]["encoder_kwargs"]["use_linear_features"] = False  # in older folders
    config["model"]["encoder_kwargs"]["scale_embeddings"] = True  # how a training begins
    check_config(config, experiment, Path("config.yaml"))


@pytest.mark.parametrize("name", RUN_FOLDERS)
def test_a_config_is_written_that_says_what_an_experiment_is(name, caplog):
    caplog.set_level(logging.INFO)
    config = published_config(paper(name))
    check_config(config, paper(name), Path("config.yaml"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"),
    [
        ("nmr_srt", "data dataset", "msn", r"dataset.name: 'nmr' here, 'msn' there"),
        ("nmr_srt", "data kwargs", {"canonical_view": False}, r"model.frame: 'canonical' here"),
        ("nmr_srt", "data kwargs", {"downsample": 1}, r"data.kwargs: nothing here corresponds"),
        ("clevr3d_srt", "data kwargs", {}, r"dataset.input_stride: 2 here, 1 there"),
        ("clevr3d_srt", "data kwargs", {"downsample": 1, "max_objects": 3}, r"max_objects: 6 here"),
        ("nmr_srt", "model decoder", "nerf", r"model.name: 'srt' here, 'vsrt' there"),
        ("nmr_srt", "model decoder", "slots", r"model.decoder: 'slots' is not one of"),
        ("nmr_srt", "model encoder", "isrt", r"model.conv_blocks: 4 here, 3 there"),
        ("nmr_srt", "model encoder_kwargs num_att_blocks", 5, r"encoder_layers: 10 here, 5 there"),
        ("nmr_srt", "model encoder_kwargs pos_start_octave", 0, r"differ in pos_start_octave"),
        ("nmr_srt", "model encoder_kwargs use_linear_features", True, r"nothing here corresponds"),
        ("nmr_vsrt", "model decoder_kwargs use_fine_net", True, r"separate_fine_net: False here"),
        ("nmr_vsrt", "training num_fine_samples", 128, r"fine_samples: 64 here, 128 there"),
        ("nmr_srt", "training model_selection_metric", "mse", r"not of the highest PSNR"),
        ("nmr_srt", "model", None, r"not the config.yaml of a published run"),
    ],
)
def test_a_run_of_another_model_or_dataset_is_refused_by_key_and_values(name, keys, value, message):
    *path, last = keys.split()
    config = place = run_folder(name)
    for key in path:
        place = place[key]
    place[last] = value
    experiment = paper(name)
    with pytest.raises(UserError, match=rf"config\.yaml: .*{message}"):
        check_config(config, experiment, Path("config.yaml"))
