"""The typed, strict view of params.yaml: defaults, then what an experiment and a profile change.

No class here has a default value: every number stands in params.yaml. Each part of the file is
checked on its own, so that an error names the very key that is wrong.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from srt.strict import ConfigError, json_schema, load_yaml, read

SPLITS = ("train", "val", "test")
SYNTHETIC = "synthetic"


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """How many synthetic scenes stand in for a published dataset."""

    train: int
    val: int
    test: int

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where a dataset comes from, how it is laid out and what is drawn from it."""

    layout: Literal["nmr"]  # the reader: srt/data/<layout>.py
    source: str  # "synthetic", an https address, or the folder of data that is on disk
    sha256: str | None  # of the archive, where one is known; the first digits are enough
    view_list: str | int | None  # source views of protocol pixelnerf: address, file, or one index
    pixel_grid: Literal["center", "corner"]  # "corner": NMR's published loader, FORMATS of the data
    image_size: int
    views: int
    input_views: int
    synthetic: SyntheticConfig | None

    def __post_init__(self) -> None:
        _check_positive(self, "view_list")
        if not 0 < self.input_views < self.views:
            raise ConfigError(
                f"input_views {self.input_views} is not in 1..{self.views - 1} (views)"
            )
        if isinstance(self.view_list, int) and not 0 <= self.view_list < self.views:
            raise ConfigError(f"view_list {self.view_list} is not in 0..{self.views - 1} (views)")
        if self.source == SYNTHETIC and self.synthetic is None:
            raise ConfigError("source is synthetic, so synthetic: {train, val, test} must be given")


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """A published weight file that the pipeline downloads; source null: it is not used."""

    source: str | None
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of a model; the published ones are in params.yaml's defaults."""

    name: Literal["srt"]
    frame: Literal["canonical", "world"]  # canonical: the first input camera's
    position_octaves: int
    position_start_octave: int
    direction_octaves: int
    direction_start_octave: int
    conv_blocks: int
    conv_channels: int  # of the first convolution; each block doubles them
    conv_init: Literal["torch", "he"]  # "torch" is the published one
    latent_dim: int
    heads: int
    head_dim: int
    mlp_dim: int
    encoder_layers: int
    decoder_layers: int
    decoder_hidden: int
    pixel_embedding: tuple[int, int]  # rows, columns of the learned map that each view's grid crops

    def __post_init__(self) -> None:
        _check_positive(self, "position_start_octave", "direction_start_octave")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe. `batch_size` is global: it does not depend on the number of processes."""

    steps: int
    batch_size: int
    rays_per_scene: int
    rays_per_group: int  # rays decoded at once, over all scenes of a process: sets the memory
    learning_rate: float  # the peak
    warmup_steps: int
    decay_rate: float  # the learning rate falls by this factor ...
    decay_steps: int  # ... in so many steps
    log_every: int
    validate_every: int
    validation_items: int
    picture_every: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        _check_positive(self, "warmup_steps")
        if self.steps % self.validate_every:  # or a longer training would not begin like this one
            raise ConfigError(
                f"steps {self.steps} is not a multiple of validate_every {self.validate_every}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which protocols are measured, on how many scenes (null: all)."""

    protocols: tuple[Literal["stelzner", "pixelnerf"], ...]
    max_items: int | None
    comparison_scenes: int

    def __post_init__(self) -> None:
        _check_positive(self, "comparison_scenes")


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """The video of a run: which scenes, which camera motion, what size."""

    motion: Literal["rotate", "zoom", "closeup", "rotate_and_closeup", "eyeroll"]
    fade: bool
    frames: int
    fps: int
    scenes: tuple[int, ...]
    height: int | None  # null: the input's
    width: int | None
    layout: Literal["plot", "small"]

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """What a profile changes in every dataset and experiment."""

    datasets: dict[str, dict[str, Any]]
    weights: dict[str, dict[str, Any]]
    model: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    render: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Params:
    """params.yaml as it is written; `load_experiment` and `load_dataset` resolve it."""

    profile: str
    seed: int
    datasets: dict[str, DatasetConfig]
    weights: dict[str, WeightsConfig]
    defaults: dict[str, Any]
    experiments: dict[str, dict[str, Any]]
    profiles: dict[str, ProfileConfig]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:  # it becomes a part of 64-bit seeds
            raise ConfigError(f"seed {self.seed} is not in 0..{2**31 - 1}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment under one profile, resolved."""

    name: str
    profile: str
    seed: int
    dataset_name: str
    dataset: DatasetConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    render: RenderConfig

    @property
    def synthetic(self) -> bool:
        """True where the scenes are generated, which every table, figure and tag must say."""
        return self.dataset.source == SYNTHETIC


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


def fingerprint(values: dict[str, Any]) -> str:
    """Returns twelve digits that change whenever a value does."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """Returns `key: ours, theirs` for every leaf in which two nested dictionaries differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for name in sorted({*ours, *theirs})
            for line in differences(
                ours.get(name, "absent"), theirs.get(name, "absent"), f"{key}.{name}".lstrip(".")
            )
        ]
    # Tuples become lists on their way through JSON.
    return (
        []
        if json.dumps(ours) == json.dumps(theirs)
        else [f"{key}: {ours!r} here, {theirs!r} there"]
    )


