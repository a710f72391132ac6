"""Models in params.yaml: the layers that hold their settings are checked and merged here.

The section `models` has all settings of each model. An experiment names a model, and may change
settings of it. A profile changes settings of all models, and after that those of the model of a
single experiment. A model skips a profile's settings that only other models have.
"""

from __future__ import annotations

import typing
from collections.abc import Collection
from typing import Any

from srt.config.model_schema import MODELS, ModelConfig, drop_keys_of_others, keys_of_models
from srt.config.strict import ConfigError, check_name, read, refuse_unknown_keys


def check_models(models: dict[str, dict[str, Any]], where: str) -> None:
    """Check that each entry of `models` has all settings of its model and no others."""
    refuse_unknown_keys(models, MODELS, f"{where}.")
    for name, values in models.items():
        refuse_unknown_keys(values, keys_of_models([name]), f"{where}.{name}.")
        read_model(name, values, f"{where}.{name}")


def check_experiment_model(value: Any, models: Collection[str], where: str) -> None:
    """Check that an experiment names one of the models, and changes only settings that it has.

    Args:
        value: the name, or the name and the settings that differ.
        models: the possible names.
    """
    if not isinstance(value, dict):
        check_name(value, models, where)
        return
    if "name" not in value:
        raise ConfigError(f"{where}: the key name is missing")
    name = check_name(value["name"], models, f"{where}.name")
    refuse_unknown_keys(value, ["name", *keys_of_models([name])], f"{where}.")
    read(MODELS[name], value, where, partial=True)


def model_name(value: str | dict[str, Any]) -> str:
    """Return the name of an experiment's model, which may stand alone or beside differences."""
    return value if isinstance(value, str) else str(value["name"])


def check_profile_model(values: dict[str, Any], where: str, name: str | None = None) -> None:
    """Check the settings that a profile changes.

    Args:
        name: of the model; None: the settings are those of all models.
    """
    # A profile cannot exchange the model of an experiment, so `name` is no possible key.
    names = list(MODELS) if name is None else [name]
    refuse_unknown_keys(values, keys_of_models(names), f"{where}.")
    for model in names:
        read(MODELS[model], drop_keys_of_others(model, values), where, partial=True)


def merge_model(
    models: dict[str, dict[str, Any]],
    value: str | dict[str, Any],
    changes: list[dict[str, Any]],
    where: str,
) -> ModelConfig:
    """Return an experiment's model.

    Args:
        value: the name of the model, or the name and the settings that differ.
        changes: those of the profile. Later ones win.
    """
    name = model_name(value)
    merged = models[name] | ({} if isinstance(value, str) else value)
    for values in changes:
        merged |= drop_keys_of_others(name, values)
    return read_model(name, merged, where)


def read_model(name: str, values: dict[str, Any], where: str) -> ModelConfig:
    """Return the complete settings of a model, or raise ConfigError."""
    return typing.cast(ModelConfig, read(MODELS[name], {**values, "name": name}, where))
