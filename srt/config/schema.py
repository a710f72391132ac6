"""What params.yaml says, as types: srt/config/load.py reads them.

No class here has a default value: every number stands in params.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from srt.config.strict import ConfigError

SPLITS = ("train", "val", "test")
SYNTHETIC = "synthetic"
Protocol = Literal[
    "stelzner", "pixelnerf", "gta"
]  # srt/results/published_figures.py says what they are
Motion = Literal["rotate", "zoom", "closeup", "rotate_and_closeup", "eyeroll"]
Layout = Literal["plot", "small", "sheet"]
SCENES = {  # the raw layouts that synthetic scenes are in
    "object": ("nmr", "generated"),
    "object_anywhere": ("generated",),
    "solids": ("obsurf", "msn", "generated"),
    "objects": ("obsurf", "msn", "generated"),
    "clutter": ("obsurf", "msn", "generated"),
}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Which synthetic scenes stand in for a published dataset, and how many."""

    scene: Literal["object", "object_anywhere", "solids", "objects", "clutter"]
    train: int
    val: int
    test: int

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class SplitRanges:
    """Which scenes of the raw data make up each split: from the first number to before the second.

    Layout `obsurf`: places in the whole set. Layout `msn`: places in TFDS' order of the split.
    """

    train: tuple[int, int]
    val: tuple[int, int]
    test: tuple[int, int]

    def __post_init__(self) -> None:
        for split, (start, end) in vars(self).items():
            if not 0 <= start < end:
                raise ConfigError(f"{split} [{start}, {end}] is not a range of scenes")


@dataclass(frozen=True, kw_only=True)
class SubsetConfig:
    """The part of a dataset that is fetched and packed; null: all of it."""

    classes: tuple[str, ...] | None  # layout nmr: ids or names
    shards: str | None  # layout msn: `0-3,7` of each split, or `present`: those that are there
    max_scenes: int | None  # of each split

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.shards is not None and self.shards != "present":
            shard_numbers(self.shards)


