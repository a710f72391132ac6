"""TFDS datasets in a public bucket: fetches the shards that hold the configured scenes.

A dataset is a folder of the bucket with a description and shards. TFDS reads the shards of a split
in turn, some records at a time, so that the first scenes of a split may be in several shards.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from srt.config.schema import SPLITS, DatasetConfig, shard_numbers
from srt.data.download.partial import FetchError
from srt.data.download.remote_files import RemoteFile, fetch_files

# The description: dataset_info.json says which shards there are.
INFO = ("dataset_info.json", "features.json")


def https_address(source: str) -> str:
    """Return the https address of a public bucket's `gs://` address; return others unchanged."""
    return re.sub(r"^gs://", "https://storage.googleapis.com/", source).rstrip("/")


def fetch_bucket(config: DatasetConfig, folder: Path) -> list[RemoteFile]:
    """Fetch the files that hold the configured scenes unless they are there, and return them.

    Raises:
        FetchError: a file cannot be fetched, dataset_info.json describes no dataset, or the subset
            has no shard.
    """
    # The description comes first, because it says how many shards there are.
    base = https_address(config.source)
    info_files = fetch_files(base, INFO, folder)
    return info_files + fetch_files(base, required_shards(folder / INFO[0], config), folder)


def required_shards(info: Path, config: DatasetConfig) -> list[str]:
    """Return the names of the shards that the ranges and the subset of `config` require.

    Raises:
        FetchError: `info`, the dataset_info.json, describes no dataset, or the subset has no shard.
    """
    # Not at the top of the module: this import takes long, because it brings torch along.
    from srt.data.raw.msn import shards_needed

    # A shard is required if it holds one of the first scenes of its split, up to the last one that
    # the configuration uses.
    name, lengths_by_split = _read_shard_lengths(info)
    names = []
    for split, lengths in lengths_by_split.items():
        files = _shard_names(f"{name}-{split}", len(lengths))
        selected = _select_shards(files, info.parent, config)
        end = _last_scene(split, sum(lengths), config)
        count = shards_needed([lengths[shard] for shard in selected], end)
        names += [files[shard] for shard in selected[:count]]

    if not names:
        raise _no_shard_error(lengths_by_split, config)
    return names


def _no_shard_error(lengths_by_split: dict[str, list[int]], config: DatasetConfig) -> FetchError:
    """Return the error for a subset without a shard, which says how many each split has."""
    counts = ", ".join(f"{split} has {len(n)}" for split, n in lengths_by_split.items())
    shards = config.subset.shards if config.subset else None
    return FetchError(f"subset.shards {shards}: no split has such a shard ({counts})")


def _read_shard_lengths(info: Path) -> tuple[str, dict[str, list[int]]]:
    """Return the dataset's name, and for each split the numbers of records in its shards.

    Raises:
        FetchError: the file does not describe a dataset.
    """
    try:
        content = json.loads(info.read_text())
        name, entries = content["name"], {entry["name"]: entry for entry in content["splits"]}
        lengths = {
            split: [int(length) for length in entries[split]["shardLengths"]]
            for split in SPLITS
            if split in entries
        }

        # The name becomes part of file names, so it must not lead to another folder.
        if not re.fullmatch(r"\w[\w.-]*", name) or not any(lengths.values()):
            raise ValueError("its name or its splits")
    except (ValueError, TypeError, KeyError) as error:
        raise FetchError(
            f"{info}: not TFDS' description of a dataset ({error!r}); delete it, and check source"
        ) from error
    return name, lengths


def _shard_names(prefix: str, count: int) -> list[str]:
    """Return the names of all shards of a split."""
    return [f"{prefix}.tfrecord-{shard:05d}-of-{count:05d}" for shard in range(count)]


def _select_shards(files: list[str], folder: Path, config: DatasetConfig) -> list[int]:
    """Return the numbers of the shards of a split that are in the subset.

    Args:
        files: the names of all shards of the split.
        folder: the folder in which `present` shards are.
    """
    text = config.subset.shards if config.subset else None
    if text == "present":
        return [shard for shard, file in enumerate(files) if (folder / file).is_file()]
    if text is None:
        return list(range(len(files)))
    return [shard for shard in shard_numbers(text) if shard < len(files)]


def _last_scene(split: str, scenes: int, config: DatasetConfig) -> int:
    """Return how many of a split's first scenes, in TFDS' order, include all that are used.

    Args:
        scenes: the number of all scenes of the split.
    """
    start, end = getattr(config.ranges, split) if config.ranges else (0, scenes)
    max_scenes = config.subset.max_scenes if config.subset else None
    return min(end, start + max_scenes) if max_scenes else end
