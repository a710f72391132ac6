"""The MultiShapeNet reader: the published loader's scenes, TFDS' order, and every check."""

import dataclasses
import io
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.msn_faults import FAULTS
from support.paths import REFERENCE
from support.small_msn import (
    CAMERAS,
    LENGTHS,
    PUBLISHED,
    SIZE,
    TINY,
    change_records,
    png,
    read_all,
    read_records,
    serialised,
    set_feature,
    shard_path,
    write_info,
    write_raw,
    write_records,
)
from support.small_nmr import REPOSITORY, pack_in_threads

from srt.common.errors import DataError
from srt.config.schema import SPLITS, SplitRanges, SubsetConfig
from srt.data.packed import writer
from srt.data.packed.reader import Scenes
from srt.data.raw import msn
from srt.data.raw.tfrecords import interleave
from srt.geometry.cameras import camera_rays

REAL = REPOSITORY.parent / "shared" / "data" / "msn_tfds440"
RECORDED = REFERENCE / "loader_msn.npz"
MANY = {
    "train": [16, 17, 1, 32, 15, 48, 5, 0, 33, 16, 2, 31, 64, 7, 16, 20, 3, 18, 16, 1, 40, 32, 9],
    "val": [35, 40, 16, 12],
    "test": [*range(1, 41), 0, 16, 16],
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("valid") / "raw")


@pytest.fixture
def raw(valid, tmp_path):
    return shutil.copytree(valid, tmp_path / "raw")


def names(root, split="train", config=TINY):
    return [info.name for info in msn.list_scenes(root, split, config, None)]


def subset(config=TINY, *, shards=None, max_scenes=None):
    selection = SubsetConfig(classes=None, shards=shards, max_scenes=max_scenes)
    return dataclasses.replace(config, subset=selection)


def with_range(start, end):
    """Return the configuration with this range of training scenes."""
    ranges = SplitRanges(train=(start, end), val=(0, 1), test=(0, 1))
    return dataclasses.replace(TINY, ranges=ranges)


@pytest.mark.skipif(not REAL.is_dir(), reason="the small set of TFDS is not beside the repository")
@pytest.mark.parametrize("split", SPLITS)
def test_scenes_equal_the_published_loaders(split):
    """Their order and colours are equal; origins and directions agree to 1e-5."""
    import tensorflow as tf

    recorded = np.load(RECORDED)
    infos = msn.list_scenes(REAL, split, PUBLISHED, None)

    # The scenes' order, by the names in the records.
    (folder,) = REAL.glob("*/*")
    (shard,) = folder.glob(f"*-{split}.*")
    records = [tf.train.Example.FromString(record) for record in read_records(shard)]
    frames = [
        records[int(info.name.split("/")[1])].features.feature["frame_name"] for info in infos
    ]
    expected = recorded[f"{split}_names"].tolist()
    assert [frame.bytes_list.value[0].decode() for frame in frames] == expected

    # The images and rays of the first scenes.
    for index in range(2):
        scene = msn.read_scene(REAL, infos[index], PUBLISHED)
        recorded_scene = {
            key.removeprefix(f"{split}_{index}_"): value
            for key, value in recorded.items()
            if key.startswith(f"{split}_{index}_")
        }
        np.testing.assert_array_equal(scene.images[:, ::13, ::13], recorded_scene["color_sub"])
        origins, directions = camera_rays(
            torch.from_numpy(scene.intrinsics),
            torch.from_numpy(scene.camera_to_world),
            *PUBLISHED.image_size,
        )
        close = {"rtol": 0, "atol": 1e-5}
        np.testing.assert_allclose(origins, recorded_scene["origins"], **close)
        np.testing.assert_allclose(
            directions[:, ::13, ::13], recorded_scene["directions_sub"], **close
        )


