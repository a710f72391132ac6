"""Synthetic scenes in the raw layout of MultiShapeNet 2.3.3: TFRecord files of TFDS.

    features.json                                the features of a record, for TFDS' own reader
    dataset_info.json                            the number of records in each shard
    kubric_frames-<split>.tfrecord-00000-of-N    the records

A record is a scene with the images and cameras of all its views (srt/data/raw/msn.py). TensorFlow
is imported only in the functions that need it, because it takes seconds to start.
"""

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
from torch import Tensor

from srt.common.devices import run_in_workers
from srt.common.shapes import Float
from srt.config.schema import SPLITS, DatasetConfig
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    encode_png,
    look_at_origin,
    random_ground_scene,
    render_views,
    scene_style,
)
from srt.geometry.cameras import resize_intrinsics, rigid_inverse

if TYPE_CHECKING:
    import tensorflow as tf

# The shards of each split. A split with fewer scenes has as many shards as scenes.
SHARDS = {"train": 4, "val": 2, "test": 2}

# The cameras: K for images of 128 x 128 pixels, distances from the origin, elevations in degrees.
INTRINSICS = torch.tensor([[140, 0, 64], [0, 140, 64], [0, 0, 1]]).double()
DISTANCES, ELEVATIONS = (8.0, 12.0), (15.0, 70.0)

# The module of TFDS' classes, which features.json names.
MODULE = "tensorflow_datasets.core.features"

# A record: the name of each feature and its values.
Record = dict[str, bytes | list[int] | list[float]]


def write_msn(root: Path, *, config: DatasetConfig, name: str, seed: int, workers: int) -> None:
    """Write the scenes. A record's content depends neither on `workers` nor on the other scenes.

    Args:
        name: of the dataset. Two datasets have no scenes in common.
    """
    # All scenes in the order of the splits.
    root.mkdir(parents=True, exist_ok=True)
    counts = {split: getattr(config.synthetic, split) for split in SPLITS}
    keys = [
        SceneKey(seed=seed, dataset=name, split=split, index=index)
        for split in SPLITS
        for index in range(counts[split])
    ]

    # The workers render them. Each split takes its records from the same stream.
    records = run_in_workers(functools.partial(_make_record, config), keys, workers)
    splits = [_write_split(root, split, counts[split], records) for split in SPLITS]
    (root / "features.json").write_text(json.dumps(_features(config), indent=4))
    (root / "dataset_info.json").write_text(json.dumps(_dataset_info(splits), indent=2))


def _make_record(config: DatasetConfig, key: SceneKey) -> Record:
    """Render a scene and return its record."""
    # One generator draws first the scene, then the cameras.
    rng, size = key.generator(), config.image_size
    scene = random_ground_scene(scene_style(config), rng)
    positions = camera_positions(rng, config.views, DISTANCES, ELEVATIONS)
    intrinsics = resize_intrinsics(INTRINSICS, (128, 128), size)
    world_to_camera = rigid_inverse(look_at_origin(positions))

    # The scene itself: it is not moved, and its name is its number.
    scene_name = f"scene_{key.index}".encode()
    record: Record = {
        "scene_name": scene_name,
        "frame_name": scene_name,
        "pose/R": np.eye(3).flatten().tolist(),
        "pose/t": [0.0, 0.0, 0.0],
    }

    # For each view, the image and its camera. Object categories are not used: that image is black.
    no_category = encode_png(np.zeros(size, np.uint8))
    for view, image in enumerate(render_views(scene, positions, intrinsics, size)):
        camera = _camera_features(intrinsics, world_to_camera[view], size)
        camera |= {"color_image": encode_png(image), "category_image": no_category}
        record |= {f"cameras/camera_{view}/{name}": value for name, value in camera.items()}
    return record


