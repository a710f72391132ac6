"""The settings of a dataset, as types. `srt.config.schema` has all settings of params.yaml.

No class here has a default value: every number is in params.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from srt.config.strict import ConfigError, check_positive

SPLITS = ("train", "val", "test")

# The source of a dataset whose scenes this package generates.
SYNTHETIC = "synthetic"


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Which synthetic scenes replace a published dataset, and how many each split has."""

    scene: Literal["object", "object_anywhere", "solids", "objects", "clutter"]
    train: int
    val: int
    test: int

    def __post_init__(self) -> None:
        check_positive(self)


@dataclass(frozen=True, kw_only=True)
class SplitRanges:
    """Which scenes of the raw data are in each split: from the first number to before the second.

    Layout `obsurf` counts through the whole set, layout `msn` through the split in TFDS' order.
    """

    train: tuple[int, int]
    val: tuple[int, int]
    test: tuple[int, int]

    def __post_init__(self) -> None:
        for split, (start, end) in vars(self).items():
            if not 0 <= start < end:
                raise ConfigError(
                    f"{split} [{start}, {end}] is not a range of scenes: the first number must be"
                    " at least 0 and below the second"
                )


@dataclass(frozen=True, kw_only=True)
class SubsetConfig:
    """Which scenes of a dataset are fetched and packed. null does not restrict them."""

    # Ids or names of classes (layout nmr).
    classes: tuple[str, ...] | None

    # Shards of each split (layout msn): `0-3,7`, or `present` for those that are on disk.
    shards: str | None

    # The most scenes of each split.
    max_scenes: int | None

    def __post_init__(self) -> None:
        check_positive(self)
        if self.shards is not None and self.shards != "present":
            shard_numbers(self.shards)


def shard_numbers(text: str) -> list[int]:
    """Return the numbers that a text like `0-3,7` lists, in order.

    Raises:
        ConfigError: if the text has another form, or a range runs backwards.
    """
    numbers: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ConfigError(f"shards {text!r} is neither like `0-3,7` nor `present`")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where a dataset comes from, how its files are laid out, and how a model uses it."""

    # The layout of the raw files: an entry of srt/data/raw/layouts.py, which checks what it needs.
    layout: str

    # "synthetic", an https or gs address, or a folder or archive on disk.
    source: str

    # The page where a person gets data that no program can download.
    homepage: str | None

    # The checksum of the archive, or its first digits; null: unknown.
    sha256: str | None

    # The source views of protocol pixelnerf: an address, a file, or one index for all scenes.
    view_list: str | int | None

    # Where the rays of NMR's pixels go: through their centres, or spread from the edges of the
    # image as in the published loader (docs/data.md).
    pixel_grid: Literal["center", "corner"]

    # Rows and columns of an image, and images of a scene.
    image_size: tuple[int, int]
    views: int

    # Images that the model sees of a scene. Of these, every n-th row and column is used.
    input_views: int
    input_stride: int

    # Which views target rays are drawn from: those that are no input, or all.
    targets: Literal["others", "all"]

    # Everything visible lies between these distances from a camera.
    near: float
    far: float

    # null: the raw data have lists of scenes, or all scenes of a split are used.
    ranges: SplitRanges | None

    # Scenes with more objects are left out (layout obsurf).
    max_objects: int | None

    # How packed images are stored. Compressed ones are smaller and take longer to read.
    storage: Literal["raw", "compressed"]

    subset: SubsetConfig | None
    synthetic: SyntheticConfig | None

    def __post_init__(self) -> None:
        check_positive(self, "view_list", "near")
        self._check_views()
        if self.source == SYNTHETIC and self.synthetic is None:
            raise ConfigError(
                "source is synthetic, so synthetic: {scene, train, val, test} must be given"
            )

    def _check_views(self) -> None:
        if not 0 <= self.near < self.far:
            raise ConfigError(f"near {self.near} is not in 0..{self.far} (far)")
        if min(self.image_size) <= 0:
            raise ConfigError(f"image_size {list(self.image_size)} is not positive")

        # At least one view must remain that is no input. Indices of views begin with 0.
        last = self.views - 1
        if not 0 < self.input_views < self.views:
            raise ConfigError(f"input_views {self.input_views} is not in 1..{last} (views)")
        if isinstance(self.view_list, int) and not 0 <= self.view_list < self.views:
            raise ConfigError(f"view_list {self.view_list} is not in 0..{last} (views)")


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """A published weight file that the pipeline downloads. source: null means it is not used."""

    source: str | None
    sha256: str | None
