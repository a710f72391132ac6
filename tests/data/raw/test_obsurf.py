"""The reader of ObSuRF's layout: the published splits, filter and cameras, and every check."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.obsurf_faults import FAULTS
from support.paths import REFERENCE
from support.small_nmr import pack_in_threads
from support.small_obsurf import (
    OBJECTS,
    SIZE,
    TINY,
    change_metadata,
    image,
    read_all,
    write_metadata,
    write_raw,
)

from srt.common.errors import DataError
from srt.config.schema import SPLITS, SubsetConfig
from srt.data.packed import writer
from srt.data.packed.reader import Scenes
from srt.data.raw import obsurf
from srt.data.raw.common import SceneInfo
from srt.geometry.cameras import camera_rays

RECORDED = np.load(REFERENCE / "geometry.npz")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("valid") / "raw")


@pytest.fixture
def raw(valid, tmp_path):
    return shutil.copytree(valid, tmp_path / "raw")


def list_splits(root, config=TINY):
    """Return the scenes of each split."""
    return {split: obsurf.list_scenes(root, split, config, None) for split in SPLITS}


def test_the_splits_are_the_ranges_without_scenes_of_too_many_objects(valid):
    names = {split: [info.name for info in infos] for split, infos in list_splits(valid).items()}
    assert names == {
        "train": ["0", "1", "2", "3", "4"],
        "val": ["6", "7"],
        "test": ["9", "11"],
    }
    unfiltered = list_splits(valid, dataclasses.replace(TINY, max_objects=None))
    assert [info.name for info in unfiltered["test"]] == ["9", "10", "11"]


def test_a_scenes_class_is_its_number_of_objects(valid):
    for infos in list_splits(valid).values():
        for info in infos:
            count = OBJECTS[int(info.name)]
            assert info.class_name == ("1 object" if count == 1 else f"{count} objects")


def test_a_subset_is_of_the_first_scenes_that_pass_the_filter(valid):
    first = SubsetConfig(classes=None, shards=None, max_scenes=2)
    infos = list_splits(valid, dataclasses.replace(TINY, subset=first))
    assert {split: [info.name for info in scenes] for split, scenes in infos.items()} == {
        "train": ["0", "1"],
        "val": ["6", "7"],
        "test": ["9", "11"],
    }


def test_the_images_are_the_raw_ones(valid):
    for name, scene in read_all(valid).items():
        images = [Image.open(image(valid, name, view)) for view in range(TINY.views)]
        np.testing.assert_array_equal(scene.images, np.stack(images))


def test_an_alpha_channel_is_dropped(raw, valid):
    for path in raw.rglob("*.png"):
        picture = Image.open(path)
        picture.putalpha(Image.fromarray(np.full(SIZE, 77, np.uint8)))
        picture.save(path)
    scenes = read_all(raw)
    for name, scene in read_all(valid).items():
        np.testing.assert_array_equal(scenes[name].images, scene.images)


def test_cameras_are_at_their_places_and_see_the_origin_in_the_middle(valid):
    positions = np.load(valid / "metadata.npz")["camera_pos"]
    for name, scene in read_all(valid).items():
        np.testing.assert_array_equal(
            scene.camera_to_world[:, :3, 3], positions[int(name), : TINY.views]
        )
        # Project the origin.
        origin = np.linalg.inv(scene.camera_to_world)[:, :3, 3]
        pixel = np.einsum("vij,vj->vi", scene.intrinsics, origin)
        middle = np.tile([SIZE[1] / 2, SIZE[0] / 2], (TINY.views, 1))
        np.testing.assert_allclose(pixel[:, :2] / pixel[:, 2:], middle, atol=1e-9)


def test_the_focal_length_is_350_pixels_at_the_published_size(tmp_path):
    config = write_blank(tmp_path, (240, 320), np.array([[[4.0, 1, 3]] * 3]))
    scene = obsurf.read_scene(tmp_path, SceneInfo("0", "1 object", None), config)
    expected = [[350, 0, 160], [0, 350, 120], [0, 0, 1]]
    np.testing.assert_allclose(scene.intrinsics, np.tile(expected, (3, 1, 1)), rtol=1e-12)


def test_rays_are_the_published_ones(tmp_path):
    positions = RECORDED["camera_pos"]
    config = write_blank(tmp_path, (12, 16), positions[None])
    scene = obsurf.read_scene(tmp_path, SceneInfo("0", "1 object", None), config)
    origins, directions = camera_rays(
        torch.from_numpy(scene.intrinsics), torch.from_numpy(scene.camera_to_world), 12, 16
    )
    np.testing.assert_array_equal(origins, positions)
    recorded = RECORDED["rays_12x16_f35_s32"]
    np.testing.assert_allclose(directions, recorded, rtol=0, atol=1e-7)  # recorded as float32


def write_blank(root, size, positions):
    """Write a scene with black images, and return its configuration."""
    (root / "images").mkdir()
    for view in range(positions.shape[1]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(image(root, 0, view))
    write_metadata(root, shape=np.ones((1, 1), int), camera_pos=positions)
    return dataclasses.replace(TINY, image_size=size, views=positions.shape[1])


def test_mended_metadata_are_read_again(raw):
    """A process can fail, and try again after the file has been mended."""
    original = (raw / "metadata.npz").read_bytes()
    change_metadata(raw, shape=np.ones_like)
    with pytest.raises(DataError, match="train is empty"):
        list_splits(raw)
    (raw / "metadata.npz").write_bytes(original)
    assert len(list_splits(raw)["train"]) == 5


def test_what_is_packed_is_what_was_read(valid, tmp_path, monkeypatch):
    pack_in_threads(monkeypatch)
    out = tmp_path / "packed"
    writer.pack(valid, None, TINY, out, provenance={}, workers=1)
    raw_scenes = read_all(valid)
    for split in SPLITS:
        packed = Scenes(out / split, torch.device("cpu"))
        infos = obsurf.list_scenes(valid, split, TINY, None)
        assert [packed.info(index) for index in range(len(packed))] == infos
        images = np.stack([raw_scenes[info.name].images for info in infos])
        blocks = [block for _, block in packed.disk.blocks()]
        np.testing.assert_array_equal(np.concatenate(blocks), images)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_the_file_and_the_scene(raw, tmp_path, fault):
    break_it, expected = FAULTS[fault]
    break_it(raw)
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}.*{expected}"):
        read_all(raw)