def _camera_features(
    intrinsics: Float[Tensor, "3 3"],
    world_to_camera: Float[Tensor, "4 4"],
    image_size: tuple[int, int],
) -> Record:
    """Return the features of one camera, by their names below that of the camera."""
    return {
        "extrinsics/R": world_to_camera[:3, :3].flatten().tolist(),
        "extrinsics/t": world_to_camera[:3, 3].tolist(),
        "intrinsics/K": intrinsics.flatten().tolist(),
        "intrinsics/image_height": [image_size[0]],
        "intrinsics/image_width": [image_size[1]],
        "intrinsics/type": b"PERSPECTIVE",
        "intrinsics/distortion/radial": [0.0, 0.0, 0.0],
        "intrinsics/distortion/tangential": [0.0, 0.0],
    }


def _write_split(root: Path, split: str, count: int, records: Iterator[Record]) -> dict[str, Any]:
    """Write the next `count` records into shards; return the split's entry in dataset_info.json."""
    # The shards have as nearly equal lengths as possible.
    shards = min(count, SHARDS[split])
    bounds = [count * shard // shards for shard in range(shards + 1)]
    lengths = [end - start for start, end in itertools.pairwise(bounds)]

    # Get the records of a shard before TensorFlow is imported: it starts while the workers render.
    size = 0
    for shard, length in enumerate(lengths):
        path = root / f"kubric_frames-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
        examples = [_serialize(record) for record in itertools.islice(records, length)]
        _write_shard(path, examples)
        size += sum(len(example) for example in examples)
    return {"name": split, "numBytes": f"{size}", "shardLengths": [f"{n}" for n in lengths]}


def _write_shard(path: Path, examples: list[bytes]) -> None:
    """Write a TFRecord file."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def _serialize(record: Record) -> bytes:
    """Return a record as a serialized tf.train.Example."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    # Without `deterministic`, the features of equal records could be in different orders.
    feature = {name: _to_feature(value) for name, value in record.items()}
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializePartialToString(deterministic=True)


def _to_feature(value: bytes | list[int] | list[float]) -> tf.train.Feature:
    """Return a feature of the type that the value has."""
    import tensorflow as tf

    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    return tf.train.Feature(float_list=tf.train.FloatList(value=value))


def _dataset_info(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of dataset_info.json."""
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
    """Return the content of features.json, in the form of TFDS 4.4 and older."""
    # The features of one view.
    text = {"type": f"{MODULE}.text_feature.Text", "content": {}}
    camera = {
        "intrinsics": _intrinsics_group(text),
        "extrinsics": _group(R=_tensor("float32", 3, 3), t=_tensor("float32", 3)),
        "color_image": _image("image_feature.Image", config.image_size, 3, use_colormap=False),
        "category_image": _image("labeled_image.LabeledImage", config.image_size, 1, labels=2),
    }

    # A record has them once for each view.
    return _group(
        scene_name=text,
        frame_name=text,
        pose=_group(R=_tensor("float32", 3, 3), t=_tensor("float32", 3)),
        cameras=_group(**{f"camera_{view}": _group(**camera) for view in range(config.views)}),
    )


def _intrinsics_group(text: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a camera's intrinsics; `text` is that of a text."""
    return _group(
        image_width=_tensor("int32"),
        image_height=_tensor("int32"),
        K=_tensor("float32", 3, 3),
        type=text,
        distortion=_group(radial=_tensor("float32", 3), tangential=_tensor("float32", 2)),
    )


def _group(**content: Any) -> dict[str, Any]:
    """Return the description of a group of features."""
    return {"type": f"{MODULE}.features_dict.FeaturesDict", "content": content}


def _tensor(dtype: str, *shape: int) -> dict[str, Any]:
    """Return the description of a tensor."""
    content = {"shape": list(shape), "dtype": dtype, "encoding": "none"}
    return {"type": f"{MODULE}.tensor_feature.Tensor", "content": content}


def _image(type_name: str, size: tuple[int, int], channels: int, **options: Any) -> dict[str, Any]:
    """Return the description of an image. `options` are those of its type alone."""
    content = {"shape": [*size, channels], "dtype": "uint8", "encoding_format": None, **options}
    return {"type": f"{MODULE}.{type_name}", "content": content}