def test_the_order_is_that_of_tfds(tmp_path):
    """With more shards than TFDS interleaves and with fewer, that end with a whole block or not.

    TFDS itself reads the files; a record is its shard and its number.
    """
    import tensorflow_datasets as tfds

    # Write records that say their shard and number.
    infos = []
    for split, lengths in MANY.items():
        for shard, length in enumerate(lengths):
            records = [serialised({"id": 1000 * shard + i}) for i in range(length)]
            write_records(shard_path(tmp_path, split, shard, len(lengths), "tiny"), records)
        template = tfds.core.ShardedFileTemplate(
            data_dir=tmp_path, dataset_name="tiny", split=split, filetype_suffix="tfrecord"
        )
        info = tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=1, filename_template=template
        )
        infos.append(info)

    # Describe the files as a dataset, and let TFDS read it.
    features = tfds.features.FeaturesDict({"id": np.int64})
    tfds.folder_dataset.write_metadata(
        data_dir=tmp_path, features=features, split_infos=infos, check_data=False
    )
    builder = tfds.builder_from_directory(tmp_path)
    for split, lengths in MANY.items():
        read = [int(record["id"]) for record in builder.as_dataset(split=split).as_numpy_iterator()]
        ours = [1000 * shard + i for shard, block in interleave(lengths) for i in block]
        assert ours == read, split
        assert [f"{split}-{i // 1000:05d}/{i % 1000:05d}" for i in read] == names(tmp_path, split)


@pytest.mark.parametrize("lengths", MANY.values())
def test_the_shards_needed_hold_the_first_scenes_and_one_less_does_not(lengths):
    def first(shards, end):
        order = [(s, i) for s, block in interleave(lengths[:shards]) for i in block]
        return order[:end]

    whole = first(len(lengths), sum(lengths))
    for end in range(1, sum(lengths) + 1, 7):
        needed = msn.shards_needed(lengths, end)
        assert first(needed, end) == whole[:end]
        assert first(needed - 1, end) != whole[:end]
    assert msn.shards_needed(lengths, 0) == 0


