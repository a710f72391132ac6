"""Converts config.yaml of a published run folder from and to an experiment (stelzner/srt, ff8b953).

A key that the file omits has the default of the published code: srt/model.py, srt/data/ and
train.py there. Here "theirs" and "there" mean the published code, "ours" and "here" this package.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from srt.common.errors import UserError
from srt.common.fingerprint import differences
from srt.config.model_layers import read_model
from srt.config.schema import Experiment, ModelConfig, VsrtConfig
from srt.data.batch import ViewConfig

# The sizes of a model that the published code fixes. A config.yaml cannot change them.
_SIZES = {
    "position_octaves": 15,
    "direction_octaves": 15,
    "direction_start_octave": 0,
    "conv_channels": 96,
    "latent_dim": 768,
    "heads": 12,
    "head_dim": 64,
    "mlp_dim": 1536,
}

# The same of each encoder, by its published name, and of each decoder, by our name of the model.
_ENCODERS: dict[str, dict[str, Any]] = {
    "srt": {"conv_blocks": 4, "encoder_layers": 10, "pixel_embedding": (15, 20)},
    "isrt": {"conv_blocks": 3, "encoder_layers": 5, "pixel_embedding": None},
}
_DECODERS: dict[str, dict[str, Any]] = {
    "srt": {"query_hidden": None, "decoder_hidden": 128, "decoder_hidden_layers": 1},
    "isrt": {"query_hidden": 360, "decoder_hidden": 1536, "decoder_hidden_layers": 4},
    "vsrt": {"query_hidden": None, "decoder_hidden": 128, "decoder_hidden_layers": 1},
}

# The published name of each decoder -> our name of the model.
_DECODER_NAMES = {"lightfield": "srt", "isrt": "isrt", "nerf": "vsrt"}

# Distances between which a dataset's scenes lie, and its input views (srt/data/ there).
_DISTANCES = {
    "nmr": (2.0, 4.0),
    "msn": (0.0, 20.0),
    "clevr3d": (0.035, 35.0),
    "obsurf_msn": (0.035, 35.0),
}
_INPUT_VIEWS = {"nmr": 1, "msn": 5, "clevr3d": 1, "obsurf_msn": 1}

log = logging.getLogger(__name__)


def check_config(config: Any, experiment: Experiment, source: Path) -> None:
    """Check that a published run has the model and the dataset of an experiment.

    Other differences of the training are only logged: weights keep their meaning, and training goes
    on with our numbers.

    Args:
        config: the values of config.yaml.
        source: its path, for errors.

    Raises:
        UserError: if the model or the dataset is another one.
    """
    theirs, training = _read_config(config, source)
    if unequal := differences(_our_data_and_model(experiment), theirs):
        raise UserError(
            f"{source}: not {experiment.name} of profile {experiment.profile} (here), but another"
            f" model or dataset (there): {'; '.join(unequal)}"
        )

    # Weights keep their meaning if only the training differs.
    ours = {key: getattr(experiment.train, key) for key in training}
    if unequal := differences(ours, training):
        text = "; ".join(unequal)
        log.info("%s: trained with other numbers than %s: %s", source, experiment.name, text)


def read_published_run(config: Any, source: Path) -> tuple[ModelConfig, ViewConfig]:
    """Return the model of a published run, and how it sees scenes.

    Args:
        config: the values of config.yaml.
        source: its path, for errors.

    Raises:
        UserError: if it has settings that nothing here corresponds to.
    """
    theirs, _ = _read_config(config, source)
    dataset = theirs["dataset"]
    near, far = _DISTANCES[dataset["name"]]
    options = config["data"].get("kwargs") or {}
    view_config = ViewConfig(
        canonical=theirs["model"]["frame"] == "canonical",
        input_views=options.get("num_input_views", _INPUT_VIEWS[dataset["name"]]),
        input_stride=dataset["input_stride"],
        all_targets=dataset["name"] in ("clevr3d", "obsurf_msn"),
        near=near,
        far=far,
    )
    model = {"conv_init": "torch", **theirs["model"]}
    if model["pixel_embedding"] is not None:
        model["pixel_embedding"] = list(model["pixel_embedding"])
    return read_model(model["name"], model, f"{source}: model"), view_config


def _read_config(config: Any, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the data and the model of a config.yaml, and its training, by our names."""
    # A file of another program raises one of several errors. All get the same message.
    try:
        return _their_data_and_model(config), _their_training(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not the config.yaml of a published run: {error!r}") from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def published_config(experiment: Experiment) -> dict[str, Any]:
    """Return the config.yaml with which the published code continues an experiment.

    Raises:
        UserError: if the published code does not have the model or the dataset.
    """
    config = {
        "data": _published_data(experiment),
        "model": _published_model(experiment.model),
        "training": _published_training(experiment),
    }

    # Read the file back: whatever it cannot express shows up as a difference.
    check_config(config, experiment, Path("what config.yaml can express"))
    return config


def _published_data(experiment: Experiment) -> dict[str, Any]:
    """Return the section `data` of config.yaml."""
    # Only ObSuRF's datasets have these two options there. An image is halved `downsample` times.
    dataset = experiment.dataset
    options: dict[str, Any] = {"canonical_view": experiment.model.frame == "canonical"}
    if dataset.layout == "obsurf":
        options["downsample"] = dataset.input_stride.bit_length() - 1
        options["max_objects"] = dataset.max_objects
    return {
        "dataset": experiment.dataset_name,
        "num_points": experiment.train.rays_per_scene,
        "kwargs": options,
    }


def _published_model(model: ModelConfig) -> dict[str, Any]:
    """Return the section `model` of config.yaml."""
    decoders = {ours: theirs for theirs, ours in _DECODER_NAMES.items()}
    fine_net = {}
    if isinstance(model, VsrtConfig):
        fine_net["use_fine_net"] = model.separate_fine_net
    return {
        "encoder": "isrt" if model.name == "isrt" else "srt",
        "encoder_kwargs": {
            "pos_start_octave": model.position_start_octave,
            "num_conv_blocks": model.conv_blocks,
            "num_att_blocks": model.encoder_layers,
        },
        "decoder": decoders[model.name],
        "decoder_kwargs": {
            "pos_start_octave": model.position_start_octave,
            "num_att_blocks": model.decoder_layers,
            **fine_net,
        },
    }


def _published_training(experiment: Experiment) -> dict[str, Any]:
    """Return the section `training` of config.yaml, which also has the samples of VSRT."""
    train = experiment.train
    training: dict[str, Any] = {
        "batch_size": train.batch_size,
        "model_selection_metric": "psnr",
        "model_selection_mode": "maximize",
        "print_every": train.log_every,
        "visualize_every": train.picture_every,
        "validate_every": train.validate_every,
        "checkpoint_every": train.checkpoint_every,
        "backup_every": 0,
        "max_it": train.steps,
        "decay_it": train.decay_steps,
        "lr_warmup": train.warmup_steps,
    }
    model = experiment.model
    if isinstance(model, VsrtConfig):
        training["num_coarse_samples"] = model.coarse_samples
        training["num_fine_samples"] = model.fine_samples
    return training


def _our_data_and_model(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of an experiment without which its weights are meaningless."""
    # How convolutions are initialised does not matter once they are trained.
    model = dataclasses.asdict(experiment.model)
    del model["conv_init"]

    dataset = experiment.dataset
    data = {"name": experiment.dataset_name, "input_stride": dataset.input_stride}
    return {"dataset": {**data, "max_objects": dataset.max_objects}, "model": model}


def _their_data_and_model(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config.yaml in the form of `_our_data_and_model`.

    Raises:
        UserError: if it has settings that no experiment can have.
    """
    data, options = config["data"], dict(config["data"].get("kwargs") or {})
    selection = [config["training"][f"model_selection_{key}"] for key in ("metric", "mode")]
    if selection != ["psnr", "maximize"]:
        raise UserError(f"training: the best model is that of {selection}, not of the highest PSNR")

    # Only ObSuRF's datasets have a stride and a limit of objects there.
    is_obsurf = data["dataset"] in ("clevr3d", "obsurf_msn")
    dataset = {
        "name": data["dataset"],
        "input_stride": 2 ** max(options.pop("downsample", None) or 0, 0) if is_obsurf else 1,
        "max_objects": options.pop("max_objects", 6) if is_obsurf else None,
    }
    frame = "canonical" if options.pop("canonical_view", True) else "world"
    _refuse_remaining("data.kwargs", options)
    model = _their_model(config["model"], config["training"])
    return {"dataset": dataset, "model": {**model, "frame": frame}}


def _their_model(model: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Return all settings of the model of a config.yaml, by our names."""
    # Any other name of an encoder than isrt means srt there.
    if model["decoder"] not in _DECODER_NAMES:
        names = ", ".join(_DECODER_NAMES)
        raise UserError(f"model.decoder: {model['decoder']!r} is not one of {names}")
    encoder = "isrt" if model.get("encoder") == "isrt" else "srt"
    name = _DECODER_NAMES[model["decoder"]]

    # Every option is removed where it is used, so that those that remain have no counterpart here.
    encoder_options, decoder_options = dict(model["encoder_kwargs"]), dict(model["decoder_kwargs"])
    start_octave = encoder_options.pop("pos_start_octave", 0)
    if decoder_options.pop("pos_start_octave", 0) != start_octave:
        raise UserError("model: encoder_kwargs and decoder_kwargs differ in pos_start_octave")
    _drop_harmless(encoder_options)

    # The sizes, with the published defaults.
    sizes = sizes_in_code(encoder, name)
    sizes |= {"name": name, "position_start_octave": start_octave}
    sizes["conv_blocks"] = encoder_options.pop("num_conv_blocks", sizes["conv_blocks"])
    sizes["encoder_layers"] = encoder_options.pop("num_att_blocks", sizes["encoder_layers"])
    sizes["decoder_layers"] = decoder_options.pop("num_att_blocks", 2)
    if name == "vsrt":
        sizes["separate_fine_net"] = decoder_options.pop("use_fine_net", False)
        sizes["coarse_samples"] = training.get("num_coarse_samples", 128)
        sizes["fine_samples"] = training.get("num_fine_samples", 64)
    _refuse_remaining("model.encoder_kwargs", encoder_options)
    _refuse_remaining("model.decoder_kwargs", decoder_options)
    return sizes


def _drop_harmless(encoder_options: dict[str, Any]) -> None:
    """Remove the options that make no difference to a trained model."""
    # `scale_embeddings` concerns only how a training begins. Older run folders switch
    # `use_linear_features` off explicitly.
    encoder_options.pop("scale_embeddings", None)
    if encoder_options.get("use_linear_features") is False:
        del encoder_options["use_linear_features"]


def _refuse_remaining(key: str, options: dict[str, Any]) -> None:
    """Raise UserError if options remain that an experiment does not have."""
    if options:
        raise UserError(f"{key}: nothing here corresponds to {options}")


def sizes_in_code(encoder: str, decoder: str) -> dict[str, Any]:
    """Return the sizes that a config.yaml cannot change, and the defaults of those that it can."""
    return {**_SIZES, **_ENCODERS[encoder], **_DECODERS[decoder]}


def _their_training(config: dict[str, Any]) -> dict[str, Any]:
    """Return the training of a config.yaml by our names; train.py fixes the rest of the numbers."""
    training = config["training"]
    return {
        "steps": training.get("max_it", 1000000),
        "batch_size": training["batch_size"],
        "rays_per_scene": config["data"].get("num_points", 2048),
        "learning_rate": 1e-4,
        "warmup_steps": training.get("lr_warmup", 2500),
        "decay_rate": 0.16,
        "decay_steps": training.get("decay_it", 4000000),
        "clip_norm": None,
        "ema_decay": None,
    }