def params_schema() -> dict[str, Any]:
    """Returns the JSON schema of params.yaml, for editors and for Snakemake's `validate`."""
    schema = json_schema(Params)
    properties = schema["properties"]
    partial = {key: json_schema(kind, partial=True) for key, kind in SECTIONS.items()}
    sections = {"type": "object", "additionalProperties": False}
    full = {key: json_schema(kind) for key, kind in SECTIONS.items()}
    properties["defaults"] = {**sections, "properties": full, "required": list(full)}
    properties["experiments"]["additionalProperties"] = {
        **sections,
        "properties": {"dataset": {"type": "string"}, **partial},
        "required": ["dataset"],
    }
    profile = properties["profiles"]["additionalProperties"]["properties"]
    profile.update(partial)
    for group, kind in (("datasets", DatasetConfig), ("weights", WeightsConfig)):
        profile[group]["additionalProperties"] = json_schema(kind, partial=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _File(typing.NamedTuple):
    """params.yaml, typed and as plain dictionaries."""

    path: Path
    params: Params
    raw: dict[str, Any]


def _load(path: Path) -> _File:
    """Returns params.yaml, every part checked."""
    raw = load_yaml(path)
    params: Params = read(Params, raw, f"{path}")
    _check_sections(params.defaults, SECTIONS, f"{path}: defaults", partial=False)
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
            known, given = getattr(params, group), getattr(profile, group)
            for missing in known.keys() - given.keys():  # DVC tracks this key by its name
                raise ConfigError(f"{where}.{group}: {missing} is missing; write `{missing}: {{}}`")
            _check_sections(given, dict.fromkeys(known, kind), f"{where}.{group}", partial=True)
    _known(params.profile, params.profiles, path, "profile")
    return _File(path, params, raw)


def _experiment(file: _File, name: str, profile: str | None) -> Experiment:
    path, params, raw = file
    profile = _known(profile or params.profile, params.profiles, path, "profile")
    overrides = raw["experiments"][_known(name, params.experiments, path, "experiment")]
    sections = {
        key: read(
            section,
            _merge(raw["defaults"][key], overrides.get(key, {}), raw["profiles"][profile][key]),
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
    resolved = _resolve(file, "datasets", name, profile)
    return typing.cast(DatasetConfig, read(DatasetConfig, *resolved))


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


def _check_positive(config: Any, *exempt: str) -> None:
    """Raises ConfigError for a number that is not above 0, `exempt` ones apart."""
    for key, value in vars(config).items():
        if type(value) in (int, float) and value <= 0 and key not in exempt:
            raise ConfigError(f"{key} {value} is not positive")


def _resolve(file: _File, group: str, name: str, profile: str | None) -> tuple[Any, str]:
    path, params, raw = file
    profile = _known(profile or params.profile, params.profiles, path, "profile")
    _known(name, raw[group], path, group)
    merged = _merge(raw[group][name], raw["profiles"][profile][group][name])
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
