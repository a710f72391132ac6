"""Synthetic scenes in the raw layout in which MultiShapeNet 2.3.3 is published: TFDS' TFRecords."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from srt.common.devices import in_workers
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    ground_scene,
    look_at_origin,
    pictures,
    png,
    style_of,
)
from srt.geometry.cameras import resize_intrinsics, rigid_inverse

if TYPE_CHECKING:
    import tensorflow as tf

SHARDS = {"train": 4, "val": 2, "test": 2}  # of every split; fewer where it has fewer scenes
INTRINSICS = torch.tensor([[140, 0, 64], [0, 140, 64], [0, 0, 1]]).double()  # at 128 x 128
DISTANCES, ELEVATIONS = (8.0, 12.0), (15.0, 70.0)
MODULE = "tensorflow_datasets.core.features"

Record = dict[str, bytes | list[int] | list[float]]


def write_msn(root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int) -> None:
    """Writes the scenes; the files' bytes depend on neither `workers` nor the other scenes.

    Args:
        name: of the dataset: scenes of one are none of another's.
    """
    root.mkdir(parents=True, exist_ok=True)
    counts = {split: getattr(config.synthetic, split) for split in SPLITS}
    keys = [
        SceneKey(seed=seed, dataset=name, split=split, index=index)
        for split in SPLITS
        for index in range(counts[split])
    ]
    records = in_workers(functools.partial(_record, config), keys, workers)
    splits = [_write_split(root, split, counts[split], records) for split in SPLITS]
    (root / "features.json").write_text(json.dumps(_features(config), indent=4))
    (root / "dataset_info.json").write_text(json.dumps(_dataset_info(splits), indent=2))


def _record(config: DatasetConfig, key: SceneKey) -> Record:
    """Returns what a record of the layout says of a scene."""
    rng, size = key.generator(), config.image_size
    scene = ground_scene(style_of(config), rng)
    positions = camera_positions(rng, config.views, DISTANCES, ELEVATIONS)
    intrinsics = resize_intrinsics(INTRINSICS, (128, 128), size)
    from_world = rigid_inverse(look_at_origin(positions))
    scene_id = f"scene_{key.index}".encode()
    no_category = png(np.zeros(size, np.uint8))
    record: Record = {
        "scene_name": scene_id,
        "frame_name": scene_id,
        "pose/R": np.eye(3).flatten().tolist(),
        "pose/t": [0.0, 0.0, 0.0],
    }
    for view, picture in enumerate(pictures(scene, positions, intrinsics, size)):
        camera: Record = {
            "color_image": png(picture),
            "category_image": no_category,
            "extrinsics/R": from_world[view, :3, :3].flatten().tolist(),
            "extrinsics/t": from_world[view, :3, 3].tolist(),
            "intrinsics/K": intrinsics.flatten().tolist(),
            "intrinsics/image_height": [size[0]],
            "intrinsics/image_width": [size[1]],
            "intrinsics/type": b"PERSPECTIVE",
            "intrinsics/distortion/radial": [0.0, 0.0, 0.0],
            "intrinsics/distortion/tangential": [0.0, 0.0],
        }
        record |= {f"cameras/camera_{view}/{name}": value for name, value in camera.items()}
    return record


def _write_split(root: Path, split: str, count: int, records: Iterator[Record]) -> dict[str, Any]:
    """Writes the next `count` records; returns the split's part of dataset_info.json."""
    shards = min(count, SHARDS[split])
    bounds = [count * shard // shards for shard in range(shards + 1)]
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    size = 0
    for shard, length in enumerate(lengths):
        path = root / f"kubric_frames-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
        # First the records: the workers are busy with them while TensorFlow starts.
        examples = [_serialised(record) for record in itertools.islice(records, length)]
        _write_shard(path, examples)
        size += sum(len(example) for example in examples)
    return {"name": split, "numBytes": f"{size}", "shardLengths": [f"{n}" for n in lengths]}


def _write_shard(path: Path, examples: list[bytes]) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def _serialised(record: Record) -> bytes:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    feature = {key: _tf_feature(value) for key, value in record.items()}
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializePartialToString(deterministic=True)  # or a map's order is not fixed


def _tf_feature(value: bytes | list[int] | list[float]) -> tf.train.Feature:
    import tensorflow as tf

    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    return tf.train.Feature(float_list=tf.train.FloatList(value=value))


def _dataset_info(splits: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "configDescription": "Synthetic scenes in this dataset's layout.",
        "configName": "multi_shapenet",
        "fileFormat": "tfrecord",
        "moduleName": "__main__",
        "name": "kubric_frames",
        "splits": splits,
        "version": "2.3.3",
    }


def _features(config: DatasetConfig) -> dict[str, Any]:
    """Returns features.json as TFDS 4.4 and older wrote it."""
    text = {"type": f"{MODULE}.text_feature.Text", "content": {}}
    camera = {
        "intrinsics": _group(
            image_width=_tensor("int32"),
            image_height=_tensor("int32"),
            K=_tensor("float32", 3, 3),
            type=text,
            distortion=_group(radial=_tensor("float32", 3), tangential=_tensor("float32", 2)),
        ),
        "extrinsics": _group(R=_tensor("float32", 3, 3), t=_tensor("float32", 3)),
        "color_image": _image("image_feature.Image", config.image_size, 3, use_colormap=False),
        "category_image": _image("labeled_image.LabeledImage", config.image_size, 1, labels=2),
    }
    return _group(
        scene_name=text,
        frame_name=text,
        pose=_group(R=_tensor("float32", 3, 3), t=_tensor("float32", 3)),
        cameras=_group(**{f"camera_{view}": _group(**camera) for view in range(config.views)}),
    )


def _group(**content: Any) -> dict[str, Any]:
    return {"type": f"{MODULE}.features_dict.FeaturesDict", "content": content}


def _tensor(dtype: str, *shape: int) -> dict[str, Any]:
    content = {"shape": list(shape), "dtype": dtype, "encoding": "none"}
    return {"type": f"{MODULE}.tensor_feature.Tensor", "content": content}


def _image(kind: str, size: tuple[int, int], channels: int, **more: Any) -> dict[str, Any]:
    content = {"shape": [*size, channels], "dtype": "uint8", "encoding_format": None, **more}
    return {"type": f"{MODULE}.{kind}", "content": content}
