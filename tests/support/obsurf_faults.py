"""What can be wrong with raw data in ObSuRF's layout, and which message it must give.

`FAULTS` has for each fault a function that changes the data in a folder, and a regular expression
for the message.
"""

import numpy as np
from PIL import Image
from support.small_nmr import truncate
from support.small_obsurf import SIZE, change_metadata, image

ROWS, COLUMNS = SIZE


def metadata(raw):
    return raw / "metadata.npz"


def resave(raw, mode, size=(COLUMNS, ROWS)):
    Image.open(image(raw)).convert(mode).resize(size).save(image(raw))


def move_camera(*position):
    """Return a fault: the camera of view 1 of scene 7 is at this position."""

    def change(positions):
        positions[7, 1] = position
        return positions

    return lambda raw: change_metadata(raw, camera_pos=change)


# The beginnings of messages: the file, the camera, the image.
FILE = r"raw/metadata\.npz: "
CAMERA = r"raw/metadata\.npz, camera_pos of scene 7: "
PNG = r"raw/images/img_7_1\.png: "

FAULTS = {
    "no metadata": (
        lambda raw: metadata(raw).unlink(),
        FILE + "there is no such file; is .*raw the folder of an ObSuRF dataset",
    ),
    "metadata truncated": (
        lambda raw: truncate(metadata(raw), 0.5),
        FILE + "not readable as npz .*fetch",
    ),
    "metadata empty": (lambda raw: truncate(metadata(raw), 0), FILE + "not readable as npz"),
    "metadata no npz": (
        lambda raw: np.save(metadata(raw).open("wb"), np.eye(4)),
        FILE + "not readable as npz",
    ),
    "no shape": (
        lambda raw: change_metadata(raw, shape=None),
        FILE + "shape is missing, or no array of numbers; fetch",
    ),
    "no camera_pos": (
        lambda raw: change_metadata(raw, camera_pos=None),
        FILE + "camera_pos is missing, or no array of numbers",
    ),
    "shapes by name": (
        lambda raw: change_metadata(raw, shape=lambda shape: shape.astype(str)),
        FILE + "shape is missing, or no array of numbers",
    ),
    "positions in a plane": (
        lambda raw: change_metadata(raw, camera_pos=lambda positions: positions[..., :2]),
        FILE + r"shape is \(12, 6\), camera_pos \(12, 4, 2\); .*fetch",
    ),
    "one position for all views": (
        lambda raw: change_metadata(raw, camera_pos=lambda positions: positions[:, 0]),
        FILE + r"shape is \(12, 6\), camera_pos \(12, 3\); ",
    ),
    "numbers of objects instead of objects": (
        lambda raw: change_metadata(raw, shape=lambda shape: shape[:, 0]),
        FILE + r"shape is \(12,\), camera_pos \(12, 4, 3\); ",
    ),
    "positions of fewer scenes": (
        lambda raw: change_metadata(raw, camera_pos=lambda positions: positions[:-1]),
        FILE + r"shape is \(12, 6\), camera_pos \(11, 4, 3\); ",
    ),
    "too few scenes": (
        lambda raw: change_metadata(
            raw, shape=lambda shape: shape[:7], camera_pos=lambda positions: positions[:7]
        ),
        FILE + r"7 scenes, ranges\.val ends at 8; correct the range, or fetch",
    ),
    "too few views": (
        lambda raw: change_metadata(raw, camera_pos=lambda positions: positions[:, :2]),
        FILE + "camera_pos has 2 views, `views` is 3",
    ),
    "a split of scenes with too many objects": (
        lambda raw: change_metadata(raw, shape=np.ones_like),
        FILE + r"no scene of 0\.\.4 has at most 3 objects: train is empty; raise max_objects",
    ),
    "a nan position": (move_camera(1, np.nan, 2), CAMERA + r".*nan.* is not finite; fetch"),
    "an infinite position": (move_camera(1, 1, np.inf), CAMERA + ".*inf.* is not finite"),
    "a camera at the zenith": (
        move_camera(0, 0, 5),
        CAMERA + r"camera at \[0\.0, 0\.0, 5\.0\] is straight above .*move it off the vertical",
    ),
    "a camera at the origin": (move_camera(0, 0, 0), CAMERA + r"camera at \[0\.0, 0\.0, 0\.0\]"),
    "no image": (lambda raw: image(raw).unlink(), PNG + "there is no such file"),
    "image truncated": (
        lambda raw: truncate(image(raw), 0.5),
        PNG + "not readable as an image.*fetch",
    ),
    "image empty": (lambda raw: truncate(image(raw), 0), PNG + "not readable as an image"),
    "image grey": (lambda raw: resave(raw, "L"), PNG + "an image of mode L; RGB"),
    "image with a palette": (lambda raw: resave(raw, "P"), PNG + "an image of mode P; RGB"),
    "image upright": (
        lambda raw: resave(raw, "RGB", (ROWS, COLUMNS)),
        PNG + r"8 x 6 pixels \(rows x columns\), image_size is 6 x 8",
    ),
    "image too small": (lambda raw: resave(raw, "RGBA", (4, 3)), PNG + "3 x 4 pixels"),
}