def test_listing_the_scenes_takes_no_tensorflow(valid, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert names(valid, "test") == ["test-00000/00000", "test-00001/00000"]


def test_scenes_are_the_raw_ones_with_their_cameras_in_numerical_order(valid):
    import tensorflow as tf

    scenes = read_all(valid)
    assert len(scenes) == sum(map(sum, LENGTHS.values()))
    point = np.array([0.3, -0.2, 0.5])
    for split, lengths in LENGTHS.items():
        for shard, length in enumerate(lengths):
            records = read_records(shard_path(valid, split, shard))
            for number in range(length):
                scene = scenes[f"{split}-{shard:05d}/{number:05d}"]
                features = tf.train.Example.FromString(records[number]).features.feature
                for view, camera in enumerate(CAMERAS):
                    check_view(scene, view, features, f"cameras/camera_{camera}", point)


def check_view(scene, view, features, name, point):
    """Check that pixels are the raw ones, and that a point is where the raw matrices put it."""
    import tensorflow as tf

    pixels = tf.io.decode_png(features[f"{name}/color_image"].bytes_list.value[0])
    np.testing.assert_array_equal(scene.images[view], pixels)

    # Project the point by the raw matrices and by ours.
    k, rotation, translation = (
        np.array(features[f"{name}/{key}"].float_list.value)
        for key in ("intrinsics/K", "extrinsics/R", "extrinsics/t")
    )
    raw = k.reshape(3, 3) @ (rotation.reshape(3, 3) @ point + translation)
    inverse = np.linalg.inv(scene.camera_to_world[view])
    ours = scene.intrinsics[view] @ (inverse[:3, :3] @ point + inverse[:3, 3])
    np.testing.assert_allclose(ours, raw, rtol=1e-5, atol=1e-5)


def test_an_alpha_channel_is_dropped_and_unknown_keys_are_not_read(raw, valid):
    """Version 2.8.0 has more keys than 2.3.3."""

    def change(features):
        for key in [key for key in features if key.endswith("color_image")]:
            pixels = Image.open(io.BytesIO(features[key].bytes_list.value[0]))
            pixels.putalpha(Image.fromarray(np.full((SIZE, SIZE), 77, np.uint8)))
            set_feature(features[key], png(pixels))
            set_feature(features[key.replace("color", "instance")], b"no picture")
        set_feature(features["asset_ids"], b"03001627/x")

    change_records(raw, change)
    changed = read_all(raw)
    for name, scene in read_all(valid).items():
        np.testing.assert_array_equal(changed[name].images, scene.images)


def test_a_range_is_of_the_order_and_needs_only_its_shards(raw):
    whole = names(raw)
    assert names(raw, config=with_range(1, 4)) == whole[1:4]
    shard_path(raw, "train", 1).unlink()
    assert names(raw, config=with_range(0, 3)) == whole[:3]
    with pytest.raises(DataError, match="00001-of-00002 missing"):
        names(raw, config=with_range(0, 4))


def test_a_range_beyond_the_data_is_refused_but_not_of_a_subset(raw):
    with pytest.raises(DataError, match=r"train has 5 scenes, ranges\.train ends at 6; correct"):
        names(raw, config=with_range(2, 6))
    assert names(raw, config=subset(with_range(2, 6), shards="present")) == names(raw)[2:]
    with pytest.raises(DataError, match=r"train has 5 scenes .* none in its range"):
        names(raw, config=subset(with_range(7, 9), shards="present"))


def test_a_partial_copy_is_used_on_request_in_the_order_of_what_it_has(raw):
    shard_path(raw, "train", 0).unlink()
    expected = ["train-00001/00000", "train-00001/00001"]
    assert names(raw, config=subset(shards="present")) == expected
    assert names(raw, config=subset(shards="1,5-8")) == expected  # other splits may have a fifth
    with pytest.raises(DataError, match="00000-of-00002 missing"):
        names(raw, config=subset(shards="0-1"))
    with pytest.raises(DataError, match="0 scenes in the chosen shards"):
        names(raw, config=subset(shards="2"))


def test_max_scenes_takes_the_first_of_the_range(raw):
    assert names(raw, config=subset(with_range(1, 5), max_scenes=2)) == names(raw)[1:3]
    assert names(raw, config=subset(max_scenes=9)) == names(raw)


def test_many_missing_shards_are_counted(tmp_path):
    lengths = dict.fromkeys(SPLITS, [1] * 30)
    write_info(tmp_path, lengths)
    shard_path(tmp_path, "train", 0, 30).touch()
    expected = r"00001-of-00030, .*00005-of-00030 and 24 more missing"
    with pytest.raises(DataError, match=expected):
        names(tmp_path)


def test_the_dataset_is_found_in_folders_of_any_name_and_half_fetched_files_are_no_shards(
    raw, tmp_path
):
    inner = tmp_path / "tfds" / "any" / "9.9.9"
    shutil.copytree(raw, inner)
    (inner / ".kubric_frames-train.tfrecord-00000-of-00009").touch()
    (inner / "kubric_frames-train.tfrecord-00000-of-00009.part").touch()
    assert names(tmp_path / "tfds") == names(raw)


def test_what_is_packed_is_what_was_read(valid, tmp_path, monkeypatch):
    pack_in_threads(monkeypatch)
    out = tmp_path / "packed"
    writer.pack(valid, None, TINY, out, provenance={}, workers=1)
    raw_scenes = read_all(valid)
    for split in SPLITS:
        packed = Scenes(out / split, torch.device("cpu"))
        infos = msn.list_scenes(valid, split, TINY, None)
        assert [packed.info(index) for index in range(len(packed))] == infos
        images = np.stack([raw_scenes[info.name].images for info in infos])
        blocks = [block for _, block in packed.disk.blocks()]
        np.testing.assert_array_equal(np.concatenate(blocks), images)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_file_record_and_remedy(raw, tmp_path, fault):
    break_it, expected = FAULTS[fault]
    break_it(raw)
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}.*{expected}"):
        read_all(raw)
