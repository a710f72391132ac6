"""What can be wrong with raw MultiShapeNet data, and how the refusal must name it."""

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


def put(key, value):
    """Returns a fault: a feature of camera 9 has another value, is deleted (None), or changed."""

    def change(features):
        name = f"{CAMERA}/{key}"
        if value is None:
            del features[name]
        elif callable(value):
            value(features[name])
        else:
            set_feature(features[name], value)

    return lambda raw: change_records(raw, change)


def picture(change):
    """Returns a fault: the picture of camera 9 is what a function makes of it."""

    def change_bytes(feature):
        image = Image.open(io.BytesIO(feature.bytes_list.value[0]))
        set_feature(feature, png(change(image)))

    return put("color_image", change_bytes)


def cut_picture(feature):
    content = feature.bytes_list.value[0]
    set_feature(feature, content[: len(content) // 2])


def scaled(matrix):
    """Returns a fault: R is `matrix` times R."""

    def change(feature):
        set_feature(feature, matrix @ np.reshape(feature.float_list.value, (3, 3)))

    return put("extrinsics/R", change)


def entry(index, value):
    """Returns a change of one number of a feature."""

    def change(feature):
        feature.float_list.value[index] = value

    return change


def swap_extrinsics(features):
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
    """Returns the place of the second record of the shard."""
    return len(read_records(shard(raw))[0]) + 16


def flip(raw, place):
    content = bytearray(shard(raw).read_bytes())
    content[place] ^= 4
    shard(raw).write_bytes(content)


def keep(raw, size):
    shard(raw).write_bytes(shard(raw).read_bytes()[:size])


def change_info(raw, change):
    path = raw / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info["splits"])
    path.write_text(json.dumps(info))


def two_folders(raw):
    for version in ("2.3.3", "2.8.0"):
        (raw / version).mkdir()
        for path in raw.glob("*.*-*"):
            shutil.copy(path, raw / version)
        shutil.copy(raw / "dataset_info.json", raw / version)
    (raw / "dataset_info.json").unlink()


def remove_all(raw, split):
    for path in raw.glob(f"*-{split}.*"):
        path.unlink()


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
    "image truncated": (put("color_image", cut_picture), PNG + "not readable as an image.*fetch"),
    "image empty": (put("color_image", b""), PNG + "not readable as an image"),
    "image grey": (picture(lambda image: image.convert("L")), PNG + "an image of mode L; RGB"),
    "image too high": (
        picture(lambda image: image.resize((SIZE, SIZE + 1))),
        PNG + rf"9 x 8 pixels \(rows x columns\), image_size is {SIZE} x {SIZE}",
    ),
    "a missing view": (
        put("color_image", None),
        RECORD + r"it has 2 cameras \[2, 10\], `views` is 3",
    ),
    "a view too many": (
        lambda raw: change_records(raw, add_camera),
        RECORD + r"it has 4 cameras \[2, 9, 10, 11\], `views` is 3",
    ),
    **{
        f"no {key}": (put(key, None), f"{VIEW}/{key} is missing or not {count} values of a {kind}")
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
        put("extrinsics/R", np.arange(8.0)),
        VIEW + "/extrinsics/R is missing or not 9 values",
    ),
    "a focal length of text": (
        put("intrinsics/K", b"140"),
        VIEW + "/intrinsics/K is missing or not 9 values of a float_list",
    ),
    "a nan in the rotation": (put("extrinsics/R", entry(4, np.nan)), NOT_RIGID),
    "an infinite position": (put("extrinsics/t", entry(0, np.inf)), NOT_RIGID),
    "a scaled pose": (scaled(1.1 * np.eye(3)), NOT_RIGID),
    "a mirrored pose": (scaled(np.diag([1.0, -1, 1])), NOT_RIGID),
    "extrinsics camera to world": (
        lambda raw: change_records(raw, swap_extrinsics),
        RECORD + "3 of 3 cameras do not see the world's origin.*extrinsics camera to world",
    ),
    "a nan in K": (put("intrinsics/K", entry(0, np.nan)), NOT_K),
    "an infinite centre": (put("intrinsics/K", entry(5, np.inf)), NOT_K),
    "skew": (put("intrinsics/K", entry(1, 0.5)), NOT_K),
    "a negative focal length": (put("intrinsics/K", entry(4, -10.0)), NOT_K),
    "a last row of K that is not 0 0 1": (put("intrinsics/K", entry(8, 2.0)), NOT_K),
    "a fisheye lens": (
        put("intrinsics/type", b"FISHEYE"),
        VIEW + "/intrinsics/type is b'FISHEYE'; PERSPECTIVE is expected",
    ),
    "radial distortion": (
        put("intrinsics/distortion/radial", entry(1, 0.1)),
        VIEW + r"/intrinsics/distortion/radial is \[0\.0, 0\.1.*, not \[0\.0, 0\.0, 0\.0\]",
    ),
    "tangential distortion": (
        put("intrinsics/distortion/tangential", entry(0, np.nan)),
        VIEW + r"/intrinsics/distortion/tangential is \[nan",
    ),
    "intrinsics of another size": (
        put("intrinsics/image_height", 16),
        VIEW + r"/intrinsics is of an image of 16 x 8 \(rows x columns\), image_size is 8 x 8",
    ),
    "a scene that is moved": (
        lambda raw: change_records(raw, lambda features: entry(2, 0.5)(features["pose/t"])),
        RECORD + r"pose/t is \[0\.0, 0\.0, 0\.5\], not",
    ),
    "a record of another kind": (
        lambda raw: write_records(shard(raw), [b"\xff" * 40] * 2),
        RECORD + "no tf.train.Example",
    ),
    "a file that ends in a record": (
        lambda raw: keep(raw, -1),
        LAST + "the file ends in it; fetch it again",
    ),
    "a file that ends in a record's header": (
        lambda raw: keep(raw, second_record(raw) + 5),
        LAST + "the file ends in it; fetch it again",
    ),
    "an empty file": (lambda raw: keep(raw, 0), FILE + ": 0 records, .* has 2 .*fetch"),
    "a record too few": (
        lambda raw: keep(raw, second_record(raw)),
        FILE + r": 1 records, dataset_info\.json has 2 in its shardLengths; fetch",
    ),
    "a record too many": (
        lambda raw: write_records(shard(raw), read_records(shard(raw)) * 2),
        FILE + r": 4 records, dataset_info\.json has 2",
    ),
    "a flipped bit of the data": (
        lambda raw: flip(raw, second_record(raw) + 100),
        LAST + "damaged, by its checksum; fetch",
    ),
    "a flipped bit of the data's checksum": (
        lambda raw: flip(raw, second_record(raw) - 1),
        RECORD + "damaged, by its checksum",
    ),
    "a flipped bit of the length": (
        lambda raw: flip(raw, second_record(raw) + 4),
        LAST + "its length is damaged, by its checksum; fetch",
    ),
    "a flipped bit of the length's checksum": (
        lambda raw: flip(raw, 8),
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
