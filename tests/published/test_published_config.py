"""A config.yaml of a published run folder fits the experiment of its name, and no other."""

import functools
import json
import logging
from pathlib import Path

import pytest
from support.tiny_training import PARAMS

from srt.common.errors import UserError
from srt.config.load import load_experiment
from srt.published.config import check_config, published_config

# The six published run folders: `data` and `model` of config.yaml, and the batch size. The rest of
# their settings is equal, see `run_folder`.
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
    """Return the values of a published config.yaml, which a test may change."""
    data, model, batch_size = RUN_FOLDERS[name]
    numbers = {"max_it": 4000000, "decay_it": 4000000, "lr_warmup": 2500, "num_workers": 6}
    selection = {"model_selection_metric": "psnr", "model_selection_mode": "maximize"}
    training = {"batch_size": batch_size, **numbers, **selection}
    return json.loads(json.dumps({"data": data, "model": model, "training": training}))


@functools.cache
def paper_experiment(name):
    return load_experiment(PARAMS, name, "paper")


@pytest.mark.parametrize("name", RUN_FOLDERS)
def test_a_published_run_folder_fits_the_experiment_of_its_name(name, caplog):
    caplog.set_level(logging.INFO)
    experiment, config = paper_experiment(name), run_folder(name)
    check_config(config, experiment, Path("config.yaml"))

    # The README of nmr_srt names 3 million iterations, but its config.yaml 4 million.
    logged = [record.message.partition(": trained with")[2] for record in caplog.records]
    expected = []
    if name == "nmr_srt":
        expected = [" other numbers than nmr_srt: steps: 3000000 here, 4000000 there"]
    assert logged == expected

    # Older run folders have the first option. The second concerns only how a training begins.
    config["model"]["encoder_kwargs"]["use_linear_features"] = False
    config["model"]["encoder_kwargs"]["scale_embeddings"] = True
    check_config(config, experiment, Path("config.yaml"))


@pytest.mark.parametrize("name", RUN_FOLDERS)
def test_the_config_written_for_an_experiment_fits_it(name, caplog):
    caplog.set_level(logging.INFO)
    config = published_config(paper_experiment(name))
    check_config(config, paper_experiment(name), Path("config.yaml"))
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
def test_a_run_of_another_model_or_dataset_is_refused_with_key_and_values(
    name, keys, value, message
):
    *path, last = keys.split()
    config = section = run_folder(name)
    for key in path:
        section = section[key]
    section[last] = value
    experiment = paper_experiment(name)
    with pytest.raises(UserError, match=rf"config\.yaml: .*{message}"):
        check_config(config, experiment, Path("config.yaml"))
