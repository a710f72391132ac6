"""What every raw reader returns, and the checks that all of them make.

A reader is a module with `list_scenes(root, split, config, view_list)` and `read_scene(root, scene,
config)`; both raise DataError for data that is not as its layout says.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srt.common.errors import DataError
from srt.common.shapes import Float, UInt8

TOLERANCE = 1e-4  # the published matrices come from float32 arithmetic


@dataclass(frozen=True)
class SceneInfo:
    """What is known of a scene beside its images and cameras."""

    name: str
    class_name: str
    source_view: int | None  # the input view of protocol pixelnerf


@dataclass(frozen=True)
class RawScene:
    """A scene as every reader returns it: srt/geometry/cameras.py's conventions, float64."""

    images: UInt8[np.ndarray, "views h w 3"]
    intrinsics: Float[np.ndarray, "views 3 3"]
    camera_to_world: Float[np.ndarray, "views 4 4"]


def read_file(path: Path) -> bytes:
    """Returns a file's content; raises DataError where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; the data is incomplete") from None


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Returns these arrays of an npz file; what else it holds is not read.

    Raises DataError where one is missing or not numbers.
    """
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in keys if key in file}
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; the data is incomplete") from None
    except Exception as error:  # damaged bytes raise more kinds than NumPy documents
        raise DataError(f"{path}: not readable as npz ({error}); fetch it again") from error
    for key in keys:
        if key not in arrays or arrays[key].dtype.kind not in "biuf":
            raise DataError(f"{path}: {key} is missing, or no array of numbers; fetch it again")
    return arrays


def decode_image(content: bytes, place: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns an image file's pixels without its alpha channel, if there is one.

    Args:
        place: what an error names, e.g. the path.
        size: the rows and columns that the dataset's images have.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, values = image.mode, np.asarray(image)
    except Exception as error:  # damaged bytes raise more kinds than Pillow documents
        reason = str(error).partition(" <_io")[0]
        raise DataError(f"{place}: not readable as an image ({reason}); fetch it again") from error
    if mode not in ("RGB", "RGBA"):
        raise DataError(f"{place}: an image of mode {mode}; RGB (or RGBA) is expected")
    if values.shape[:2] != tuple(size):
        raise DataError(
            f"{place}: {values.shape[0]} x {values.shape[1]} pixels (rows x columns),"
            f" image_size is {size[0]} x {size[1]}"
        )
    return values[..., :3]


def is_rigid(pose: Float[np.ndarray, "4 4"]) -> bool:
    """Says whether a matrix is a rotation and a translation."""
    if not np.isfinite(pose).all():
        return False
    rotation = pose[:3, :3]
    orthogonal = np.abs(rotation @ rotation.T - np.eye(3)).max() < TOLERANCE
    affine = np.abs(pose[3] - [0, 0, 0, 1]).max() < TOLERANCE
    return bool(orthogonal and affine and np.linalg.det(rotation) > 0)


def refuse_swapped(scene: RawScene, place: str, remedy: str) -> None:
    """Raises DataError where most cameras do not see the world's origin.

    All published scenes stand there; cameras whose matrix was taken for its inverse look elsewhere.
    """
    origin = np.linalg.inv(scene.camera_to_world)[:, :3, 3]  # in camera coordinates
    pixel = np.einsum("vij,vj->vi", scene.intrinsics, origin)
    height, width = scene.images.shape[1:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = pixel[:, 0] / pixel[:, 2], pixel[:, 1] / pixel[:, 2]
    seen = (origin[:, 2] > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    if seen.sum() * 2 < len(seen):
        raise DataError(
            f"{place}: {len(seen) - seen.sum()} of {len(seen)} cameras do not see the world's"
            f" origin, where the scene stands; {remedy}"
        )
