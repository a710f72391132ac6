"""params.yaml -> the classes of srt/config/schema.py: defaults, an experiment's changes, a profile's.

Each part of the file is checked on its own, so that an error names the very key that is wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

from srt.config.schema import (
    DatasetConfig,
    EvaluateConfig,
    Experiment,
    ModelConfig,
    Params,
    ProfileConfig,
    RenderConfig,
    TrainConfig,
    WeightsConfig,
)
from srt.config.strict import ConfigError, json_schema, load_yaml, read

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "render": RenderConfig,
}


def load_experiment(path: Path, name: str, profile: str | None = None) -> Experiment:
    """Returns the resolved experiment `name`; `profile` overrides the file's own choice.

    Raises ConfigError that names the file, the key and the value.
    """
    return _experiment(_load(path), name, profile)


def load_experiments(path: Path, profile: str) -> list[Experiment]:
    """Returns all experiments of params.yaml, in its order; raises ConfigError as above."""
    file = _load(path)
    return [_experiment(file, name, profile) for name in file.params.experiments]


def load_dataset(path: Path, name: str, profile: str | None = None) -> DatasetConfig:
    """Returns the resolved dataset `name` of params.yaml; raises ConfigError as above."""
    return _dataset(_load(path), name, profile)


def load_weights(path: Path, name: str, profile: str | None = None) -> WeightsConfig:
    """Returns the resolved weight file `name` of params.yaml; raises ConfigError as above."""
    resolved = _resolve(_load(path), "weights", name, profile)
    return typing.cast(WeightsConfig, read(WeightsConfig, *resolved))


def load_params(path: Path) -> Params:
    """Returns the whole file, checked: every experiment under every profile resolves."""
    file = _load(path)
    for profile in file.params.profiles:
        for name in file.params.experiments:
            _experiment(file, name, profile)
        for name in file.params.datasets:
            _dataset(file, name, profile)
    return file.params


def params_schema() -> dict[str, Any]:
    """Returns the JSON schema of params.yaml, for editors and for Snakemake's `validate`."""
    schema = json_schema(Params)
    properties = schema["properties"]
    partial = {key: json_schema(kind, partial=True) for key, kind in SECTIONS.items()}
    sections = {"type": "object", "additionalProperties": False}
    full = {key: json_schema(kind) for key, kind in SECTIONS.items()}
    full = {"dataset": json_schema(DatasetConfig, partial=True), **full}
    properties["defaults"] = {**sections, "properties": full, "required": list(full)}
    properties["datasets"]["additionalProperties"] = json_schema(DatasetConfig, partial=True)
    properties["experiments"]["additionalProperties"] = {
        **sections,
        "properties": {"dataset": {"type": "string"}, **partial},
        "required": ["dataset"],
    }
    schema_of_profile = properties["profiles"]["additionalProperties"]
    schema_of_profile["type"] = ["object", "null"]  # a profile may change nothing at all
    del schema_of_profile["required"]
    profile = schema_of_profile["properties"]
    profile.update(partial)
    profile["experiments"]["additionalProperties"] = {**sections, "properties": partial}
    for group, kind in (("datasets", DatasetConfig), ("weights", WeightsConfig)):
        profile[group]["additionalProperties"] = json_schema(kind, partial=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _File(typing.NamedTuple):
    """params.yaml, typed and as plain dictionaries."""

    path: Path
    params: Params
    raw: dict[str, Any]


def _load(path: Path) -> _File:
    """Returns params.yaml, every part checked; a file that did not change is read only once."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    stat = path.stat()
    return _load_version(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _load_version(path: Path, version: tuple[int, int, int]) -> _File:
    """Returns params.yaml as it was at this version."""
    raw = load_yaml(path)
    _fill_profiles(raw)
    params: Params = read(Params, raw, f"{path}")
    if "dataset" not in params.defaults:
        raise ConfigError(f"{path}: defaults: the key dataset is missing")
    datasets = params.defaults["dataset"]
    read(DatasetConfig, datasets, f"{path}: defaults.dataset", partial=True)
    others = {key: value for key, value in params.defaults.items() if key != "dataset"}
    _check_sections(others, SECTIONS, f"{path}: defaults", partial=False)
    _check_sections(
        params.datasets,
        dict.fromkeys(params.datasets, DatasetConfig),
        f"{path}: datasets",
        partial=True,
    )
    for name, experiment in params.experiments.items():
        where = f"{path}: experiments.{name}"
        if "dataset" not in experiment:
            raise ConfigError(f"{where}: the key dataset is missing")
        _check_sections(experiment, {"dataset": str, **SECTIONS}, where, partial=True)
        _known(experiment["dataset"], params.datasets, path, f"experiments.{name}.dataset")
    for name, profile in params.profiles.items():
        where = f"{path}: profiles.{name}"
        _check_sections({key: getattr(profile, key) for key in SECTIONS}, SECTIONS, where, True)
        for group, kind in (("datasets", DatasetConfig), ("weights", WeightsConfig)):
            kinds = dict.fromkeys(getattr(params, group), kind)
            _check_sections(getattr(profile, group), kinds, f"{where}.{group}", partial=True)
        for key, sections in profile.experiments.items():
            _known(key, params.experiments, path, f"profiles.{name}.experiments")
            _check_sections(sections, SECTIONS, f"{where}.experiments.{key}", partial=True)
    _known(params.profile, params.profiles, path, "profile")
    return _File(path, params, raw)


def _fill_profiles(raw: Any) -> None:
    """Adds the sections that a profile leaves out, because it changes nothing in them."""
    profiles = raw.get("profiles") if isinstance(raw, dict) else None
    if not isinstance(profiles, dict):
        return  # the check of the whole file says what is wrong
    names = [field.name for field in dataclasses.fields(ProfileConfig)]
    for name, profile in profiles.items():
        if profile is None or isinstance(profile, dict):
            profiles[name] = dict.fromkeys(names, {}) | (profile or {})


def _experiment(file: _File, name: str, profile: str | None) -> Experiment:
    path, params, raw = file
    profile = _known(profile or params.profile, params.profiles, path, "profile")
    overrides = raw["experiments"][_known(name, params.experiments, path, "experiment")]
    scaled = raw["profiles"][profile]
    layers = (raw["defaults"], overrides, scaled, scaled["experiments"].get(name, {}))
    sections = {
        key: read(
            section,
            _merge(*(layer.get(key, {}) for layer in layers)),
            f"{path}: {key} of experiment {name}, profile {profile}",
        )
        for key, section in SECTIONS.items()
    }
    dataset = overrides["dataset"]
    return Experiment(
        name=name,
        profile=profile,
        seed=params.seed,
        dataset_name=dataset,
        dataset=_dataset(file, dataset, profile),
        **sections,
    )


def _dataset(file: _File, name: str, profile: str | None) -> DatasetConfig:
    differing, where = _resolve(file, "datasets", name, profile)
    merged = _merge(file.raw["defaults"]["dataset"], differing)
    return typing.cast(DatasetConfig, read(DatasetConfig, merged, where))


def _check_sections(
    given: dict[str, Any], kinds: dict[str, type], where: str, partial: bool
) -> None:
    """Checks each section's keys and types; a partial one may leave keys out."""
    for key in given:
        if key not in kinds:
            raise ConfigError(f"{where}.{key}: unknown key; known here: {', '.join(kinds)}")
    for key, kind in kinds.items():
        if key in given:
            read(kind, given[key], f"{where}.{key}", partial)
        elif not partial:
            raise ConfigError(f"{where}: the key {key} is missing")


def _resolve(file: _File, group: str, name: str, profile: str | None) -> tuple[Any, str]:
    path, params, raw = file
    profile = _known(profile or params.profile, params.profiles, path, "profile")
    _known(name, raw[group], path, group)
    merged = _merge(raw[group][name], raw["profiles"][profile][group].get(name, {}))
    return merged, f"{path}: {group}.{name}, profile {profile}"


def _known(name: Any, names: Collection[str], path: Path, what: str) -> str:
    if name not in names:
        raise ConfigError(f"{path}: {what}: {name!r} is not one of {', '.join(names)}")
    return str(name)


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _merge(merged[key], value) if both else value
    return merged
