"""The settings of params.yaml, as types: `srt.config.load` reads them.

params.yaml has datasets, models, experiments and profiles. An experiment names its dataset and its
model, and the settings of its training, evaluation and rendering that differ from the defaults. A
profile changes settings of all experiments, for example to make them smaller.

No class here has a default value: every number is in params.yaml. Sizes count elements, and null
means what the comment of a field says. A class refuses values that make no sense together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from srt.config.dataset_schema import (
    SPLITS,
    SYNTHETIC,
    DatasetConfig,
    SplitRanges,
    SubsetConfig,
    SyntheticConfig,
    WeightsConfig,
    shard_numbers,
)
from srt.config.model_schema import MODELS, IsrtConfig, ModelConfig, SrtConfig, VsrtConfig
from srt.config.strict import ConfigError, check_positive

__all__ = [
    "MODELS",
    "SPLITS",
    "SYNTHETIC",
    "DatasetConfig",
    "EvaluateConfig",
    "Experiment",
    "IsrtConfig",
    "Layout",
    "ModelConfig",
    "Motion",
    "Params",
    "ProfileConfig",
    "Protocol",
    "RenderConfig",
    "SplitRanges",
    "SrtConfig",
    "SubsetConfig",
    "SyntheticConfig",
    "TrainConfig",
    "VsrtConfig",
    "WeightsConfig",
    "shard_numbers",
]

# The evaluation protocols of the papers; srt/results/published_figures.py describes them.
Protocol = Literal["stelzner", "pixelnerf", "gta"]

# The camera paths of a video.
Motion = Literal["rotate", "zoom", "closeup", "rotate_and_closeup", "eyeroll"]

# How the pictures of a rendering are arranged.
Layout = Literal["plot", "small", "sheet"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe of a training. No value depends on the number of processes."""

    steps: int

    # Scenes of a step, over all processes, and target rays of each.
    batch_size: int
    rays_per_scene: int

    # Queries that are decoded at once (each sample of a ray is one); null: as many as fit.
    rays_per_group: int | None

    # The learning rate rises to this peak, and then falls by `decay_rate` in `decay_steps` steps.
    learning_rate: float
    warmup_steps: int
    decay_rate: float
    decay_steps: int | None  # null becomes `steps`

    # The largest norm of the gradients; larger ones are scaled down. null: they are not scaled.
    clip_norm: float | None

    # The decay of the moving average of the weights, which is validated and saved; null: none.
    ema_decay: float | None

    # Steps between log entries, validations, pictures and saved states.
    log_every: int
    validate_every: int
    validation_items: int
    picture_every: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        check_positive(self, "warmup_steps")
        if self.decay_steps is None:
            object.__setattr__(self, "decay_steps", self.steps)
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise ConfigError(f"ema_decay {self.ema_decay} is not below 1")

        # The last step is always validated. A longer training must validate it too, or its first
        # steps would differ from this training.
        if self.steps % self.validate_every:
            raise ConfigError(
                f"steps {self.steps} is not a multiple of validate_every {self.validate_every}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which protocols are measured, on how many items, and with which changes to them."""

    protocols: tuple[Protocol, ...]

    # The most items that are measured; null: all.
    max_items: int | None

    # Images that the model sees; null: as many as in training.
    input_views: int | None

    # Noise on all input cameras but the first: radians, and units of the world.
    pose_noise: float

    # Scenes whose pictures are compared in a figure.
    comparison_scenes: int

    def __post_init__(self) -> None:
        check_positive(self, "comparison_scenes", "pose_noise")
        if self.pose_noise < 0:
            raise ConfigError(f"pose_noise {self.pose_noise} is negative")


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """The video or contact sheet of a run: its scenes, its camera path and its size."""

    motion: Motion
    fade: bool
    frames: int
    fps: int

    # Positions of the scenes in their split.
    scenes: tuple[int, ...]

    # If one is null, it follows from the other and the input's proportions. Both: the input's size.
    height: int | None
    width: int | None
    layout: Layout

    def __post_init__(self) -> None:
        check_positive(self)
        if not self.scenes or min(self.scenes) < 0:
            raise ConfigError(f"scenes {list(self.scenes)} must be one or more numbers from 0 on")


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """What a profile changes in every dataset and experiment."""

    datasets: dict[str, dict[str, Any]]
    weights: dict[str, dict[str, Any]]

    # Changes of all models. A model skips the keys that only others have.
    model: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    render: dict[str, Any]

    # Further changes to single experiments, by their names.
    experiments: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Params:
    """params.yaml as it is written. `srt.config.load` resolves it."""

    profile: str
    seed: int
    datasets: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    weights: dict[str, WeightsConfig]
    defaults: dict[str, Any]
    experiments: dict[str, dict[str, Any]]
    profiles: dict[str, ProfileConfig]

    def __post_init__(self) -> None:
        # The seed is combined with others to seeds of 64 bits.
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed {self.seed} is not in 0..{2**31 - 1}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment under one profile, with all settings resolved."""

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
        """True if the scenes are generated. Every table, figure and tag must say so."""
        return self.dataset.source == SYNTHETIC
