"""Raw scenes -> the packed format of srt/data/packed/reader.py.

Several processes pack in parallel. An interrupted call can be run again and keeps the shards that
are finished. The packed dataset appears at the end, complete, or not at all. A worker holds one
scene in memory, and the caller holds the list of all scenes.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srt.common.devices import start_worker
from srt.common.errors import DataError
from srt.common.files import CANNOT_WRITE, lock_folder, sha256_of, write_atomically
from srt.common.fingerprint import fingerprint
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.packed.reader import FORMAT
from srt.data.packed.shards import (
    SUFFIXES,
    Shard,
    scene_bytes,
    scene_columns,
    scenes_per_shard,
    write_shard,
    write_split,
)
from srt.data.raw.common import SceneInfo
from srt.data.raw.layouts import LAYOUTS, load_reader


def pack(
    root: Path,
    view_list: Path | None,
    config: DatasetConfig,
    out: Path,
    *,
    provenance: dict[str, Any],
    workers: int,
) -> None:
    """Write the packed dataset `out`. Its bytes do not depend on the number of workers.

    Finished shards of an interrupted call are in a hidden folder beside `out`; they are used and
    not made again. `out` itself appears at the end, complete.

    Args:
        root: the folder of the raw data.
        view_list: the source views of the test scenes, for layouts that have such a file.
        provenance: written into the headers and the manifest.

    Raises:
        DataError: something is wrong in `root`, or `out` cannot be written.
    """
    try:
        _pack(root, view_list, config, out, provenance, workers)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise DataError(
            f"{out}: {error.strerror}; make room or choose another place, then run again: what is"
            " packed already is kept"
        ) from error


def _pack(
    root: Path,
    view_list: Path | None,
    config: DatasetConfig,
    out: Path,
    provenance: dict[str, Any],
    workers: int,
) -> None:
    """Write the packed dataset `out`; leave errors of the file system as they are."""
    # List all scenes first: most faults of the raw data are found before any work is done.
    reader = load_reader(config.layout)
    splits = {split: reader.list_scenes(root, split, config, view_list) for split in SPLITS}
    _refuse_leaks(root, splits)

    # Pack into a hidden folder, shard by shard, and give it its name when all is done.
    provenance = {**provenance, "versions": _versions(config)}
    key = _work_key(splits, config, provenance)
    work = out.with_name(f".{out.name}.partial")
    with lock_folder(work, f"{out} is being packed"):
        _prepare_folder(work, key)
        _write_missing_shards(root, splits, config, work, workers)
        _finish_splits(work, splits, config, provenance)
        (work / "key").unlink()
        _publish(work, out)


def _write_missing_shards(
    root: Path,
    splits: dict[str, list[SceneInfo]],
    config: DatasetConfig,
    work: Path,
    workers: int,
) -> None:
    """Write the shards of all splits that an interrupted call has not written."""
    shards: list[Shard] = []
    for split in SPLITS:
        shards.extend(_missing_shards(root, config, splits[split], work / split))
    _check_space(shards, config, work)
    _write_shards(shards, root.name, workers)


def _work_key(
    splits: dict[str, list[SceneInfo]], config: DatasetConfig, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Return all that the packed bytes depend on. Unfinished work of another key is not used."""
    return {
        "format": FORMAT,
        "config": asdict(config),
        "provenance": provenance,
        "scenes": {split: scene_columns(scenes) for split, scenes in splits.items()},
        "scenes_per_shard": scenes_per_shard(config),
    }


def _finish_splits(
    work: Path,
    splits: dict[str, list[SceneInfo]],
    config: DatasetConfig,
    provenance: dict[str, Any],
) -> None:
    """Join the shards of each split, and write the manifest with the digest of every file."""
    # The digests are of the finished files of a split, so it is finished first.
    digests = {}
    for split, scenes in splits.items():
        write_split(work / split, split, scenes, config, provenance)
        digests[split] = {path.name: sha256_of(path) for path in sorted((work / split).iterdir())}

    # The manifest describes the whole dataset.
    counts = {split: len(scenes) for split, scenes in splits.items()}
    manifest = {"format": FORMAT, "scenes": counts, "files": digests, "provenance": provenance}
    write_atomically(work / "manifest.json", json.dumps(manifest, indent=1).encode())


