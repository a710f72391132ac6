"""Scenes of several objects on a ground, and the files of layouts obsurf and msn that show them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import PARAMS

from srt.common import devices
from srt.common.errors import UserError
from srt.config.load import load_dataset
from srt.config.schema import SPLITS, SplitRanges, SyntheticConfig
from srt.data.synthetic.arrangement import RADIUS
from srt.data.synthetic.as_msn import write_msn
from srt.data.synthetic.as_obsurf import write_obsurf
from srt.data.synthetic.scenes import (
    OBJECT_TYPES,
    SceneKey,
    camera_positions,
    look_at_origin,
    random_ground_scene,
    render_views,
)
from srt.data.synthetic.solids import Solid, bounding_box
from srt.geometry.cameras import pinhole

# Small datasets in both layouts.
SEED = 3
COUNTS = {"train": 3, "val": 2, "test": 1}
OBSURF = dataclasses.replace(
    load_dataset(PARAMS, "clevr3d", "quick"),
    image_size=(24, 32),
    views=3,
    ranges=SplitRanges(train=(0, 4), val=(4, 7), test=(9, 10)),
    synthetic=SyntheticConfig(scene="solids", **COUNTS),
)
MSN = dataclasses.replace(
    load_dataset(PARAMS, "msn", "quick"),
    image_size=(8, 8),
    views=4,
    input_views=2,
    synthetic=SyntheticConfig(scene="solids", train=80, val=2, test=1),
)


def scene_key(dataset: str, index: int, **changes) -> SceneKey:
    """Return the key of a training scene, with other values where they are passed."""
    values = {"seed": SEED, "dataset": dataset, "split": "train", "index": index}
    return SceneKey(**{**values, **changes})


def surface_points(solid: Solid) -> np.ndarray:
    """Return points (n, 3) in the world on the solid's surface, one of them nearly the lowest."""
    # The corners of a box, circles of a sphere, or the edges of a frustum's two end discs.
    angle = np.linspace(0, 2 * np.pi, 37)[:-1]
    x, y = np.cos(angle), np.sin(angle)
    if solid.shape == "box":
        local = np.array(list(itertools.product((-1, 1), repeat=3)), float)
    elif solid.shape == "sphere":
        heights = np.linspace(-1, 1, 17)[:, None]
        radius = np.sqrt(1 - heights**2)
        local = np.stack(np.broadcast_arrays(radius * x, radius * y, heights), axis=-1)
    else:
        discs = ((1, -1), (solid.taper, 1))  # radius and height
        ends = [np.stack((radius * x, radius * y, z + 0 * x), 1) for radius, z in discs]
        local = np.concatenate(ends)
    return local.reshape(-1, 3) @ solid.to_world[:3, :3].T + solid.to_world[:3, 3]


@pytest.mark.parametrize("style", OBJECT_TYPES)
def test_objects_stand_on_the_ground_apart_from_each_other(style):
    for index in range(8):
        scene = random_ground_scene(style, scene_key(style, index).generator())
        assert bounding_box(scene.ground)[1][2] == 0

        # Each object stands on the ground and within the radius.
        clouds = [
            np.concatenate([surface_points(solid) for solid in solids]) for solids in scene.objects
        ]
        for cloud in clouds:
            assert cloud[:, 2].min() == pytest.approx(0, abs=1e-3)
            assert np.linalg.norm(cloud[:, :2], axis=1).max() <= RADIUS

        # No object is near another one, or inside it.
        for first, second in itertools.combinations(clouds, 2):
            gaps = np.linalg.norm(first[:, None, :2] - second[:, :2], axis=2)
            assert gaps.min() > 0.05
            assert np.abs(first[:, :2].mean(0) - second[:, :2].mean(0)).max() > 0.3


def test_some_scenes_have_more_objects_than_the_published_limit_of_six():
    keys = [scene_key("solids", index) for index in range(200)]
    counts = [len(random_ground_scene("solids", key.generator()).objects) for key in keys]
    assert 0.05 < np.mean(np.array(counts) > 6) < 0.2
    assert {1, 2, 3, 7} == set(counts)


