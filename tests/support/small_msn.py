"""A small valid MultiShapeNet dataset on disk, and functions that change it. Needs TensorFlow."""

import dataclasses
import io
import json
import struct

import numpy as np
import torch
from PIL import Image
from support.small_nmr import REPOSITORY

from srt.config.load import load_dataset
from srt.config.schema import SPLITS
from srt.data.raw import msn
from srt.geometry.cameras import look_at, rigid_inverse

PUBLISHED = dataclasses.replace(
    load_dataset(REPOSITORY / "params.yaml", "msn", "paper"), ranges=None, storage="raw"
)
CAMERAS = (2, 9, 10)  # sorted as text, these numbers have another order
SIZE, FOCAL = 8, 10.0  # pixels
TINY = dataclasses.replace(PUBLISHED, views=3, input_views=1, image_size=(SIZE, SIZE))

# How many scenes each shard of a split has.
LENGTHS = {"train": [3, 2], "val": [2], "test": [1, 1]}


def write_raw(root):
    """Write a small valid dataset of random images, and return its folder."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, lengths in LENGTHS.items():
        for shard, length in enumerate(lengths):
            records = [serialised(random_features(rng)) for _ in range(length)]
            write_records(shard_path(root, split, shard), records)
    write_info(root, LENGTHS)
    return root


def write_info(root, lengths):
    splits = [{"name": split, "shardLengths": list(map(str, n))} for split, n in lengths.items()]
    info = {"name": "kubric_frames", "fileFormat": "tfrecord", "splits": splits}
    (root / "dataset_info.json").write_text(json.dumps(info))


def shard_path(root, split, shard, count=None, name="kubric_frames"):
    count = len(LENGTHS[split]) if count is None else count
    return root / f"{name}-{split}.tfrecord-{shard:05d}-of-{count:05d}"


def write_records(path, records):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def read_records(path):
    """Return the records of a file that is not damaged."""
    # A record has 8 bytes of length and 4 of checksum before it, and 4 bytes of checksum after it.
    content = path.read_bytes()
    position = 0
    records = []
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        records.append(content[position + 12 : position + 12 + length])
        position += length + 16
    return records


def random_features(rng):
    """Return the features of a scene by name, as Kubric writes them."""
    features = {"frame_name": b"scene_7", "pose/R": np.eye(3), "pose/t": np.zeros(3)}
    for camera in CAMERAS:
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        world_to_camera = rigid_inverse(random_pose(rng)).numpy()
        half = SIZE / 2
        values = {
            "color_image": png(Image.fromarray(pixels)),
            "category_image": b"not read",
            "extrinsics/R": world_to_camera[:3, :3],
            "extrinsics/t": world_to_camera[:3, 3],
            "intrinsics/K": np.array([[FOCAL, 0, half], [0, FOCAL, half], [0, 0, 1]]),
            "intrinsics/type": b"PERSPECTIVE",
            "intrinsics/image_width": SIZE,
            "intrinsics/image_height": SIZE,
            "intrinsics/distortion/radial": np.zeros(3),
            "intrinsics/distortion/tangential": np.zeros(2),
        }
        features |= {f"cameras/camera_{camera}/{key}": value for key, value in values.items()}
    return features


def random_pose(rng):
    """Return a random camera_to_world that sees the world's origin."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.0)
    level = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])
    position = rng.uniform(5, 9) * np.array([*level, np.sin(elevation)])
    return look_at(torch.from_numpy(position), torch.from_numpy(rng.uniform(-0.5, 0.5, 3)))


def png(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def serialised(features):
    """Return the bytes of a tf.train.Example."""
    import tensorflow as tf

    example = tf.train.Example()
    for key, value in features.items():
        set_feature(example.features.feature[key], value)
    return example.SerializeToString()


def set_feature(feature, value):
    if isinstance(value, bytes):
        feature.bytes_list.value[:] = [value]
    elif isinstance(value, int):
        feature.int64_list.value[:] = [value]
    else:
        feature.float_list.value[:] = np.ravel(value).tolist()


def change_records(root, change, split="train", shard=1):
    """Apply a function to the features of each record of a shard."""
    import tensorflow as tf

    path = shard_path(root, split, shard)
    records = []
    for record in read_records(path):
        example = tf.train.Example.FromString(record)
        change(example.features.feature)
        records.append(example.SerializeToString())
    write_records(path, records)


def read_all(root, config=TINY):
    """Return the scenes of all splits by name."""
    infos = [info for split in SPLITS for info in msn.list_scenes(root, split, config, None)]
    return {info.name: msn.read_scene(root, info, config) for info in infos}
