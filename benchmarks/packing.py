"""Packing MSN-like scenes: rate, peak memory, and that a killed call goes on to the same bytes.

    python -m benchmarks.packing --scenes 10000

The raw data are TFRecords in MSN's layout, 128 × 128, 10 views. Memory is the largest resident set
of the caller and of any one worker, TensorFlow included.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.packed import DRAWN, draw_image
from srt.common.devices import cpus
from srt.config.load import load_dataset
from srt.config.schema import DatasetConfig
from srt.data.packed.writer import pack
from srt.geometry.cameras import look_at, rigid_inverse
from workflow import REPOSITORY

SHARDS = {"train": 16, "val": 1, "test": 1}


def write_raw(folder: Path, scenes: int, config: DatasetConfig) -> None:
    """Writes `scenes` training scenes, and one of each other split, as TensorFlow does."""
    import tensorflow as tf

    folder.mkdir()
    rng, splits = np.random.default_rng(0), []
    files = []
    for _ in range(DRAWN):
        file = io.BytesIO()
        Image.fromarray(draw_image(rng, *config.image_size)).save(file, "PNG")
        files.append(file.getvalue())
    for split, shards in SHARDS.items():
        count = scenes if split == "train" else shards
        lengths = [len(part) for part in np.array_split(np.arange(count), shards)]
        for number, length in enumerate(lengths):
            name = f"kubric_frames-{split}.tfrecord-{number:05d}-of-{shards:05d}"
            with tf.io.TFRecordWriter(str(folder / name)) as writer:
                for index in range(length):
                    writer.write(record(f"scene_{number}_{index}", rng, files, config))
        splits.append({"name": split, "shardLengths": list(map(str, lengths))})
    info = {"name": "kubric_frames", "version": "2.3.3", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def record(name: str, rng: np.random.Generator, files: list[bytes], config: DatasetConfig) -> bytes:
    """Returns a scene's record."""
    import tensorflow as tf

    def feature(value: Any) -> Any:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        flat = np.ravel(value).tolist()
        return tf.train.Feature(float_list=tf.train.FloatList(value=flat))

    height, width = config.image_size
    values: dict[str, Any] = {"scene_name": name.encode(), "frame_name": name.encode()}
    values |= {"pose/R": np.eye(3), "pose/t": np.zeros(3)}
    for view in range(config.views):
        direction = torch.from_numpy(rng.normal(size=3)).abs() + 0.1
        pose = look_at(9 * direction / direction.norm(), torch.zeros(3, dtype=torch.float64))
        to_camera, camera = rigid_inverse(pose), f"cameras/camera_{view}/"
        values |= {
            f"{camera}color_image": files[rng.integers(len(files))],
            f"{camera}extrinsics/R": to_camera[:3, :3],
            f"{camera}extrinsics/t": to_camera[:3, 3],
            f"{camera}intrinsics/K": [140.0, 0, width / 2, 0, 140.0, height / 2, 0, 0, 1],
            f"{camera}intrinsics/image_width": width,
            f"{camera}intrinsics/image_height": height,
            f"{camera}intrinsics/type": b"PERSPECTIVE",
            f"{camera}intrinsics/distortion/radial": np.zeros(3),
            f"{camera}intrinsics/distortion/tangential": np.zeros(2),
        }
    features = {key: feature(value) for key, value in values.items()}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())


def packing(raw: Path, out: Path, config: DatasetConfig, results: Any = None) -> None:
    """Packs, in a process of its own; puts the peak memory of caller and workers in a queue."""
    pack(raw, None, config, out, provenance={}, workers=cpus())
    if results is not None:
        caller = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        results.put((caller * 1024, worker * 1024))


def digest(folder: Path) -> str:
    """Returns one checksum of all files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def measure(folder: Path, scenes: int, config: DatasetConfig) -> dict[str, Any]:
    """Returns rate and memory of a whole call, and whether a killed one ends alike."""
    context = multiprocessing.get_context("spawn")
    raw, results = folder / "raw", context.Queue()
    began = time.perf_counter()
    whole = context.Process(target=packing, args=(raw, folder / "packed", config, results))
    whole.start()
    caller, worker = results.get()
    whole.join()
    seconds = time.perf_counter() - began
    expected, size = digest(folder / "packed"), 0
    size = sum(path.stat().st_size for path in (folder / "packed").rglob("*") if path.is_file())
    shutil.rmtree(folder / "packed")
    killed = context.Process(target=packing, args=(raw, folder / "packed", config))
    killed.start()
    time.sleep(seconds / 2)
    assert killed.pid is not None
    killed.kill()
    killed.join()
    kept = len(list((folder / ".packed.partial" / "train").glob("images-*")))
    began = time.perf_counter()
    packing(raw, folder / "packed", config)
    return {
        "scenes": scenes,
        "workers": cpus(),
        "storage": config.storage,
        "seconds": seconds,
        "scenes_per_s": scenes / seconds,
        "caller_peak_mb": caller / 1e6,
        "worker_peak_mb": worker / 1e6,
        "packed_gb": size / 1e9,
        "killed_by": signal.Signals(-killed.exitcode).name if killed.exitcode else None,
        "shards_kept": kept,
        "resumed_seconds": time.perf_counter() - began,
        "same_bytes": digest(folder / "packed") == expected,
    }


def main() -> None:
    """Prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--storage", choices=("raw", "compressed"), default="raw")
    arguments = parser.parse_args()
    config = load_dataset(REPOSITORY / "params.yaml", "msn", "paper")
    config = dataclasses.replace(config, storage=arguments.storage, ranges=None)
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        raw = (Path(folder) / "raw", arguments.scenes, config)
        writer = context.Process(target=write_raw, args=raw)
        writer.start()
        writer.join()
        figures = measure(Path(folder), arguments.scenes, config)
    json.dump(figures, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