def test_a_scene_depends_on_its_seed_dataset_split_and_index():
    keys = [
        scene_key("a", 0),
        scene_key("b", 0),
        scene_key("a", 1),
        scene_key("a", 0, seed=4),
        scene_key("a", 0, split="val"),
    ]
    scenes = [random_ground_scene("objects", key.generator()) for key in keys]
    matrices = [scene.objects[0][0].to_world.tobytes() for scene in scenes]
    assert len(set(matrices)) == len(matrices)

    # The same key makes the same scene.
    again = random_ground_scene("objects", keys[0].generator())
    assert again.objects[0][0].to_world.tobytes() == matrices[0]


def test_cameras_look_at_the_origin_from_the_requested_distances_and_elevations():
    positions = camera_positions(np.random.default_rng(0), 300, (8.0, 12.0), (15.0, 70.0))
    distance = np.linalg.norm(positions, axis=1)
    elevation = np.degrees(np.arcsin(positions[:, 2] / distance))
    for values, low, high in ((distance, 8, 12), (elevation, 15, 70)):
        assert low - 1e-4 <= values.min() < low + 1
        assert high - 1 < values.max() <= high + 1e-4

    # In camera coordinates, the origin is straight ahead.
    origin = torch.linalg.inv(look_at_origin(positions))[:, :3, 3]
    torch.testing.assert_close(origin[:, :2], torch.zeros(300, 2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(origin[:, 2], torch.from_numpy(distance).double())


@pytest.mark.parametrize("style", OBJECT_TYPES)
def test_every_view_shows_objects_before_the_ground(style):
    rng = scene_key(style, 0).generator()
    scene = random_ground_scene(style, rng)
    positions = camera_positions(rng, 4, (9.0, 11.0), (25.0, 60.0))
    size = (48, 64)
    intrinsics = pinhole(0.035, 0.032, *size)

    # Render the scene with and without its objects.
    images = render_views(scene, positions, intrinsics, size).astype(int)
    empty = render_views(dataclasses.replace(scene, objects=()), positions, intrinsics, size)
    changed = np.abs(images - empty).max(-1) > 20
    assert changed.mean((1, 2)).min() > 0.03
    assert changed.mean() < 0.6
    assert images.mean() > 60

    # The ground fills these views, so that no pixel is white.
    assert not (empty == 255).all(-1).any()


def test_a_point_is_visible_where_each_camera_projects_it():
    # A small ball marks the point. In ambient light alone it has no shadow.
    scene = random_ground_scene("solids", scene_key("solids", 0).generator())
    point, radius, size = np.array([1.5, -1.0, 0.6]), 0.15, (96, 128)
    to_world = np.diag([radius, radius, radius, 1.0])
    to_world[:3, 3] = point
    ball = Solid(shape="sphere", to_world=to_world, material=scene.objects[0][0].material)
    light = dataclasses.replace(scene.light, ambient=1.0)

    # Render the ground with and without the ball.
    positions = camera_positions(np.random.default_rng(1), 6, (9.0, 11.0), (25.0, 60.0))
    intrinsics = pinhole(0.035, 0.032, *size)
    with_ball = dataclasses.replace(scene, objects=((ball,),), light=light)
    without_ball = dataclasses.replace(scene, objects=(), light=light)
    images = render_views(with_ball, positions, intrinsics, size).astype(int)
    empty = render_views(without_ball, positions, intrinsics, size).astype(int)

    # Compute the projection from the position alone.
    for position, changed in zip(positions.astype(float), np.abs(images - empty).max(-1) > 10):
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
        x, y, z = np.stack((right, np.cross(forward, right), forward)) @ (point - position)
        focal = 35 / 32 * size[1]
        expected = (focal * y / z + size[0] / 2, focal * x / z + size[1] / 2)
        np.testing.assert_allclose(np.argwhere(changed).mean(0) + 0.5, expected, atol=0.3)


@pytest.fixture
def in_a_thread(monkeypatch: pytest.MonkeyPatch):
    """Render in this process, because new ones take seconds to start."""
    monkeypatch.setattr(devices, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))

    # A worker has one thread, and with as many threads it rounds as a worker does.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def contents(root: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path there."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_obsurf_has_the_scenes_of_each_range_and_empty_rows_elsewhere(tmp_path, in_a_thread):
    write_obsurf(tmp_path, config=OBSURF, name="clevr3d", seed=SEED, workers=1)
    numbers = [0, 1, 2, 4, 5, 9]
    with np.load(tmp_path / "metadata.npz") as metadata:
        shape, camera = metadata["shape"], metadata["camera_pos"]
    assert len(shape) == len(camera) == 10
    assert np.flatnonzero((shape > 0).any(1)).tolist() == numbers
    assert shape.dtype.kind == "i"
    assert (camera.shape, camera.dtype) == ((10, 3, 3), np.float32)
    names = {f"img_{scene}_{view}.png" for scene in numbers for view in range(3)}
    assert {path.name for path in (tmp_path / "images").iterdir()} == names

    # Rendered again from the metadata's cameras, a scene has the same images.
    keys = ((1, scene_key("clevr3d", 1)), (9, scene_key("clevr3d", 0, split="test")))
    for number, key in keys:
        scene = random_ground_scene("solids", key.generator())
        assert shape[number][shape[number] > 0].tolist() == list(scene.type_numbers)
        expected = render_views(scene, camera[number], pinhole(0.035, 0.032, 24, 32), (24, 32))
        for view in range(3):
            image = Image.open(tmp_path / "images" / f"img_{number}_{view}.png")
            np.testing.assert_array_equal(np.asarray(image), expected[view])


def test_images_of_obsurf_depend_on_neither_workers_nor_the_number_of_scenes(tmp_path, in_a_thread):
    write_obsurf(tmp_path / "one", config=OBSURF, name="clevr3d", seed=SEED, workers=1)

    # Write fewer scenes with two real processes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "ProcessPoolExecutor", ProcessPoolExecutor)
        fewer = dataclasses.replace(OBSURF.synthetic, train=2)
        config = dataclasses.replace(OBSURF, synthetic=fewer)
        write_obsurf(tmp_path / "two", config=config, name="clevr3d", seed=SEED, workers=2)

    # The images are the same, without those of one scene.
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    for files in (one, two):
        del files["metadata.npz"]
    assert one.keys() - two.keys() == {f"images/img_2_{view}.png" for view in range(3)}
    assert two == {name: one[name] for name in two}


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (
            {"val": (4, 5)},
            r"datasets\.clevr3d: synthetic\.val 2 is more scenes than ranges\.val \[4, 5\]",
        ),
        ({"val": (2, 4)}, r"ranges\.val \[2, 4\] and .* split both have scene number 2"),
    ],
)
def test_obsurf_refuses_ranges_that_do_not_hold_the_scenes(ranges, message, tmp_path):
    config = dataclasses.replace(OBSURF, ranges=dataclasses.replace(OBSURF.ranges, **ranges))
    with pytest.raises(UserError, match=message):
        write_obsurf(tmp_path, config=config, name="clevr3d", seed=SEED, workers=1)


