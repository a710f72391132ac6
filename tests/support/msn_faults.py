"""What can be wrong with raw MultiShapeNet data, and which message it must give.

`FAULTS` has for each fault a function that changes the data in a folder, and a regular expression
for the message. Most faults are in the training shard 1: in its record 0, in camera 9.
"""

import io
import json
import shutil

import numpy as np
from PIL import Image
from support.small_msn import (
    LENGTHS,
    SIZE,
    change_records,
    png,
    read_records,
    set_feature,
    shard_path,
    write_info,
    write_records,
)

CAMERA = "cameras/camera_9"


def change_feature(key, value):
    """Return a fault in one feature of camera 9.

    Args:
        value: replaces the feature; None deletes it, and a function changes it.
    """

    def change(features):
        name = f"{CAMERA}/{key}"
        if value is None:
            del features[name]
        elif callable(value):
            value(features[name])
        else:
            set_feature(features[name], value)

    return lambda raw: change_records(raw, change)


def change_picture(change):
    """Return a fault: `change` is applied to the picture of camera 9."""

    def change_bytes(feature):
        image = Image.open(io.BytesIO(feature.bytes_list.value[0]))
        set_feature(feature, png(change(image)))

    return change_feature("color_image", change_bytes)


def truncate_picture(feature):
    content = feature.bytes_list.value[0]
    set_feature(feature, content[: len(content) // 2])


def multiply_rotation(matrix):
    """Return a fault: the rotation R of camera 9 is multiplied by `matrix` from the left."""

    def change(feature):
        set_feature(feature, matrix @ np.reshape(feature.float_list.value, (3, 3)))

    return change_feature("extrinsics/R", change)


def change_number(index, value):
    """Return a function that changes one number of a feature."""

    def change(feature):
        feature.float_list.value[index] = value

    return change


def swap_extrinsics(features):
    """Replace world-to-camera by camera-to-world: R becomes R', and t becomes -R' t."""
    for key in [key for key in features if key.endswith("extrinsics/R")]:
        rotation = np.reshape(features[key].float_list.value, (3, 3))
        translation = features[key[:-1] + "t"]
        set_feature(features[key], rotation.T)
        set_feature(translation, -rotation.T @ np.array(translation.float_list.value))


def add_camera(features):
    for key in [key for key in features if key.startswith(CAMERA)]:
        features[key.replace("camera_9", "camera_11")].CopyFrom(features[key])


def shard(raw):
    return shard_path(raw, "train", 1)


def second_record(raw):
    """Return the position of the second record in the shard's file."""
    # 12 bytes of length and its checksum are before a record, 4 bytes of checksum after it.
    return len(read_records(shard(raw))[0]) + 16


def flip_bit(raw, position):
    content = bytearray(shard(raw).read_bytes())
    content[position] ^= 4
    shard(raw).write_bytes(content)


def truncate_shard(raw, size):
    shard(raw).write_bytes(shard(raw).read_bytes()[:size])


def change_info(raw, change):
    path = raw / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info["splits"])
    path.write_text(json.dumps(info))


def two_folders(raw):
    """Make the raw folder one of two versions of the dataset, each in a folder of its own."""
    for version in ("2.3.3", "2.8.0"):
        (raw / version).mkdir()
        for path in raw.glob("*.*-*"):
            shutil.copy(path, raw / version)
        shutil.copy(raw / "dataset_info.json", raw / version)
    (raw / "dataset_info.json").unlink()


def remove_all(raw, split):
    for path in raw.glob(f"*-{split}.*"):
        path.unlink()


# The beginnings of messages: the file, the record, the camera.
FILE = r"kubric_frames-train\.tfrecord-00001-of-00002"
RECORD = FILE + ", record 0: "
LAST = FILE + ", record 1: "
VIEW = RECORD + CAMERA
PNG = RECORD[:-2] + f", {CAMERA}/color_image: "
INFO = r"dataset_info\.json: "
NOT_RIGID = VIEW + "/extrinsics is not a rotation and a translation.*fetch"
NOT_K = VIEW + r"/intrinsics/K is .*, not \[\[fx, 0, cx\].*fetch"
NO_INFO = INFO + "not TFDS' description of a dataset with the split train .*fetch"

FAULTS = {
    "image truncated": (
        change_feature("color_image", truncate_picture),
        PNG + "not readable as an image.*fetch",
    ),
    "image empty": (change_feature("color_image", b""), PNG + "not readable as an image"),
    "image grey": (
        change_picture(lambda image: image.convert("L")),
        PNG + "an image of mode L; RGB",
    ),
    "image too high": (
        change_picture(lambda image: image.resize((SIZE, SIZE + 1))),
        PNG + rf"9 x 8 pixels \(rows x columns\), image_size is {SIZE} x {SIZE}",
    ),
    "a missing view": (
        change_feature("color_image", None),
        RECORD + r"it has 2 cameras \[2, 10\], `views` is 3",
    ),
    "a view too many": (
        lambda raw: change_records(raw, add_camera),
        RECORD + r"it has 4 cameras \[2, 9, 10, 11\], `views` is 3",
    ),
    **{
        f"no {key}": (
            change_feature(key, None),
            f"{VIEW}/{key} is missing or not {count} values of a {kind}",
        )
        for key, count, kind in (
            ("extrinsics/R", 9, "float_list"),
            ("extrinsics/t", 3, "float_list"),
            ("intrinsics/K", 9, "float_list"),
            ("intrinsics/type", 1, "bytes_list"),
            ("intrinsics/image_width", 1, "int64_list"),
            ("intrinsics/distortion/radial", 3, "float_list"),
            ("intrinsics/distortion/tangential", 2, "float_list"),
        )
    },
    "a pose of eight numbers": (
        change_feature("extrinsics/R", np.arange(8.0)),
        VIEW + "/extrinsics/R is missing or not 9 values",
    ),
    "a focal length of text": (
        change_feature("intrinsics/K", b"140"),
        VIEW + "/intrinsics/K is missing or not 9 values of a float_list",
    ),
    "a nan in the rotation": (change_feature("extrinsics/R", change_number(4, np.nan)), NOT_RIGID),
    "an infinite position": (change_feature("extrinsics/t", change_number(0, np.inf)), NOT_RIGID),
    "a scaled pose": (multiply_rotation(1.1 * np.eye(3)), NOT_RIGID),
    "a mirrored pose": (multiply_rotation(np.diag([1.0, -1, 1])), NOT_RIGID),
    "extrinsics camera to world": (
        lambda raw: change_records(raw, swap_extrinsics),
        RECORD + "3 of 3 cameras do not see the world's origin.*extrinsics camera to world",
    ),
    "a nan in K": (change_feature("intrinsics/K", change_number(0, np.nan)), NOT_K),
    "an infinite centre": (change_feature("intrinsics/K", change_number(5, np.inf)), NOT_K),
    "skew": (change_feature("intrinsics/K", change_number(1, 0.5)), NOT_K),
    "a negative focal length": (change_feature("intrinsics/K", change_number(4, -10.0)), NOT_K),
    "a last row of K that is not 0 0 1": (
        change_feature("intrinsics/K", change_number(8, 2.0)),
        NOT_K,
    ),
    "a fisheye lens": (
        change_feature("intrinsics/type", b"FISHEYE"),
        VIEW + "/intrinsics/type is b'FISHEYE'; PERSPECTIVE is expected",
    ),
    "radial distortion": (
        change_feature("intrinsics/distortion/radial", change_number(1, 0.1)),
        VIEW + r"/intrinsics/distortion/radial is \[0\.0, 0\.1.*, not \[0\.0, 0\.0, 0\.0\]",
    ),
    "tangential distortion": (
        change_feature("intrinsics/distortion/tangential", change_number(0, np.nan)),
        VIEW + r"/intrinsics/distortion/tangential is \[nan",
    ),
    "intrinsics of another size": (
        change_feature("intrinsics/image_height", 16),
        VIEW + r"/intrinsics is of an image of 16 x 8 \(rows x columns\), image_size is 8 x 8",
    ),
    "a scene that is moved": (
        lambda raw: change_records(raw, lambda features: change_number(2, 0.5)(features["pose/t"])),
        RECORD + r"pose/t is \[0\.0, 0\.0, 0\.5\], not",
    ),
    "a record of another kind": (
        lambda raw: write_records(shard(raw), [b"\xff" * 40] * 2),
        RECORD + "no tf.train.Example",
    ),
    "a file that ends in a record": (
        lambda raw: truncate_shard(raw, -1),
        LAST + "the file ends in it; fetch it again",
    ),
    "a file that ends in a record's header": (
        lambda raw: truncate_shard(raw, second_record(raw) + 5),
        LAST + "the file ends in it; fetch it again",
    ),
    "an empty file": (lambda raw: truncate_shard(raw, 0), FILE + ": 0 records, .* has 2 .*fetch"),
    "a record too few": (
        lambda raw: truncate_shard(raw, second_record(raw)),
        FILE + r": 1 records, dataset_info\.json has 2 in its shardLengths; fetch",
    ),
    "a record too many": (
        lambda raw: write_records(shard(raw), read_records(shard(raw)) * 2),
        FILE + r": 4 records, dataset_info\.json has 2",
    ),
    "a flipped bit of the data": (
        lambda raw: flip_bit(raw, second_record(raw) + 100),
        LAST + "damaged, by its checksum; fetch",
    ),
    "a flipped bit of the data's checksum": (
        lambda raw: flip_bit(raw, second_record(raw) - 1),
        RECORD + "damaged, by its checksum",
    ),
    "a flipped bit of the length": (
        lambda raw: flip_bit(raw, second_record(raw) + 4),
        LAST + "its length is damaged, by its checksum; fetch",
    ),
    "a flipped bit of the length's checksum": (
        lambda raw: flip_bit(raw, 8),
        RECORD + "its length is damaged",
    ),
    "a missing shard": (
        lambda raw: shard(raw).unlink(),
        f"raw: {FILE} missing; fetch again, or .* subset: {{shards: present}}",
    ),
    "no shard": (
        lambda raw: remove_all(raw, "val"),
        r"raw: no file is \*-val\.tfrecord-\*-of-\*; fetch",
    ),
    "fewer shards than described": (
        lambda raw: write_info(raw, LENGTHS | {"train": [3, 2, 4]}),
        INFO + "shardLengths of train has 3 shards, the files are of 2.*fetch",
    ),
    "no description": (
        lambda raw: (raw / "dataset_info.json").unlink(),
        INFO + "there is no such file; fetch",
    ),
    "a description that is cut": (
        lambda raw: (raw / "dataset_info.json").write_text('{"splits": ['),
        NO_INFO,
    ),
    "a description of other splits": (
        lambda raw: change_info(raw, lambda splits: splits.pop(0)),
        NO_INFO,
    ),
    "a description without shardLengths": (
        lambda raw: change_info(raw, lambda splits: splits[0].pop("shardLengths")),
        NO_INFO,
    ),
    "an empty split": (
        lambda raw: change_info(raw, lambda splits: splits[1].update(shardLengths=["0"])),
        INFO + "val has 0 scenes .* the split is empty",
    ),
    "two versions in two folders": (
        two_folders,
        r"raw: several datasets side by side: .*2\.3\.3, .*2\.8\.0; set source to one",
    ),
    "two versions in one folder": (
        lambda raw: shutil.copy(shard(raw), shard_path(raw, "train", 1, 1024)),
        r"raw: kubric_frames-train\.tfrecord-\*-of-00002 and .*-of-01024 side by side; remove",
    ),
    "two datasets in one folder": (
        lambda raw: shutil.copy(shard(raw), shard_path(raw, "train", 1, name="multi_shapenet")),
        r"raw: kubric_frames-train.*-of-00002 and multi_shapenet-train.* side by side; remove",
    ),
}
