"""What the JSON files of the stages hold: a frozen class for each file, and classes for its parts.

    metrics.json      Metrics       by evaluate
    costs.json        ModelTimes    by evaluate
    training.json     Training      by train
    statistics.json   Survey        by survey

`srt.results.record_files` reads and writes them. A field has the name of its key, but for those
that `renamed` marks. Files from before there were formats may lack the keys of fields with a
default value; new files have all keys. PSNRs are in dB. A figure that was not measured is None.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

# The names of the measures, in the order of tables and files.
Measure = Literal["psnr", "ssim", "lpips", "lpips_alex"]


def renamed(key: str) -> Any:
    """Return a field whose key in the file is another word than its name in the class."""
    return dataclasses.field(metadata={"key": key})


@dataclass(frozen=True, kw_only=True)
class Measures:
    """How near predictions are to their targets."""

    psnr: float  # dB
    ssim: float | None = None
    lpips: float | None = None  # with the features of VGG
    lpips_alex: float | None = None  # with the features of AlexNet

    def value(self, measure: Measure) -> float | None:
        """Return a measure by its name, for tables that have a column for each."""
        values = {"psnr": self.psnr, "ssim": self.ssim, "lpips": self.lpips}
        return self.lpips_alex if measure == "lpips_alex" else values[measure]


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The measures of predictions that need no training (srt/evaluation/baselines.py)."""

    mean_colour: Measures
    input_view: Measures
    warped_input: Measures | None = None  # None: evaluated before this baseline existed


@dataclass(frozen=True, kw_only=True)
class ItemCounts:
    """How many items of a protocol were measured, and how many it has."""

    items: int
    total_items: int = renamed("of")


# The fields of the last base come first, as in the file: the counts, then the measures.
@dataclass(frozen=True, kw_only=True)
class ProtocolScores(Measures, ItemCounts):
    """The means over the measured items of a protocol."""

    baselines: Baselines
    classes: dict[str, Measures]  # the means over the items of each class


@dataclass(frozen=True, kw_only=True)
class MeasuringConditions:
    """What the model was given to see."""

    input_views: int
    trained_input_views: int  # how many it was trained with
    pose_noise: float  # standard deviation, in radians and in units of the world


@dataclass(frozen=True, kw_only=True)
class ModelCosts:
    """What a model needs, counted: it is the same on every machine."""

    parameters: int
    encode_flops: int  # operations to encode a scene; a multiplication and an addition are two
    frame_flops: int  # operations to render a frame


@dataclass(frozen=True, kw_only=True)
class MetricsHeader:
    """What was measured, under which conditions, and the fingerprint of all that."""

    experiment: str
    profile: str
    dataset: str
    synthetic: bool
    split: str
    conditions: MeasuringConditions
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Metrics(MetricsHeader):
    """The content of metrics.json."""

    costs: ModelCosts
    protocols: dict[str, ProtocolScores]

    @property
    def first_protocol(self) -> str:
        """The protocol that all experiments share."""
        return next(iter(self.protocols))

    @property
    def last_protocol(self) -> str:
        """The protocol that classes and pictures are shown by."""
        return list(self.protocols)[-1]


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """The content of costs.json: medians of the evaluation's machine."""

    encode_seconds: float  # to encode a scene
    frame_seconds: float  # to render a frame
    hardware: str


@dataclass(frozen=True, kw_only=True)
class PublishedOrigin:
    """The checkpoint of the published code that weights were imported from."""

    checkpoint: str  # the file's name
    sha256: str
    epoch_it: int  # the epoch
    run_id: str | None  # the run's name at Weights & Biases


@dataclass(frozen=True, kw_only=True)
class Training:
    """The content of training.json: how a training went, on what, and what it cost."""

    experiment: str
    steps: int
    best_step: int  # the step of the weights that are kept
    validation_psnr: float | None = None  # dB, at best_step; None: never validated
    parameters: int | None = None
    seconds: float  # validation included
    joules: int | None = None  # of all GPUs
    peak_gigabytes: float | None = None  # of the GPU with the most memory in use
    hardware: str  # such as `2 x NVIDIA H200`
    seed: int | None = None
    but_for_seed: str | None = None  # equal for trainings that differ only in their seed
    finished: str | None = None  # the date
    commit: str | None = None
    published: PublishedOrigin | None = None  # None: trained by this repository


# The smallest, the median and the largest value over all cameras.
CameraRange = tuple[float, float, float]

# Of red, green and blue, from 0 to 1.
Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class PixelStatistics:
    """What the pixels of a split are like, over all of its images."""

    mean_colour: Colour
    std_colour: Colour
    minimum: Colour
    maximum: Colour


@dataclass(frozen=True, kw_only=True)
class CameraRanges:
    """Where the cameras of a split stand, and how they look at the world's origin."""

    distance_to_origin: CameraRange  # units of the world
    elevation_degrees: CameraRange
    angle_off_origin_degrees: CameraRange
    field_of_view_degrees: CameraRange  # horizontal


@dataclass(frozen=True, kw_only=True)
class SplitSurvey:
    """The counts, pixels and cameras of a split."""

    scenes: int
    views: int  # of each scene
    image_size: tuple[int, int]  # rows, columns
    storage: str
    uncompressed_bytes: int
    classes: dict[str, int]  # scenes of each class
    pixels: PixelStatistics
    cameras: CameraRanges


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The content of statistics.json: what a packed dataset holds."""

    dataset: str
    profile: str
    synthetic: bool
    source: str
    splits: dict[str, SplitSurvey]
