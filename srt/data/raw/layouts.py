"""The register of raw layouts: how each is fetched, read and, for synthetic scenes, written.

A new layout is a reader module (srt/data/raw/common.py says what it has) and an entry of `LAYOUTS`.
docs/extending.md does this step by step. The stages ask this register and know no layout by its
name.

Reading and writing need PyTorch and other packages that take seconds to import. An entry therefore
names its modules, and they are imported when they are used. For the same reason the code of one
layout is no code of the others' jobs: a dataset is not packed again when another reader changes.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from srt.config.load import load_dataset, load_params
from srt.config.schema import SYNTHETIC, DatasetConfig
from srt.config.strict import ConfigError

if TYPE_CHECKING:
    from srt.data.raw.common import RawScene, SceneInfo


@runtime_checkable
class Reader(Protocol):
    """A module that reads a layout."""

    def list_scenes(
        self, root: Path, split: str, config: DatasetConfig, view_list: Path | None, /
    ) -> list[SceneInfo]:
        """Return the scenes of a split."""

    def read_scene(self, root: Path, scene: SceneInfo, config: DatasetConfig, /) -> RawScene:
        """Return the images and cameras of a scene."""


@runtime_checkable
class SceneWriter(Protocol):
    """A function that writes synthetic scenes in a layout."""

    def __call__(
        self, root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int
    ) -> None:
        """Write the scenes of a dataset of this name into `root`."""


@dataclass(frozen=True, kw_only=True)
class RawLayout:
    """An entry of the register. Only the first two fields are needed for data in a folder."""

    # The module that reads the layout. If `subset` has `classes`, it has `read_classes(root)` too,
    # which returns class id -> name.
    reader: str

    # The file in the dataset's top folder that describes the dataset.
    index: str

    # Keys of the dataset's settings that must be given, and keys that the layout cannot use.
    needs: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()

    # Keys of `subset` that the layout has, beside `max_scenes`.
    subset: tuple[str, ...] = ()

    # The sorts of synthetic scenes (`synthetic.scene`) that can be written in this layout, and the
    # function that writes them: a `SceneWriter`, by its module and name.
    scenes: tuple[str, ...] = ()
    writer: str | None = None

    # The address of a dataset is a folder of TFDS shards in a bucket, and not an archive.
    bucket: bool = False

    # Beside the index, only this folder of a tar archive is extracted; None: archives are zips.
    tar_folder: str | None = None

    # There are no raw files: scenes are rendered while they are packed, on GPUs if there are any.
    renders_when_packed: bool = False

    # Packages beside NumPy and Pillow whose versions decide the pixels that are read.
    packages: tuple[str, ...] = ()


# Scenes of several objects on a ground.
GROUND_SCENES = ("solids", "objects", "clutter")

# By the name that a dataset's `layout` in params.yaml has.
LAYOUTS: dict[str, RawLayout] = {
    "nmr": RawLayout(
        reader="srt.data.raw.nmr",
        index="metadata.yaml",
        refuses=("ranges",),
        subset=("classes",),
        scenes=("object",),
        writer="srt.data.synthetic.as_nmr.write_nmr",
    ),
    "obsurf": RawLayout(
        reader="srt.data.raw.obsurf",
        index="metadata.npz",
        needs=("ranges",),
        refuses=("view_list",),
        scenes=GROUND_SCENES,
        writer="srt.data.synthetic.as_obsurf.write_obsurf",
        tar_folder="images",
    ),
    "msn": RawLayout(
        reader="srt.data.raw.msn",
        index="dataset_info.json",
        refuses=("view_list",),
        subset=("shards",),
        scenes=GROUND_SCENES,
        writer="srt.data.synthetic.as_msn.write_msn",
        bucket=True,
        packages=("tensorflow-cpu",),
    ),
    "generated": RawLayout(
        reader="srt.data.raw.generated",
        index="recipe.json",
        refuses=("ranges", "view_list"),
        scenes=("object", "object_anywhere", *GROUND_SCENES),
        writer="srt.data.raw.generated.write_generated",
        renders_when_packed=True,
        packages=("torch",),
    ),
}


def load_reader(layout: str) -> Reader:
    """Import and return the module that reads a layout."""
    return cast(Reader, importlib.import_module(LAYOUTS[layout].reader))


def load_writer(layout: str) -> SceneWriter:
    """Import and return the function that writes synthetic scenes. The layout must have one."""
    writer = LAYOUTS[layout].writer
    assert writer is not None
    module, _, name = writer.rpartition(".")
    return cast(SceneWriter, getattr(importlib.import_module(module), name))


def read_classes(root: Path, layout: str) -> dict[str, str]:
    """Return class id -> name of the data in `root`. The layout must have classes."""
    reader = importlib.import_module(LAYOUTS[layout].reader)
    return cast(dict[str, str], reader.read_classes(root))


def check_layouts(params: Path) -> None:
    """Check every dataset of params.yaml under every profile, as its layout demands.

    Raises:
        ConfigError: anything in the file is wrong; it names the file, the dataset and the key.
    """
    file = load_params(params)
    for profile in file.profiles:
        for name in file.datasets:
            try:
                check_layout(load_dataset(params, name, profile))
            except ConfigError as error:
                where = f"{params}: datasets.{name}, profile {profile}"
                raise ConfigError(f"{where}: {error}") from None


def check_layout(config: DatasetConfig) -> None:
    """Raise ConfigError if a dataset's layout is unknown, or its settings do not fit it."""
    if config.layout not in LAYOUTS:
        raise ConfigError(f"layout: {config.layout!r} is not one of {', '.join(LAYOUTS)}")

    # Some settings decide where scenes are found in one layout, and mean nothing in another.
    layout = LAYOUTS[config.layout]
    for key in layout.needs:
        if getattr(config, key) is None:
            raise ConfigError(f"{key}: layout {config.layout} needs it, so {key} must be given")
    for key in layout.refuses:
        if getattr(config, key) is not None:
            raise ConfigError(f"{key}: layout {config.layout} has no {key}; set it to null")
    if config.source.endswith(".tar") and layout.tar_folder is None:
        raise ConfigError(
            f"source {config.source!r}: archives of layout {config.layout} are zip files; pack it"
            " as one, or name the folder that it was unpacked to"
        )
    _check_subset(config, layout)
    _check_synthetic(config, layout)


def _check_subset(config: DatasetConfig, layout: RawLayout) -> None:
    """Raise ConfigError if a subset limits what the dataset's layout does not have."""
    subset = dataclasses.asdict(config.subset) if config.subset else {}
    for key, value in subset.items():
        if value is not None and key not in (*layout.subset, "max_scenes"):
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            raise ConfigError(
                f"subset.{key} {text}: layout {config.layout} has no {key}; leave it out"
            )


def _check_synthetic(config: DatasetConfig, layout: RawLayout) -> None:
    """Raise ConfigError if a dataset's source or its synthetic scenes do not suit its layout."""
    if layout.renders_when_packed and config.source != SYNTHETIC:
        raise ConfigError(
            f"source {config.source!r}: a dataset of layout {config.layout} is synthetic; set"
            " source: synthetic, or another layout"
        )
    if config.synthetic and config.synthetic.scene not in layout.scenes:
        scene = config.synthetic.scene
        names = [name for name, other in LAYOUTS.items() if scene in other.scenes]
        raise ConfigError(
            f"synthetic.scene {scene!r} cannot be written in layout {config.layout}, only in"
            f" {', '.join(names)}"
        )
