"""Raw scenes -> the packed format of srt/data/packed/reader.py, in parallel, resumable, all or nothing.

A worker holds one scene in memory, the caller the list of all scenes.
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
from srt.common.files import CANNOT_WRITE, locked, sha256_of, write_atomically
from srt.common.fingerprint import fingerprint
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.packed.reader import FORMAT
from srt.data.packed.shards import (
    READERS,
    SUFFIXES,
    Shard,
    columns,
    scene_bytes,
    scenes_per_shard,
    write_shard,
    write_split,
)
from srt.data.raw.common import SceneInfo


def pack(
    root: Path,
    view_list: Path | None,
    config: DatasetConfig,
    out: Path,
    *,
    provenance: dict[str, Any],
    workers: int,
) -> None:
    """Writes the packed dataset `out`; the same bytes whatever the number of workers.

    Finished shards of an interrupted call are kept in a hidden folder beside `out` and not made
    again. `out` itself appears at the end, complete. Raises DataError for anything wrong in `root`,
    and where `out` cannot be written.
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
    reader = READERS[config.layout]
    splits = {split: reader.list_scenes(root, split, config, view_list) for split in SPLITS}
    _refuse_leaks(root, splits)
    provenance = {**provenance, "versions": _versions(config)}
    key = {
        "format": FORMAT,
        "config": asdict(config),
        "provenance": provenance,
        "scenes": {split: columns(scenes) for split, scenes in splits.items()},
        "scenes_per_shard": scenes_per_shard(config),
    }
    work = out.with_name(f".{out.name}.partial")
    with locked(work, f"{out} is being packed"):
        _clear_other(work, key)
        shards = [s for split in SPLITS for s in _shards(root, config, splits[split], work / split)]
        _check_space(shards, config, work)
        _write_shards(shards, root.name, workers)
        digests = {}
        for split, scenes in splits.items():
            write_split(work / split, split, scenes, config, provenance)
            digests[split] = {p.name: sha256_of(p) for p in sorted((work / split).iterdir())}
        counts = {split: len(scenes) for split, scenes in splits.items()}
        manifest = {"format": FORMAT, "scenes": counts, "files": digests, "provenance": provenance}
        write_atomically(work / "manifest.json", json.dumps(manifest, indent=1).encode())
        (work / "key").unlink()
        _publish(work, out)


def _versions(config: DatasetConfig) -> dict[str, str]:
    """Returns the versions of what decodes the raw images and writes ours."""
    more = {"msn": ["tensorflow-cpu"], "generated": ["torch"]}
    packages = ["numpy", "pillow", *more.get(config.layout, [])]
    return {name: importlib.metadata.version(name) for name in packages}


def _publish(work: Path, out: Path) -> None:
    """Gives finished work its name; what had it is moved away whole, for deleting takes time."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(work, out)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_leaks(root: Path, splits: dict[str, list[SceneInfo]]) -> None:
    seen: dict[str, str] = {}
    for split, scenes in splits.items():
        for scene in scenes:
            if scene.name in seen:
                raise DataError(
                    f"{root}: {scene.name} is in the lists of both {seen[scene.name]} and {split};"
                    " remove it from one"
                )
            seen[scene.name] = split


def _clear_other(work: Path, key: dict[str, Any]) -> None:
    """Empties the folder of unfinished work that was made of other data."""
    digest = fingerprint(key)
    if not ((work / "key").exists() and (work / "key").read_text() == digest):
        for entry in work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for split in SPLITS:
        (work / split).mkdir(exist_ok=True)
    for leftover in work.rglob(".*"):  # of a call that was killed while it wrote
        leftover.unlink()
    write_atomically(work / "key", digest.encode())


def _shards(
    root: Path, config: DatasetConfig, scenes: list[SceneInfo], folder: Path
) -> Iterator[Shard]:
    """Yields the shards of a split that are not there yet."""
    size, suffix = scenes_per_shard(config), SUFFIXES[config.storage]
    for number, start in enumerate(range(0, len(scenes), size)):
        images = folder / f"images-{number:05d}{suffix}"
        record = folder / f"record-{number:05d}.npz"
        if not images.exists():  # written last: then both are there
            yield Shard(root, config, scenes[start : start + size], images, record)


def _check_space(shards: list[Shard], config: DatasetConfig, work: Path) -> None:
    """Raises DataError where raw images do not fit; of compressed ones the size is not known."""
    needed = sum(len(shard.scenes) for shard in shards) * scene_bytes(config)
    free = shutil.disk_usage(work).free
    if config.storage == "raw" and needed > free:
        raise DataError(
            f"{work}: {needed / 1e9:.1f} GB of images do not fit the {free / 1e9:.1f} GB that are"
            " free; make room, or set the dataset's `storage: compressed` or a smaller `subset`"
        )


def _write_shards(shards: list[Shard], name: str, workers: int) -> None:
    from tqdm import tqdm

    total = sum(len(shard.scenes) for shard in shards)
    # Spawned, not forked: a forked process inherits the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=total, desc=f"pack {name}", unit="scene") as progress,
        ProcessPoolExecutor(max(1, min(workers, len(shards))), context, start_worker) as pool,
    ):
        futures = [pool.submit(write_shard, shard) for shard in shards]
        try:
            for future in as_completed(futures):
                progress.update(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
