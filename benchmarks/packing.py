"""Measures how fast MSN-like scenes are packed, in how much memory, and what a kill costs.

    python -m benchmarks.packing --scenes 10000

The raw data are TFRecords in MSN's layout, with 10 views of 128 × 128 pixels. Memory is the largest
resident set of the caller and of any one worker, with TensorFlow. A call that is killed and
repeated must end with the same bytes.
"""

from __future__ import annotations

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

from benchmarks.command_line import make_parser
from benchmarks.packed import DRAWN, draw_image
from srt.common.devices import count_cpus
from srt.config.load import load_dataset
from srt.config.schema import DatasetConfig
from srt.data.packed.writer import pack
from srt.geometry.cameras import look_at, rigid_inverse
from workflow import REPOSITORY

# The number of raw files of each split.
SHARDS = {"train": 16, "val": 1, "test": 1}


def write_raw(folder: Path, scenes: int, config: DatasetConfig) -> None:
    """Write `scenes` training scenes, and one of each other split, as TensorFlow Datasets does."""
    import tensorflow as tf

    folder.mkdir()
    rng, splits = np.random.default_rng(0), []

    # Draw a number of images, of which the scenes repeat some.
    images = []
    for _ in range(DRAWN):
        file = io.BytesIO()
        Image.fromarray(draw_image(rng, *config.image_size)).save(file, "PNG")
        images.append(file.getvalue())

    # The scenes of a split are spread evenly over its files.
    for split, shards in SHARDS.items():
        count = scenes if split == "train" else shards
        lengths = [len(shard) for shard in np.array_split(np.arange(count), shards)]
        for number, length in enumerate(lengths):
            name = f"kubric_frames-{split}.tfrecord-{number:05d}-of-{shards:05d}"
            with tf.io.TFRecordWriter(str(folder / name)) as writer:
                for index in range(length):
                    writer.write(make_record(f"scene_{number}_{index}", rng, images, config))
        splits.append({"name": split, "shardLengths": list(map(str, lengths))})
    info = {"name": "kubric_frames", "version": "2.3.3", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def make_feature(value: Any) -> Any:
    """Return a value as TensorFlow's feature of bytes, an integer, or floats."""
    import tensorflow as tf

    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    flat = np.ravel(value).tolist()
    return tf.train.Feature(float_list=tf.train.FloatList(value=flat))


def make_record(
    name: str, rng: np.random.Generator, images: list[bytes], config: DatasetConfig
) -> bytes:
    """Return the record of a scene with random cameras, all of which look at the origin."""
    import tensorflow as tf

    height, width = config.image_size
    values: dict[str, Any] = {"scene_name": name.encode(), "frame_name": name.encode()}
    values |= {"pose/R": np.eye(3), "pose/t": np.zeros(3)}
    for view in range(config.views):
        direction = torch.from_numpy(rng.normal(size=3)).abs() + 0.1
        pose = look_at(9 * direction / direction.norm(), torch.zeros(3, dtype=torch.float64))

        # MSN stores world-to-camera matrices.
        to_camera, camera = rigid_inverse(pose), f"cameras/camera_{view}/"
        values |= {
            f"{camera}color_image": images[rng.integers(len(images))],
            f"{camera}extrinsics/R": to_camera[:3, :3],
            f"{camera}extrinsics/t": to_camera[:3, 3],
            f"{camera}intrinsics/K": [140.0, 0, width / 2, 0, 140.0, height / 2, 0, 0, 1],
            f"{camera}intrinsics/image_width": width,
            f"{camera}intrinsics/image_height": height,
            f"{camera}intrinsics/type": b"PERSPECTIVE",
            f"{camera}intrinsics/distortion/radial": np.zeros(3),
            f"{camera}intrinsics/distortion/tangential": np.zeros(2),
        }
    features = {key: make_feature(value) for key, value in values.items()}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())


def pack_scenes(raw: Path, out: Path, config: DatasetConfig, results: Any = None) -> None:
    """Pack, and put the peak memory of this process and of its workers into a queue, in bytes."""
    pack(raw, None, config, out, provenance={}, workers=count_cpus())

    # The operating system counts in kilobytes.
    if results is not None:
        caller = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        results.put((caller * 1024, worker * 1024))


def digest(folder: Path) -> str:
    """Return one checksum of all files, with their names."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def measure(folder: Path, scenes: int, config: DatasetConfig) -> dict[str, Any]:
    """Return rate and memory of a call, and whether a killed one ends with the same bytes."""
    # Pack in a process of its own, whose memory nothing else uses.
    context = multiprocessing.get_context("spawn")
    raw, results = folder / "raw", context.Queue()
    start = time.perf_counter()
    complete = context.Process(target=pack_scenes, args=(raw, folder / "packed", config, results))
    complete.start()
    caller, worker = results.get()
    complete.join()
    seconds = time.perf_counter() - start
    expected = digest(folder / "packed")
    size = sum(path.stat().st_size for path in (folder / "packed").rglob("*") if path.is_file())
    figures = {
        "scenes": scenes,
        "workers": count_cpus(),
        "storage": config.storage,
        "seconds": seconds,
        "scenes_per_s": scenes / seconds,
        "caller_peak_mb": caller / 1e6,
        "worker_peak_mb": worker / 1e6,
        "packed_gb": size / 1e9,
    }

    # Pack again with a kill after half of the time, and compare the bytes.
    shutil.rmtree(folder / "packed")
    figures |= measure_resumption(folder, config, seconds / 2)
    return {**figures, "same_bytes": digest(folder / "packed") == expected}


def measure_resumption(folder: Path, config: DatasetConfig, seconds: float) -> dict[str, Any]:
    """Kill a process that packs after so many seconds, and pack again. Return what it took."""
    context, raw = multiprocessing.get_context("spawn"), folder / "raw"
    killed = context.Process(target=pack_scenes, args=(raw, folder / "packed", config))
    killed.start()
    time.sleep(seconds)
    assert killed.pid is not None
    killed.kill()
    killed.join()
    finished_shards = len(list((folder / ".packed.partial" / "train").glob("images-*")))

    # The repeated call goes on from the finished shards.
    start = time.perf_counter()
    pack_scenes(raw, folder / "packed", config)
    return {
        "killed_by": signal.Signals(-killed.exitcode).name if killed.exitcode else None,
        "shards_kept": finished_shards,
        "resumed_seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--storage", choices=("raw", "compressed"), default="raw")
    arguments = parser.parse_args()
    config = load_dataset(REPOSITORY / "params.yaml", "msn", "paper")
    config = dataclasses.replace(config, storage=arguments.storage, ranges=None)

    # Another process writes the raw data, so that this one does not load TensorFlow.
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