@pytest.fixture(scope="module")
def msn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a dataset of plain grey images, because rendering takes longer. Return its root."""
    pytest.importorskip("tensorflow")
    root = tmp_path_factory.mktemp("msn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
        patch.setattr("srt.data.synthetic.as_msn.render_views", grey_images)
        write_msn(root, config=MSN, name="msn", seed=SEED, workers=1)
    return root


def grey_images(scene, positions, intrinsics, image_size):
    """Return images whose grey value is the number of the scene's objects."""
    return np.full((len(positions), *image_size, 3), len(scene.objects), np.uint8)


def test_tfds_reads_the_msn_files_in_its_interleaved_order(msn: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(msn)
    assert (builder.info.name, str(builder.info.version)) == ("kubric_frames", "2.3.3")
    scenes = {split: list(builder.as_dataset(split=split).as_numpy_iterator()) for split in SPLITS}
    assert {split: len(scenes[split]) for split in SPLITS} == {"train": 80, "val": 2, "test": 1}

    # TFDS reads blocks of 16 scenes of the four shards in turn. A shard has 20 scenes.
    train = scenes["train"]
    numbers = [int(scene["frame_name"].decode().removeprefix("scene_")) for scene in train]
    starts = [20 * shard + 16 * block for block in range(2) for shard in range(4)]
    ends = [min(start + 16, start - start % 20 + 20) for start in starts]
    assert numbers == [i for start, end in zip(starts, ends) for i in range(start, end)]
    for position in (0, 40, 79):
        check_msn_scene(train[position], numbers[position])


def check_msn_scene(scene, number: int) -> None:
    """Check what TFDS has read against the scene's own generator."""
    rng = scene_key("msn", number).generator()
    count = len(random_ground_scene("solids", rng).objects)
    positions = camera_positions(rng, 4, (8.0, 12.0), (15.0, 70.0))
    assert list(scene["cameras"]) == [f"camera_{view}" for view in range(4)]
    for position, camera in zip(positions, scene["cameras"].values()):
        check_msn_camera(camera, position)

        # The images are those of `grey_images`.
        assert (camera["color_image"] == np.full((8, 8, 3), count)).all()
        assert camera["category_image"].shape == (8, 8, 1)


def check_msn_camera(camera, position: np.ndarray) -> None:
    """Check a camera's pose against its position, and its intrinsics."""
    # The origin is straight ahead, at a distance of at least 8.
    rotation, translation = camera["extrinsics"]["R"], camera["extrinsics"]["t"]
    np.testing.assert_allclose(-rotation.T @ translation, position, atol=1e-5)
    np.testing.assert_allclose(translation[:2], 0, atol=1e-6)
    assert translation[2] > 8 - 1e-4

    # The camera does not roll: the image's x axis is level, and its y axis points down.
    assert abs(rotation[0, 2]) < 1e-6
    assert rotation[1, 2] < 0

    intrinsics = camera["intrinsics"]
    np.testing.assert_allclose(intrinsics["K"], [[8.75, 0, 4], [0, 8.75, 4], [0, 0, 1]])
    assert (intrinsics["image_width"], intrinsics["image_height"]) == (8, 8)
    assert intrinsics["type"] == b"PERSPECTIVE"
    assert not any(value.any() for value in intrinsics["distortion"].values())


def test_dataset_info_describes_the_shards(msn: Path):
    info = json.loads((msn / "dataset_info.json").read_text())
    names = {"dataset_info.json", "features.json"}
    for split in info["splits"]:
        count = len(split["shardLengths"])
        shards = [
            f"kubric_frames-{split['name']}.tfrecord-{i:05d}-of-{count:05d}" for i in range(count)
        ]
        names |= set(shards)

        # A TFRecord file has 16 more bytes for each record: its length and two checksums.
        size = sum((msn / name).stat().st_size for name in shards)
        framing = 16 * sum(map(int, split["shardLengths"]))
        assert int(split["numBytes"]) == size - framing
    assert [split["shardLengths"] for split in info["splits"]] == [["20"] * 4, ["1"] * 2, ["1"]]
    assert {path.name for path in msn.iterdir()} == names


def test_the_msn_files_are_the_same_each_time(tmp_path, in_a_thread):
    pytest.importorskip("tensorflow")
    config = dataclasses.replace(MSN, synthetic=SyntheticConfig(scene="objects", **COUNTS))
    for folder in ("one", "two"):
        write_msn(tmp_path / folder, config=config, name="msn", seed=SEED, workers=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
