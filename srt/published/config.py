"""config.yaml of a published run folder <-> an experiment: stelzner/srt at ff8b953.

What the file leaves out are the defaults of srt/model.py, srt/data/ and train.py there.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from srt.common.errors import UserError
from srt.common.fingerprint import differences
from srt.config.schema import Experiment, ModelConfig

# What a config.yaml cannot change of a model.
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
_ENCODERS: dict[str, dict[str, Any]] = {  # theirs
    "srt": {"conv_blocks": 4, "encoder_layers": 10, "pixel_embedding": (15, 20)},
    "isrt": {"conv_blocks": 3, "encoder_layers": 5, "pixel_embedding": None},
}
_DECODERS: dict[str, dict[str, Any]] = {  # ours
    "srt": {"query_hidden": None, "decoder_hidden": 128, "decoder_hidden_layers": 1},
    "isrt": {"query_hidden": 360, "decoder_hidden": 1536, "decoder_hidden_layers": 4},
    "vsrt": {"query_hidden": None, "decoder_hidden": 128, "decoder_hidden_layers": 1},
}
_DECODER_NAMES = {"lightfield": "srt", "isrt": "isrt", "nerf": "vsrt"}
_OF_VSRT = ("coarse_samples", "fine_samples", "separate_fine_net")

log = logging.getLogger(__name__)


def check_config(config: Any, experiment: Experiment, source: Path) -> None:
    """Raises UserError where a published run is of another model or dataset than an experiment.

    Other numbers of the training are logged: they change how it goes on, not what there is.
    """
    try:
        theirs, training = _data_and_model(config), _training(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not the config.yaml of a published run: {error!r}") from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    found = differences(_our_data_and_model(experiment), theirs)
    if found:
        raise UserError(
            f"{source}: not {experiment.name} of profile {experiment.profile} (here), but another"
            f" model or dataset (there): {'; '.join(found)}"
        )
    other = differences({key: getattr(experiment.train, key) for key in training}, training)
    if other:
        log.info(
            "%s: trained with other numbers than %s: %s", source, experiment.name, "; ".join(other)
        )


def published_config(experiment: Experiment) -> dict[str, Any]:
    """Returns the config.yaml with which the published code continues an experiment.

    Raises UserError for a model or dataset that it does not have.
    """
    train, dataset = experiment.train, experiment.dataset
    options: dict[str, Any] = {"canonical_view": experiment.model.frame == "canonical"}
    if dataset.layout == "obsurf":
        options["downsample"] = dataset.input_stride.bit_length() - 1
        options["max_objects"] = dataset.max_objects
    samples = {}
    if experiment.model.name == "vsrt":
        samples["num_coarse_samples"] = experiment.model.coarse_samples
        samples["num_fine_samples"] = experiment.model.fine_samples
    config = {
        "data": {
            "dataset": experiment.dataset_name,
            "num_points": train.rays_per_scene,
            "kwargs": options,
        },
        "model": _published_model(experiment.model),
        "training": {
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
            **samples,
        },
    }
    check_config(config, experiment, Path("what config.yaml can say"))
    return config


def _published_model(model: ModelConfig) -> dict[str, Any]:
    """Returns the file's part on the model."""
    fine_net = {"use_fine_net": model.separate_fine_net} if model.name == "vsrt" else {}
    return {
        "encoder": "isrt" if model.name == "isrt" else "srt",
        "encoder_kwargs": {
            "pos_start_octave": model.position_start_octave,
            "num_conv_blocks": model.conv_blocks,
            "num_att_blocks": model.encoder_layers,
        },
        "decoder": {ours: theirs for theirs, ours in _DECODER_NAMES.items()}[model.name],
        "decoder_kwargs": {
            "pos_start_octave": model.position_start_octave,
            "num_att_blocks": model.decoder_layers,
            **fine_net,
        },
    }


def _our_data_and_model(experiment: Experiment) -> dict[str, Any]:
    """Returns what an experiment's weights mean something for."""
    model = dataclasses.asdict(experiment.model)
    del model["conv_init"]  # where a training begins
    if experiment.model.name != "vsrt":
        model = {key: value for key, value in model.items() if key not in _OF_VSRT}
    dataset = experiment.dataset
    data = {"name": experiment.dataset_name, "input_stride": dataset.input_stride}
    return {"dataset": {**data, "max_objects": dataset.max_objects}, "model": model}


def _data_and_model(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the same of a config.yaml; raises UserError for what no experiment can be."""
    data, options = config["data"], dict(config["data"].get("kwargs") or {})
    selection = [config["training"][f"model_selection_{key}"] for key in ("metric", "mode")]
    if selection != ["psnr", "maximize"]:
        raise UserError(f"training: the best model is that of {selection}, not of the highest PSNR")
    obsurf = data["dataset"] in ("clevr3d", "obsurf_msn")
    dataset = {
        "name": data["dataset"],
        "input_stride": 2 ** max(options.pop("downsample", None) or 0, 0) if obsurf else 1,
        "max_objects": options.pop("max_objects", 6) if obsurf else None,
    }
    frame = "canonical" if options.pop("canonical_view", True) else "world"
    _nothing_left("data.kwargs", options)
    model = _model(config["model"], config["training"])
    return {"dataset": dataset, "model": {**model, "frame": frame}}


def _model(model: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Returns what a config.yaml says of the model, by our names, and what the code fixes."""
    if model["decoder"] not in _DECODER_NAMES:
        known = ", ".join(_DECODER_NAMES)
        raise UserError(f"model.decoder: {model['decoder']!r} is not one of {known}")
    encoder = "isrt" if model.get("encoder") == "isrt" else "srt"  # any other name is srt there
    name = _DECODER_NAMES[model["decoder"]]
    options, queries = dict(model["encoder_kwargs"]), dict(model["decoder_kwargs"])
    start = options.pop("pos_start_octave", 0)
    if queries.pop("pos_start_octave", 0) != start:
        raise UserError("model: encoder_kwargs and decoder_kwargs differ in pos_start_octave")
    options.pop("scale_embeddings", None)  # where a training begins
    if options.get("use_linear_features") is False:  # of older run folders, which say no to it
        del options["use_linear_features"]
    sizes = sizes_in_code(encoder, name)
    sizes |= {
        "name": name,
        "position_start_octave": start,
        "conv_blocks": options.pop("num_conv_blocks", sizes["conv_blocks"]),
        "encoder_layers": options.pop("num_att_blocks", sizes["encoder_layers"]),
        "decoder_layers": queries.pop("num_att_blocks", 2),
    }
    if name == "vsrt":
        sizes["separate_fine_net"] = queries.pop("use_fine_net", False)
        sizes["coarse_samples"] = training.get("num_coarse_samples", 128)
        sizes["fine_samples"] = training.get("num_fine_samples", 64)
    _nothing_left("model.encoder_kwargs", options)
    _nothing_left("model.decoder_kwargs", queries)
    return sizes


def _nothing_left(key: str, options: dict[str, Any]) -> None:
    if options:
        raise UserError(f"{key}: nothing here corresponds to {options}")


def sizes_in_code(encoder: str, decoder: str) -> dict[str, Any]:
    """Returns what a config.yaml cannot change, or need not say, of a model."""
    return {**_SIZES, **_ENCODERS[encoder], **_DECODERS[decoder]}


def _training(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what a config.yaml says of the training, by our names (train.py)."""
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
