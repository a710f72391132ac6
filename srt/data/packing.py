"""Raw scenes -> the packed format of srt/data/scenes.py, in parallel, resumable, all or nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srt.config import SPLITS, DatasetConfig, fingerprint
from srt.data import nmr
from srt.data.scenes import FORMAT, DataError, SceneInfo
from srt.files import sha256_of, write_atomically
from srt.processes import die_with_parent

SHARD_BYTES = 64 * 2**20  # of images; a worker holds one shard in memory
READERS = {"nmr": nmr}


@dataclass(frozen=True)
class Shard:
    """The work of one worker: some scenes of a split, into two files."""

    root: Path
    config: DatasetConfig
    scenes: list[SceneInfo]
    images: Path
    cameras: Path


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
    again. `out` itself appears at the end, complete. Raises DataError for anything wrong in `root`.
    """
    reader = READERS[config.layout]
    splits = {split: reader.list_scenes(root, split, config, view_list) for split in SPLITS}
    _refuse_leaks(root, splits)
    key = {
        "format": FORMAT,
        "config": asdict(config),
        "provenance": provenance,
        "scenes": {split: [asdict(scene) for scene in scenes] for split, scenes in splits.items()},
        "scenes_per_shard": _scenes_per_shard(config),
    }
    work = _work_folder(out, key)
    _write_shards(root, config, splits, work, workers)
    digests = {}
    for split, scenes in splits.items():
        _write_split(work / split, split, scenes, config, provenance)
        digests[split] = {p.name: sha256_of(p) for p in sorted((work / split).iterdir())}
    counts = {split: len(scenes) for split, scenes in splits.items()}
    manifest = {"format": FORMAT, "scenes": counts, "files": digests, "provenance": provenance}
    write_atomically(work / "manifest.json", json.dumps(manifest, indent=1).encode())
    (work / "key").unlink()
    _publish(work, out)


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


def _work_folder(out: Path, key: dict[str, Any]) -> Path:
    """Returns the folder of unfinished work; one that was made of other data is emptied first."""
    work, digest = out.with_name(f".{out.name}.partial"), fingerprint(key)
    if work.exists() and not ((work / "key").exists() and (work / "key").read_text() == digest):
        shutil.rmtree(work)
    for split in SPLITS:
        (work / split).mkdir(parents=True, exist_ok=True)
    for leftover in work.rglob(".*"):  # of a call that was killed while it wrote
        leftover.unlink()
    write_atomically(work / "key", digest.encode())
    return work


def _scenes_per_shard(config: DatasetConfig) -> int:
    return max(1, SHARD_BYTES // (config.views * config.image_size**2 * 3))


def _write_shards(
    root: Path,
    config: DatasetConfig,
    splits: dict[str, list[SceneInfo]],
    work: Path,
    workers: int,
) -> None:
    from tqdm import tqdm

    size, shards = _scenes_per_shard(config), []
    for split, scenes in splits.items():
        for number, start in enumerate(range(0, len(scenes), size)):
            images, cameras = (
                work / split / f"{part}-{number:05d}" for part in ("images", "cameras")
            )
            shard = Shard(
                root,
                config,
                scenes[start : start + size],
                images.with_suffix(".npy"),
                cameras.with_suffix(".npz"),
            )
            if not shard.images.exists():  # written last: then both are there
                shards.append(shard)
    total = sum(len(shard.scenes) for shard in shards)
    # Spawned, not forked: a forked process inherits the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=total, desc=f"pack {root.name}", unit="scene") as progress,
        ProcessPoolExecutor(max(1, min(workers, len(shards))), context, die_with_parent) as pool,
    ):
        futures = [pool.submit(_write_shard, shard) for shard in shards]
        try:
            for future in as_completed(futures):
                progress.update(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_shard(shard: Shard) -> int:
    """Returns the number of scenes written."""
    reader = READERS[shard.config.layout]
    scenes = [reader.read_scene(shard.root, scene, shard.config) for scene in shard.scenes]
    _save(
        shard.cameras,
        np.savez,
        intrinsics=np.stack([scene.intrinsics for scene in scenes]),
        camera_to_world=np.stack([scene.camera_to_world for scene in scenes]),
    )
    _save(shard.images, np.save, arr=np.stack([scene.images for scene in scenes]))
    return len(scenes)


def _save(path: Path, save: Any, **arrays: Any) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        save(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def _write_split(
    folder: Path,
    split: str,
    scenes: list[SceneInfo],
    config: DatasetConfig,
    provenance: dict[str, Any],
) -> None:
    """Joins the shards' cameras and writes the split's header."""
    parts = sorted(folder.glob("cameras-*.npz"))
    if not (folder / "cameras.npz").exists():  # else an interrupted call had joined all of them
        loaded = [_arrays(part) for part in parts]
        keys = ("intrinsics", "camera_to_world")
        _save(
            folder / "cameras.npz",
            np.savez,
            **{key: np.concatenate([part[key] for part in loaded]) for key in keys},
        )
    for part in parts:
        part.unlink()
    files = sorted(path.name for path in folder.glob("images-*.npy"))
    header = {
        "format": FORMAT,
        "split": split,
        "views": config.views,
        "height": config.image_size,
        "width": config.image_size,
        "camera": "OpenCV axes, z-up world, pixel centres at index + 0.5",
        "pixel_grid": config.pixel_grid,
        "scenes_per_shard": _scenes_per_shard(config),
        "mean_colour": _mean_colour([folder / name for name in files]),
        "files": files,
        "provenance": provenance,
        "scenes": [asdict(scene) for scene in scenes],
    }
    write_atomically(folder / "scenes.json", json.dumps(header, indent=1).encode())


def _mean_colour(shards: list[Path]) -> list[float]:
    """Returns the mean of all pixels, in [0, 1]: the best constant prediction, a baseline."""
    total, pixels = np.zeros(3), 0
    for shard in shards:
        for scene in np.load(shard, mmap_mode="r"):
            total += scene.sum(axis=(0, 1, 2), dtype=np.int64)
            pixels += scene[..., 0].size
    return (total / pixels / 255).tolist()