def _versions(config: DatasetConfig) -> dict[str, str]:
    """Return the versions of the packages that decode the raw images and write the packed ones."""
    packages = ("numpy", "pillow", *LAYOUTS[config.layout].packages)
    return {name: importlib.metadata.version(name) for name in packages}


def _publish(work: Path, out: Path) -> None:
    """Give the finished work its name, in place of what had that name."""
    # The old dataset is moved away whole before it is deleted, because deleting takes time.
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(work, out)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_leaks(root: Path, splits: dict[str, list[SceneInfo]]) -> None:
    """Raise DataError if a scene is in two splits."""
    # Remember the split in which each scene was seen first.
    split_of: dict[str, str] = {}
    for split, scenes in splits.items():
        for scene in scenes:
            if scene.name in split_of:
                raise DataError(
                    f"{root}: {scene.name} is in the lists of both {split_of[scene.name]} and"
                    f" {split}; remove it from one"
                )
            split_of[scene.name] = split


def _prepare_folder(work: Path, key: dict[str, Any]) -> None:
    """Make the folder ready for work of this key: keep finished work of the same key only."""
    # Delete work that was made from other data or with other settings.
    digest = fingerprint(key)
    if not ((work / "key").exists() and (work / "key").read_text() == digest):
        _empty_folder(work)

    # Delete the hidden files of a call that was killed while it wrote them.
    for split in SPLITS:
        (work / split).mkdir(exist_ok=True)
    for unfinished in work.rglob(".*"):
        unfinished.unlink()
    write_atomically(work / "key", digest.encode())


def _empty_folder(folder: Path) -> None:
    """Delete all that is in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _missing_shards(
    root: Path, config: DatasetConfig, scenes: list[SceneInfo], folder: Path
) -> Iterator[Shard]:
    """Yield the shards of a split that are still to be written."""
    # The images of a shard get their name last: if they are there, the shard is finished.
    size, suffix = scenes_per_shard(config), SUFFIXES[config.storage]
    read_scene = load_reader(config.layout).read_scene
    for number, start in enumerate(range(0, len(scenes), size)):
        images = folder / f"images-{number:05d}{suffix}"
        record = folder / f"record-{number:05d}.npz"
        if not images.exists():
            yield Shard(root, config, read_scene, scenes[start : start + size], images, record)


def _check_space(shards: list[Shard], config: DatasetConfig, work: Path) -> None:
    """Raise DataError if raw images do not fit on the disk; compressed ones have no known size."""
    needed = sum(len(shard.scenes) for shard in shards) * scene_bytes(config)
    free = shutil.disk_usage(work).free
    if config.storage == "raw" and needed > free:
        raise DataError(
            f"{work}: {needed / 1e9:.1f} GB of images do not fit the {free / 1e9:.1f} GB that are"
            " free; make room, or set the dataset's `storage: compressed` or a smaller `subset`"
        )


def _write_shards(shards: list[Shard], name: str, workers: int) -> None:
    """Write the shards in worker processes and show the progress.

    Args:
        name: of the dataset, for the progress bar.
    """
    from tqdm import tqdm

    # Spawn the workers: a forked process would inherit the locks of this process' threads.
    total = sum(len(shard.scenes) for shard in shards)
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=total, desc=f"pack {name}", unit="scene") as progress,
        ProcessPoolExecutor(max(1, min(workers, len(shards))), context, start_worker) as pool,
    ):
        # The first error, or an interrupt, cancels all shards that have not begun.
        futures = [pool.submit(write_shard, shard) for shard in shards]
        try:
            for future in as_completed(futures):
                progress.update(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
