"""The reader of NMR's raw layout: Kato et al.'s renders of ShapeNet, hosted by Niemeyer et al.

    metadata.yaml                             class id -> {id, name}, in the order of the classes
    <class>/softras_{train,val,test}.lst      one scene a line
    <class>/<scene>/image/0000.png ..         square, white background
    <class>/<scene>/cameras.npz               world_mat_i, world_mat_inv_i, camera_mat_i, … (4x4)

`world_mat` maps the world, which is y-up, to OpenCV camera axes. `camera_mat` maps these to the
image, where both coordinates are in [-1, 1] and (-1, -1) is the top left corner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from srt.common.errors import DataError
from srt.common.shapes import Float
from srt.config.schema import DatasetConfig
from srt.data.raw.common import (
    TOLERANCE,
    RawScene,
    SceneInfo,
    chosen_classes,
    decode_image,
    is_rigid,
    read_file,
    read_npz,
    refuse_inverted_cameras,
)

# (x, y, z) -> (x, -z, y): the raw world is y-up, ours is z-up.
Z_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def list_scenes(
    root: Path, split: str, config: DatasetConfig, view_list: Path | None
) -> list[SceneInfo]:
    """Return the scenes of a split in the published order: by class, then as listed.

    Args:
        view_list: a file of the test scenes' source views, or None.

    Raises:
        DataError: a list is missing, no scene is listed, a scene is listed twice, or a test scene
            is not in the view list.
    """
    # Every class has its own list of each split.
    sources = read_view_list(view_list, config.views) if view_list is not None else {}
    classes = chosen_classes(read_classes(root), config, root / "metadata.yaml")
    lists = {class_id: _read_list(root, class_id, split) for class_id in classes}
    if config.subset and config.subset.max_scenes:
        lists = first_scenes(lists, config.subset.max_scenes)

    # A scene's name is its path below `root`. Only test scenes have a source view.
    scenes = []
    for class_id, names in lists.items():
        for name in (f"{class_id}/{scene}" for scene in names):
            source = _source_view(name, sources, view_list, config) if split == "test" else None
            scenes.append(SceneInfo(name, classes[class_id], source))
    if not scenes:
        raise DataError(f"{root}: the lists softras_{split}.lst name no scene: the split is empty")
    return scenes


def _source_view(
    name: str, sources: Mapping[str, int], view_list: Path | None, config: DatasetConfig
) -> int | None:
    """Return a test scene's source view, if any. Raise DataError if the view list lacks it."""
    source = config.view_list if isinstance(config.view_list, int) else sources.get(name)
    if view_list is not None and source is None:
        raise DataError(f"{view_list}: no source view for the test scene {name}; add a line")
    return source


def _read_list(root: Path, class_id: str, split: str) -> list[str]:
    """Return the names of the scenes of a class and a split, in the order of their list."""
    path = root / class_id / f"softras_{split}.lst"
    scenes: dict[str, None] = {}  # keeps the order, and finds duplicates fast
    for scene in read_file(path).decode().split():
        if scene in scenes:
            raise DataError(f"{path}: {scene} is listed twice; remove one of the lines")
        scenes[scene] = None
    return list(scenes)


def first_scenes(lists: Mapping[str, Sequence[str]], count: int) -> dict[str, list[str]]:
    """Return the first scenes of each class, `count` in all, as equally many of each as possible.

    Args:
        lists: class id -> names of scenes.
    """
    # Each class adds one scene in turn until there are enough.
    selected: dict[str, list[str]] = {class_id: [] for class_id in lists}
    for position in range(max(map(len, lists.values()), default=0)):
        for class_id, scenes in lists.items():
            if position < len(scenes) and count > 0:
                selected[class_id].append(scenes[position])
                count -= 1
    return selected


def read_classes(root: Path) -> dict[str, str]:
    """Return class id -> name, in the dataset's order."""
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
    """Return scene -> source view from a list in pixelNeRF's form: lines `class scene view`."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; it names the source view of each scene")

    # A scene may be listed several times, as long as its view is always the same.
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
    """Return the images and cameras of a scene. An error names the file at fault."""
    folder = root / scene.name

    # Every view has a file.
    paths = [folder / "image" / f"{view:04d}.png" for view in range(config.views)]
    images = np.stack([decode_image(read_file(p), str(p), config.image_size) for p in paths])

    # One file has the cameras of all views.
    cameras = folder / "cameras.npz"
    intrinsics, camera_to_world = _read_cameras(cameras, config)
    raw = RawScene(images, intrinsics, camera_to_world)
    refuse_inverted_cameras(raw, str(cameras), "are world_mat and world_mat_inv swapped?")
    return raw


def _read_cameras(
    path: Path, config: DatasetConfig
) -> tuple[Float[np.ndarray, "views 3 3"], Float[np.ndarray, "views 4 4"]]:
    """Return the intrinsics and camera_to_world of all views, in the z-up world."""
    # A pose must be a rotation and a translation, and the inverse of its counterpart.
    arrays = _read_matrices(path, config.views)
    intrinsics, poses = [], []
    for view in range(config.views):
        world, inverse = arrays[f"world_mat_{view}"], arrays[f"world_mat_inv_{view}"]
        if not is_rigid(inverse) or np.abs(world @ inverse - np.eye(4)).max() > TOLERANCE:
            raise DataError(
                f"{path}: world_mat_inv_{view} is not a rotation and a translation, or not the"
                f" inverse of world_mat_{view}; fetch it again"
            )
        poses.append(Z_UP @ inverse)
        intrinsics.append(_pixel_intrinsics(arrays[f"camera_mat_{view}"], path, view, config))
    return np.stack(intrinsics), np.stack(poses)


def _read_matrices(path: Path, views: int) -> dict[str, Float[np.ndarray, "4 4"]]:
    """Return the three matrices of each view, by their names in the file; others are not read."""
    names = ("world_mat", "world_mat_inv", "camera_mat")
    keys = [f"{name}_{view}" for view in range(views) for name in names]
    arrays = {key: array.astype(np.float64) for key, array in read_npz(path, keys).items()}
    for key, matrix in arrays.items():
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise DataError(f"{path}: {key} is not 4x4 or not finite; fetch it again")
    return arrays


def _pixel_intrinsics(
    camera: Float[np.ndarray, "4 4"], path: Path, view: int, config: DatasetConfig
) -> Float[np.ndarray, "3 3"]:
    """Return the 3 x 3 matrix K of a view, in pixels, for pixel centres at index + 0.5.

    The published loader has a "corner" grid: linspace(-1, 1, size) puts the outermost pixel centres
    at -1 and 1, where the images have their outermost pixel edges. This is the same as a focal
    length that is shorter by the factor (size - 1) / size. The "center" grid has them where the
    images do.
    """
    # The matrix must scale x and y and do nothing else.
    scales = np.diag([camera[0, 0], camera[1, 1], 1, 1])
    if np.abs(camera - scales).max() > TOLERANCE or min(camera[0, 0], camera[1, 1]) <= 0:
        raise DataError(f"{path}: camera_mat_{view} is not diag(fx, fy, 1, 1) with positive fx, fy")

    # From [-1, 1] to pixels.
    rows, columns = config.image_size
    edge = 0 if config.pixel_grid == "center" else 1
    return np.array(
        [
            [camera[0, 0] * (columns - edge) / 2, 0, columns / 2],
            [0, camera[1, 1] * (rows - edge) / 2, rows / 2],
            [0, 0, 1],
        ]
    )
