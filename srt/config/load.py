"""Loads params.yaml into the classes of srt/config/schema.py.

The settings of an experiment under a profile come from four layers. A later layer replaces single
values of the earlier ones:

1. defaults, or models.<name of the model>
2. experiments.<name>
3. profiles.<profile>
4. profiles.<profile>.experiments.<name>

Each layer is first checked on its own, so that an error names the key as it is in the file.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srt.config.model_layers import (
    check_experiment_model,
    check_models,
    check_profile_model,
    merge_model,
    model_name,
)
from srt.config.schema import (
    DatasetConfig,
    EvaluateConfig,
    Experiment,
    Params,
    ProfileConfig,
    RenderConfig,
    TrainConfig,
    WeightsConfig,
)
from srt.config.strict import (
    ConfigError,
    check_name,
    load_yaml,
    read,
    refuse_unknown_keys,
)

# The sections of an experiment beside its dataset and its model.
SECTIONS: dict[str, type] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "render": RenderConfig,
}


def load_experiment(path: Path, name: str, profile: str | None = None) -> Experiment:
    """Return the resolved experiment `name` of params.yaml.

    Args:
        profile: None: the profile that the file chooses.

    Raises:
        ConfigError: for anything wrong in the file; it names the file, the key and the value.
    """
    return _experiment(_load(path), name, profile)


def load_experiments(path: Path, profile: str) -> list[Experiment]:
    """Return all experiments of params.yaml in their order, or raise ConfigError."""
    file = _load(path)
    return [_experiment(file, name, profile) for name in file.params.experiments]


def load_dataset(path: Path, name: str, profile: str | None = None) -> DatasetConfig:
    """Return the resolved dataset `name` of params.yaml, or raise ConfigError."""
    return _dataset(_load(path), name, profile)


def load_weights(path: Path, name: str, profile: str | None = None) -> WeightsConfig:
    """Return the resolved weight file `name` of params.yaml, or raise ConfigError."""
    values, where = _resolve(_load(path), "weights", name, profile)
    return typing.cast(WeightsConfig, read(WeightsConfig, values, where))


def load_params(path: Path) -> Params:
    """Return the whole file, after resolving every experiment and dataset under every profile."""
    file = _load(path)
    for profile in file.params.profiles:
        for name in file.params.experiments:
            _experiment(file, name, profile)
        for name in file.params.datasets:
            _dataset(file, name, profile)
    return file.params


class _File(typing.NamedTuple):
    """params.yaml, typed and as plain dictionaries."""

    path: Path
    params: Params
    raw: dict[str, Any]


def _load(path: Path) -> _File:
    """Return params.yaml, after checking every layer on its own.

    A file that has not changed since the last call is not read again.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    stat = path.stat()
    return _load_version(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _load_version(path: Path, version: tuple[int, int, int]) -> _File:
    raw = load_yaml(path)
    _complete_profiles(raw, path)
    params: Params = read(Params, raw, f"{path}")
    _check_defaults(path, params)
    check_models(params.models, f"{path}: models")
    for name, experiment in params.experiments.items():
        _check_experiment(path, params, name, experiment)
    for name, profile in params.profiles.items():
        _check_profile(path, params, name, profile)
    check_name(params.profile, params.profiles, f"{path}: profile")
    return _File(path, params, raw)


def _complete_profiles(raw: Any, path: Path) -> None:
    """Give every profile all sections: what it extends, and nothing where it changes nothing."""
    # If this is no dictionary of profiles, the check of the whole file says so.
    profiles = raw.get("profiles") if isinstance(raw, dict) else None
    if not isinstance(profiles, dict):
        return
    sections: dict[str, Any] = {field.name: {} for field in dataclasses.fields(ProfileConfig)}
    completed = {
        name: {**sections, **_extended(profiles, name, path)}
        for name, profile in profiles.items()
        if profile is None or isinstance(profile, dict)
    }
    profiles.update(completed)


def _extended(
    profiles: dict[str, Any], name: str, path: Path, above: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a profile on top of the one that it extends.

    Args:
        above: the profiles that extend this one.
    """
    changes = dict(profiles[name] or {})
    base = changes.pop("extends", None)
    if base is None:
        return changes

    # A profile cannot be below itself.
    where = f"{path}: profiles.{name}.extends"
    check_name(base, profiles, where)
    if base in (name, *above):
        raise ConfigError(f"{where}: {base!r} extends {name!r}; one of them must extend another")
    return _merge(_extended(profiles, base, path, (name, *above)), changes)


def _check_defaults(path: Path, params: Params) -> None:
    """Check the defaults, which are complete except for datasets, and the datasets."""
    if "dataset" not in params.defaults:
        raise ConfigError(f"{path}: defaults: the key dataset is missing")
    read(DatasetConfig, params.defaults["dataset"], f"{path}: defaults.dataset", partial=True)
    sections = {key: value for key, value in params.defaults.items() if key != "dataset"}
    _check_sections(sections, SECTIONS, f"{path}: defaults", partial=False)

    # Each dataset is a difference from the default one.
    configs: dict[str, type] = dict.fromkeys(params.datasets, DatasetConfig)
    _check_sections(params.datasets, configs, f"{path}: datasets", partial=True)


def _check_experiment(path: Path, params: Params, name: str, experiment: dict[str, Any]) -> None:
    """Check an experiment's dataset and model, and its differences from the defaults."""
    where = f"{path}: experiments.{name}"
    for key in ("dataset", "model"):
        if key not in experiment:
            raise ConfigError(f"{where}: the key {key} is missing")
    _check_sections(experiment, {"dataset": str, "model": Any, **SECTIONS}, where, partial=True)
    check_name(experiment["dataset"], params.datasets, f"{where}.dataset")
    check_experiment_model(experiment["model"], params.models, f"{where}.model")


def _check_profile(path: Path, params: Params, name: str, profile: ProfileConfig) -> None:
    where = f"{path}: profiles.{name}"
    _check_sections({key: getattr(profile, key) for key in SECTIONS}, SECTIONS, where, True)
    check_profile_model(profile.model, f"{where}.model")
    for group, config in (("datasets", DatasetConfig), ("weights", WeightsConfig)):
        configs: dict[str, type] = dict.fromkeys(getattr(params, group), config)
        _check_sections(getattr(profile, group), configs, f"{where}.{group}", partial=True)
    for key, sections in profile.experiments.items():
        check_name(key, params.experiments, f"{where}.experiments")
        section = f"{where}.experiments.{key}"
        _check_sections(sections, {"model": dict[str, Any], **SECTIONS}, section, partial=True)
        model = model_name(params.experiments[key]["model"])
        check_profile_model(sections.get("model", {}), f"{section}.model", model)


def _experiment(file: _File, name: str, profile: str | None) -> Experiment:
    """Return an experiment, with its four layers merged."""
    path, params, raw = file
    profile = check_name(profile or params.profile, params.profiles, f"{path}: profile")
    check_name(name, params.experiments, f"{path}: experiment")
    experiment = raw["experiments"][name]
    scale = raw["profiles"][profile]
    layers = (raw["defaults"], experiment, scale, scale["experiments"].get(name, {}))

    where = f"of experiment {name}, profile {profile}"
    sections = _merge_sections(layers, path, where)
    changes = [layer.get("model", {}) for layer in layers[2:]]
    model = merge_model(raw["models"], experiment["model"], changes, f"{path}: model {where}")
    return Experiment(
        name=name,
        profile=profile,
        seed=params.seed,
        dataset_name=experiment["dataset"],
        dataset=_dataset(file, experiment["dataset"], profile),
        model=model,
        **sections,
    )


def _merge_sections(layers: Sequence[dict[str, Any]], path: Path, where: str) -> dict[str, Any]:
    """Return the sections of an experiment; the merged values must make sense together."""
    sections = {}
    for key, config in SECTIONS.items():
        merged = _merge(*(layer.get(key, {}) for layer in layers))
        sections[key] = read(config, merged, f"{path}: {key} {where}")
    return sections


def _dataset(file: _File, name: str, profile: str | None) -> DatasetConfig:
    """Return a dataset: the defaults, its own differences and those of the profile, merged."""
    values, where = _resolve(file, "datasets", name, profile)
    merged = _merge(file.raw["defaults"]["dataset"], values)
    return typing.cast(DatasetConfig, read(DatasetConfig, merged, where))


def _check_sections(
    values: dict[str, Any], types: dict[str, Any], where: str, partial: bool
) -> None:
    """Check the keys and types of each section. A partial one may lack keys.

    Args:
        types: dataclasses, or other types that `read` accepts.
    """
    refuse_unknown_keys(values, types, f"{where}.")
    for key, expected in types.items():
        if key in values:
            read(expected, values[key], f"{where}.{key}", partial)
        elif not partial:
            raise ConfigError(f"{where}: the key {key} is missing")


def _resolve(file: _File, group: str, name: str, profile: str | None) -> tuple[Any, str]:
    """Return a dataset or weight file with the profile's changes, and where it is for errors."""
    path, params, raw = file
    profile = check_name(profile or params.profile, params.profiles, f"{path}: profile")
    check_name(name, raw[group], f"{path}: {group}")
    merged = _merge(raw[group][name], raw["profiles"][profile][group].get(name, {}))
    return merged, f"{path}: {group}.{name}, profile {profile}"


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Return the layers as one dictionary. Later values win, and nested dictionaries are merged."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _merge(merged[key], value) if both else value
    return merged
