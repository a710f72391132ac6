"""NMR's raw layout: Kato et al.'s renders of ShapeNet, hosted by Niemeyer et al.

    metadata.yaml                             class id -> {id, name}; its order is the classes'
    <class>/softras_{train,val,test}.lst      one scene a line
    <class>/<scene>/image/0000.png ..         square, white background
    <class>/<scene>/cameras.npz               world_mat_i, world_mat_inv_i, camera_mat_i, … (4x4)

`world_mat` maps the y-up world to OpenCV camera axes; `camera_mat` maps to [-1, 1], (-1, -1) being
the top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from srt.config import DatasetConfig
from srt.data.scenes import DataError, SceneInfo
from srt.shapes import Float, UInt8

# (x, y, z) -> (x, -z, y): the raw world is y-up, ours is z-up.
Z_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
TOLERANCE = 1e-4  # the published matrices are float64 from float32 arithmetic


@dataclass(frozen=True)
class RawScene:
    """A scene as every reader returns it."""

    images: UInt8[np.ndarray, "views h w 3"]
    intrinsics: Float[np.ndarray, "views 3 3"]
    camera_to_world: Float[np.ndarray, "views 4 4"]


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Returns the scenes of a split in the published order: by class, then as listed.

    Raises DataError for missing lists, an empty split, a scene listed twice and, where there is a
    view list, a test scene without a source view.
    """
    sources = read_view_list(view_list, config.views) if view_list is not None else {}
    scenes: dict[str, SceneInfo] = {}
    for class_id, class_name in read_classes(root).items():
        path = root / class_id / f"softras_{split}.lst"
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; the copy of the data is incomplete")
        for scene in path.read_text().split():
            name = f"{class_id}/{scene}"
            if name in scenes:
                raise DataError(f"{path}: {scene} is listed twice; remove one of the lines")
            source = config.view_list if isinstance(config.view_list, int) else sources.get(name)
            if view_list is not None and split == "test" and source is None:
                raise DataError(f"{view_list}: no source view for the test scene {name}")
            scenes[name] = SceneInfo(name, class_name, source if split == "test" else None)
    if not scenes:
        raise DataError(f"{root}: the lists softras_{split}.lst name no scene: the split is empty")
    return list(scenes.values())


def read_classes(root: Path) -> dict[str, str]:
    """Returns class id -> name, in the dataset's order."""
    path = root / "metadata.yaml"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; is {root} the folder of an NMR dataset?")
    try:
        # All scalars as text: without quotes, 04256520 would be read as an octal number.
        entries = yaml.load(path.read_text(), yaml.BaseLoader)
        return {entry["id"]: entry["name"] for entry in entries.values()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not of the form class id -> {{id, name}}") from error


def read_view_list(path: Path, views: int) -> dict[str, int]:
    """Returns scene -> source view of a list in pixelNeRF's form: lines `class scene view`."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; it names the source view of each scene")
    sources: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not words[2].isdecimal() or int(words[2]) >= views:
            raise DataError(
                f"{path}, line {number}: {line!r} is not `class scene view`, view below {views}"
            )
        name, view = f"{words[0]}/{words[1]}", int(words[2])
        if sources.setdefault(name, view) != view:
            raise DataError(f"{path}, line {number}: {name} has view {sources[name]} further up")
    return sources


def read_scene(root: Path, scene: SceneInfo, config: DatasetConfig) -> RawScene:
    """Returns the images and cameras of a scene; raises DataError that names the file at fault."""
    folder = root / scene.name
    paths = [folder / "image" / f"{view:04d}.png" for view in range(config.views)]
    images = np.stack([_read_image(path, config.image_size) for path in paths])
    intrinsics, camera_to_world = _read_cameras(folder / "cameras.npz", config)
    return RawScene(images, intrinsics, camera_to_world)


def _read_image(path: Path, size: int) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; the scene is incomplete") from None
    except Exception as error:  # damaged bytes raise more kinds than Pillow documents
        raise DataError(f"{path}: not readable as an image ({error}); fetch it again") from error
    if mode not in ("RGB", "RGBA"):
        raise DataError(f"{path}: an image of mode {mode}; RGB (or RGBA) is expected")
    if values.shape[:2] != (size, size):
        raise DataError(
            f"{path}: {values.shape[1]} x {values.shape[0]} pixels, image_size is {size}"
        )
    return values[..., :3]


def _read_cameras(
    path: Path, config: DatasetConfig
) -> tuple[Float[np.ndarray, "views 3 3"], Float[np.ndarray, "views 4 4"]]:
    try:
        with np.load(path) as file:
            arrays = {key: np.asarray(file[key], dtype=np.float64) for key in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; the scene is incomplete") from None
    except Exception as error:  # damaged bytes raise more kinds than NumPy documents
        raise DataError(f"{path}: not readable as npz ({error}); fetch it again") from error
    intrinsics, poses = [], []
    for view in range(config.views):
        for key in ("world_mat", "world_mat_inv", "camera_mat"):
            matrix = arrays.get(f"{key}_{view}")
            if matrix is None or matrix.shape != (4, 4) or not np.isfinite(matrix).all():
                raise DataError(f"{path}: {key}_{view} is missing, not 4x4 or not finite")
        world, inverse = arrays[f"world_mat_{view}"], arrays[f"world_mat_inv_{view}"]
        if not _is_rigid(inverse) or np.abs(world @ inverse - np.eye(4)).max() > TOLERANCE:
            raise DataError(
                f"{path}: world_mat_inv_{view} is not a rotation and a translation, or not the"
                f" inverse of world_mat_{view}"
            )
        poses.append(Z_UP @ inverse)
        intrinsics.append(_pixel_intrinsics(arrays[f"camera_mat_{view}"], path, view, config))
    return np.stack(intrinsics), np.stack(poses)


def _is_rigid(pose: Float[np.ndarray, "4 4"]) -> bool:
    rotation = pose[:3, :3]
    orthogonal = np.abs(rotation @ rotation.T - np.eye(3)).max() < TOLERANCE
    affine = np.abs(pose[3] - [0, 0, 0, 1]).max() < TOLERANCE
    return bool(orthogonal and affine and np.linalg.det(rotation) > 0)


def _pixel_intrinsics(
    camera: Float[np.ndarray, "4 4"], path: Path, view: int, config: DatasetConfig
) -> Float[np.ndarray, "3 3"]:
    """Returns K for pixel centres at index + 0.5.

    The corner grid, linspace(-1, 1, size), has its outermost pixel centres at -1 and 1 where the
    images have their outermost pixel edges: the same as a focal length (size - 1) / size as long.
    """
    plain = np.diag([camera[0, 0], camera[1, 1], 1, 1])
    if np.abs(camera - plain).max() > TOLERANCE or min(camera[0, 0], camera[1, 1]) <= 0:
        raise DataError(f"{path}: camera_mat_{view} is not diag(fx, fy, 1, 1) with positive fx, fy")
    size = config.image_size
    half = (size if config.pixel_grid == "center" else size - 1) / 2
    return np.array(
        [[camera[0, 0] * half, 0, size / 2], [0, camera[1, 1] * half, size / 2], [0, 0, 1]]
    )
