"""The types that every reader of raw data returns, and the checks that the readers share.

A reader is a module with two functions: `list_scenes(root, split, config, view_list)` and
`read_scene(root, scene, config)`. Both raise DataError for data that is not as its layout says.
srt/data/raw/layouts.py is the register of all readers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srt.common.errors import DataError
from srt.common.shapes import Float, UInt8
from srt.config.schema import DatasetConfig

# The published matrices come from float32 arithmetic.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class SceneInfo:
    """The name and class of a scene, and its source view if it has one."""

    name: str
    class_name: str
    source_view: int | None  # the input view of protocol pixelnerf


@dataclass(frozen=True)
class RawScene:
    """The images and cameras of a scene: float64, in the conventions of srt/geometry/cameras.py."""

    images: UInt8[np.ndarray, "views h w 3"]
    intrinsics: Float[np.ndarray, "views 3 3"]
    camera_to_world: Float[np.ndarray, "views 4 4"]


def chosen_classes(
    classes: Mapping[str, str], config: DatasetConfig, source: Path
) -> dict[str, str]:
    """Return the classes that subset.classes selects by id or name, in the dataset's order.

    Args:
        classes: id -> name; a name can be several words for the same thing: `sofa,couch`.
        source: the file that the classes are from, for errors.

    Raises:
        DataError: subset.classes has a word that is no class.
    """
    selection = config.subset.classes if config.subset else None
    if selection is None:
        return dict(classes)

    # A class is called by its id, its whole name or one of the words of its name.
    words = {class_id: {class_id, name, *name.split(",")} for class_id, name in classes.items()}
    for word in selection:
        if not any(word in class_words for class_words in words.values()):
            raise _unknown_class_error(word, classes, source)
    return {id_: name for id_, name in classes.items() if not words[id_].isdisjoint(selection)}


def _unknown_class_error(word: str, classes: Mapping[str, str], source: Path) -> DataError:
    """Return the error for a word of subset.classes that is no class; it names all classes."""
    choices = ", ".join(f"{class_id} ({name})" for class_id, name in classes.items())
    return DataError(f"{source}: subset.classes: no class is called {word!r}; there are {choices}")


def read_file(path: Path) -> bytes:
    """Return a file's content. Raise DataError if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; the data is incomplete") from None


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return the arrays of these names from an npz file. Nothing else of the file is read.

    Raises:
        DataError: the file is missing or damaged, or an array is missing or not of numbers.
    """
    # np.load finds an array without reading the others.
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in keys if key in file}
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; the data is incomplete") from None
    except Exception as error:  # damaged bytes raise exceptions that NumPy does not document
        raise DataError(f"{path}: not readable as npz ({error}); fetch it again") from error

    # An array that is there must be of booleans, integers or floats.
    for key in keys:
        if key not in arrays or arrays[key].dtype.kind not in "biuf":
            raise DataError(f"{path}: {key} is missing, or no array of numbers; fetch it again")
    return arrays


def decode_image(content: bytes, context: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an image file, without its alpha channel. Raise DataError if it is bad.

    Args:
        context: where the image is, for errors; for example its path.
        size: the rows and columns that the dataset's images have.
    """
    # Only colours of the right size can be used.
    mode, values = _read_image(content, context)
    if mode not in ("RGB", "RGBA"):
        raise DataError(f"{context}: an image of mode {mode}; RGB (or RGBA) is expected")
    if values.shape[:2] != tuple(size):
        raise DataError(
            f"{context}: {values.shape[0]} x {values.shape[1]} pixels (rows x columns),"
            f" image_size is {size[0]} x {size[1]}"
        )
    return values[..., :3]


def _read_image(content: bytes, context: str) -> tuple[str, np.ndarray]:
    """Return Pillow's name of an image's form, such as RGB, and its values."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.mode, np.asarray(image)
    except Exception as error:  # damaged bytes raise exceptions that Pillow does not document
        # Pillow's message ends with the address of the object that it read: leave it out.
        reason = str(error).partition(" <_io")[0]
        raise DataError(
            f"{context}: not readable as an image ({reason}); fetch it again"
        ) from error


def is_rigid(pose: Float[np.ndarray, "4 4"]) -> bool:
    """Say whether a matrix is a rotation and a translation."""
    if not np.isfinite(pose).all():
        return False
    # A rotation is an orthogonal matrix that does not mirror.
    rotation = pose[:3, :3]
    orthogonal = np.abs(rotation @ rotation.T - np.eye(3)).max() < TOLERANCE
    affine = np.abs(pose[3] - [0, 0, 0, 1]).max() < TOLERANCE
    return bool(orthogonal and affine and np.linalg.det(rotation) > 0)


def refuse_inverted_cameras(scene: RawScene, context: str, remedy: str) -> None:
    """Raise DataError if most cameras of a scene do not see the world's origin.

    All published scenes are at the origin. A camera looks elsewhere if its matrix is the inverse of
    what it should be.

    Args:
        context: where the cameras are from, for the error.
        remedy: the end of the error: the mistake that is likely in this layout.
    """
    # Project the origin into each camera's image. Behind a camera, the pixel is meaningless.
    origin = np.linalg.inv(scene.camera_to_world)[:, :3, 3]  # (views, 3), in camera coordinates
    pixel = np.einsum("vij,vj->vi", scene.intrinsics, origin)  # (views, 3), homogeneous
    height, width = scene.images.shape[1:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = pixel[:, 0] / pixel[:, 2], pixel[:, 1] / pixel[:, 2]

    # The origin is visible if it is in front of the camera and within the image.
    visible = (origin[:, 2] > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)  # (views,)
    if visible.sum() * 2 < len(visible):
        raise DataError(
            f"{context}: {len(visible) - visible.sum()} of {len(visible)} cameras do not see the"
            f" world's origin, where the scene stands; {remedy}"
        )