def shard_numbers(text: str) -> list[int]:
    """Returns the numbers that `0-3,7` means, in order; raises ConfigError for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ConfigError(f"shards {text!r} is neither like `0-3,7` nor `present`")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where a dataset comes from, how it is laid out and what is drawn from it."""

    layout: Literal["nmr", "obsurf", "msn", "generated"]  # the reader: srt/data/<layout>.py
    source: str  # "synthetic", an https or gs address, or a folder or archive that is on disk
    homepage: str | None  # where a person gets what no program can fetch
    sha256: str | None  # of the archive, where one is known; the first digits are enough
    view_list: str | int | None  # source views of protocol pixelnerf: address, file, or one index
    pixel_grid: Literal["center", "corner"]  # "corner": NMR's published loader, FORMATS of the data
    image_size: tuple[int, int]  # rows, columns
    views: int
    input_views: int
    input_stride: int  # input images are every so many-th row and column
    targets: Literal["others", "all"]  # the views that are no input, or those too
    near: float  # nothing is seen nearer to a camera, nor farther away
    far: float
    ranges: SplitRanges | None  # null: the raw data has lists, or all of a split is used
    max_objects: int | None  # scenes with more are left out (layout obsurf)
    storage: Literal["raw", "compressed"]  # of packed images; compressed ones take longer to read
    subset: SubsetConfig | None
    synthetic: SyntheticConfig | None

    def __post_init__(self) -> None:
        _check_positive(self, "view_list", "near")
        if not 0 <= self.near < self.far:
            raise ConfigError(f"near {self.near} is not in 0..{self.far} (far)")
        if min(self.image_size) <= 0:
            raise ConfigError(f"image_size {list(self.image_size)} is not positive")
        if not 0 < self.input_views < self.views:
            raise ConfigError(
                f"input_views {self.input_views} is not in 1..{self.views - 1} (views)"
            )
        if isinstance(self.view_list, int) and not 0 <= self.view_list < self.views:
            raise ConfigError(f"view_list {self.view_list} is not in 0..{self.views - 1} (views)")
        if self.source == SYNTHETIC and self.synthetic is None:
            raise ConfigError(
                "source is synthetic, so synthetic: {scene, train, val, test} must be given"
            )
        if self.layout == "generated" and self.source != SYNTHETIC:
            raise ConfigError(f"source {self.source!r}: what is of layout generated is synthetic")
        if self.synthetic and self.layout not in SCENES[self.synthetic.scene]:
            raise ConfigError(
                f"synthetic.scene {self.synthetic.scene!r} is none of layout {self.layout}: single"
                " objects are nmr's, scenes on a ground are obsurf's and msn's, and layout"
                " generated has all of them"
            )
        if self.layout == "obsurf" and self.ranges is None:
            raise ConfigError("layout obsurf has no lists of scenes, so ranges must be given")


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """A published weight file that the pipeline downloads; source null: it is not used."""

    source: str | None
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of a model; the published ones are in params.yaml's defaults."""

    name: Literal["srt", "isrt", "vsrt"]
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
    query_hidden: int | None  # of an MLP that the query passes first; null: there is none
    decoder_hidden: int
    decoder_hidden_layers: int
    coarse_samples: int  # of a ray, in vsrt
    fine_samples: int
    separate_fine_net: bool  # or one net does for coarse and fine samples
    pixel_embedding: tuple[int, int] | None  # rows, columns of the places learned; null: none

    def __post_init__(self) -> None:
        _check_positive(self, "position_start_octave", "direction_start_octave")
        if self.coarse_samples < 2:
            raise ConfigError(f"coarse_samples {self.coarse_samples} is less than 2")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe. `batch_size` is global: it does not depend on the number of processes."""

    steps: int
    batch_size: int
    rays_per_scene: int
    rays_per_group: int | None  # decoded at once; a sample counts as a ray; null: as many as fit
    learning_rate: float  # the peak
    warmup_steps: int
    decay_rate: float  # the learning rate falls by this factor ...
    decay_steps: int | None  # ... in so many steps; null becomes `steps`
    clip_norm: float | None  # gradients are scaled to at most this norm; null: as they are
    ema_decay: float | None  # of the weights' average that is measured and kept; null: none
    log_every: int
    validate_every: int
    validation_items: int
    picture_every: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        _check_positive(self, "warmup_steps")
        if self.decay_steps is None:
            object.__setattr__(self, "decay_steps", self.steps)
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise ConfigError(f"ema_decay {self.ema_decay} is not below 1")
        if self.steps % self.validate_every:  # or a longer training would not begin like this one
            raise ConfigError(
                f"steps {self.steps} is not a multiple of validate_every {self.validate_every}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which protocols are measured, on how many items, and what departs from them."""

    protocols: tuple[Protocol, ...]
    max_items: int | None  # null: all
    input_views: int | None  # given to the model; null: as many as in training
    pose_noise: float  # of the input cameras but the first: radians and units of the world
    comparison_scenes: int

    def __post_init__(self) -> None:
        _check_positive(self, "comparison_scenes", "pose_noise")
        if self.pose_noise < 0:
            raise ConfigError(f"pose_noise {self.pose_noise} is negative")


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """The video or contact sheet of a run: which scenes, which camera motion, what size."""

    motion: Motion
    fade: bool
    frames: int
    fps: int
    scenes: tuple[int, ...]
    height: int | None  # one null: as the input's proportions demand; both: the input's size
    width: int | None
    layout: Layout

    def __post_init__(self) -> None:
        _check_positive(self)
        if not self.scenes or min(self.scenes) < 0:
            raise ConfigError(f"scenes {list(self.scenes)} must be one or more numbers from 0 on")


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """What a profile changes in every dataset and experiment."""

    datasets: dict[str, dict[str, Any]]
    weights: dict[str, dict[str, Any]]
    model: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    render: dict[str, Any]
    experiments: dict[str, dict[str, Any]]  # what it changes in single ones, the others apart


@dataclass(frozen=True, kw_only=True)
class Params:
    """params.yaml as it is written; srt/config/load.py resolves it."""

    profile: str
    seed: int
    datasets: dict[str, dict[str, Any]]
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


def _check_positive(config: Any, *exempt: str) -> None:
    """Raises ConfigError for a number that is not above 0, `exempt` ones apart."""
    for key, value in vars(config).items():
        if type(value) in (int, float) and value <= 0 and key not in exempt:
            raise ConfigError(f"{key} {value} is not positive")
