"""The NMR reader: the published loader's scenes, and every check of the raw data."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.nmr_faults import FAULTS
from support.paths import REFERENCE
from support.small_nmr import (
    FOCAL,
    LISTS,
    PUBLISHED,
    REPOSITORY,
    SIZE,
    TINY,
    VIEWS,
    contents,
    pack,
    pack_in_threads,
    use_small_shards,
    write_raw,
)

from srt.common.errors import DataError
from srt.common.files import sha256_of
from srt.config.schema import SPLITS, SubsetConfig
from srt.data.batch import ViewConfig, make_full_view_batch
from srt.data.packed import writer
from srt.data.packed.reader import Scenes, read_split_header
from srt.data.raw import nmr
from srt.geometry.cameras import camera_rays

REAL = REPOSITORY.parent / "shared" / "data" / "nmr_real"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real_packed(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip("the small set of real renders is not beside the repository")
    out = tmp_path_factory.mktemp("packed") / "nmr"
    writer.pack(REAL, None, PUBLISHED, out, provenance={}, workers=2)
    return out


@pytest.mark.parametrize("frame", ["canonical", "world"])
@pytest.mark.parametrize("item", [0, 1, 2])
def test_items_equal_the_published_loaders(real_packed, frame, item):
    """Images, positions and directions agree to 1e-5, with the published corner grid."""
    # The recorded arrays of this item.
    file = np.load(REFERENCE / "loader_nmr.npz")
    recorded = {
        k.removeprefix(f"{frame}_{item}_"): v for k, v in file.items() if k.startswith(frame)
    }
    recorded = {k: file[f"{frame}_{item}_{k}"] for k in recorded if f"{frame}_{item}_{k}" in file}

    # The batch of the same item: one input view, and all pixels of the others.
    scenes = Scenes(real_packed / "val", CPU)
    names = [name.split("/")[1] for name in scenes.names]
    scene, view = names.index(str(recorded["scene"])), int(recorded["view"])
    targets = [i for i in range(24) if i != view]
    batch = make_full_view_batch(
        scenes,
        torch.tensor([scene]),
        torch.tensor([[view]]),
        torch.tensor([targets]),
        ViewConfig(
            canonical=frame == "canonical",
            input_views=1,
            input_stride=1,
            all_targets=False,
            near=2.0,
            far=4.0,
        ),
    )

    # The input view; its recorded rays have a stride.
    close = {"rtol": 0, "atol": 1e-5}
    image = recorded["input_image"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(batch.images[0], image, **close)
    np.testing.assert_allclose(batch.image_origins[0], recorded["input_camera_pos"], **close)
    step = 64 // recorded["input_rays_sub"].shape[1] + (
        64 % recorded["input_rays_sub"].shape[1] > 0
    )
    rays = batch.image_directions[0, :, ::step, ::step]
    np.testing.assert_allclose(rays, recorded["input_rays_sub"], **close)

    # Some of the target rays.
    index = recorded["target_index"]
    np.testing.assert_allclose(batch.colours[0, index], recorded["target_pixels"], **close)
    np.testing.assert_allclose(batch.origins[0, index], recorded["target_camera_pos"], **close)
    np.testing.assert_allclose(batch.directions[0, index], recorded["target_rays"], **close)
    if frame == "canonical":
        to_canonical = scenes.cameras(torch.tensor([scene]))[1][0, view].inverse()
        np.testing.assert_allclose(to_canonical, recorded["transform"], **close)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("valid") / "raw")


@pytest.fixture
def raw(valid, tmp_path):
    return shutil.copytree(valid, tmp_path / "raw")


@pytest.fixture
def quickly(monkeypatch):
    pack_in_threads(monkeypatch)
    use_small_shards(monkeypatch)


@pytest.mark.usefixtures("quickly")
def test_packed_scenes_are_the_raw_ones_in_the_published_order(valid, tmp_path):
    out = pack(valid, tmp_path / "packed")
    for split in SPLITS:
        scenes = Scenes(out / split, CPU)
        names = [f"{c}/{name}" for c, lists in LISTS.items() for name in lists[split]]
        assert scenes.names == names
        for index, name in enumerate(names):
            images = [Image.open(path) for path in sorted((valid / name / "image").iterdir())]
            np.testing.assert_array_equal(all_images(scenes)[index], np.stack(images))
            check_cameras(scenes, index, np.load(valid / name / "cameras.npz"))


def all_images(scenes):
    """Return the uint8 images of all views of a small split."""
    numbers = torch.arange(len(scenes))
    views = torch.arange(VIEWS).expand(len(scenes), VIEWS)
    no_pixels = torch.zeros(len(scenes), 0).long()
    return scenes.gather(numbers, views, no_pixels, stride=1)[0]


def check_cameras(scenes, index, raw_cameras):
    """Check that a point of the y-up raw world is seen where the raw matrices put it."""
    intrinsics, poses = (tensor[0] for tensor in scenes.cameras(torch.tensor([index])))
    point = np.array([0.3, -0.2, 0.5])
    for view in range(VIEWS):
        camera_point = raw_cameras[f"world_mat_{view}"] @ [*point, 1]
        position = (raw_cameras[f"camera_mat_{view}"] @ camera_point)[:2] / camera_point[2]
        z_up = torch.tensor([point[0], -point[2], point[1], 1]).float()
        ours = intrinsics[view] @ (poses[view].inverse() @ z_up)[:3]
        pixel = (position + 1) / 2 * SIZE  # `position` is in [-1, 1]
        np.testing.assert_allclose(ours[:2] / ours[2], pixel, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("quickly")
def test_the_header_tells_classes_source_views_and_the_mean_colour(valid, tmp_path):
    out = pack(valid, tmp_path / "packed")
    test, train = (Scenes(out / split, CPU) for split in ("test", "train"))
    infos = [test.info(index) for index in range(len(test))]
    assert [(info.class_name, info.source_view) for info in infos] == [
        ("sofa,couch", 2),
        ("bench", 0),
    ]
    assert {train.info(index).source_view for index in range(len(train))} == {None}
    mean = read_split_header(out / "train")["statistics"]["mean_colour"]
    np.testing.assert_allclose(
        mean, all_images(train).double().mean(dim=(0, 1, 2, 3)) / 255, rtol=1e-5
    )


@pytest.mark.usefixtures("quickly")
def test_the_manifest_has_the_digest_of_every_file(valid, tmp_path):
    out = pack(valid, tmp_path / "packed")
    manifest = json.loads((out / "manifest.json").read_text())
    digests = {
        f"{s}/{name}": d for s, files in manifest["files"].items() for name, d in files.items()
    }
    assert digests == {name: sha256_of(out / name) for name in contents(out) if "/" in name}
    assert manifest["scenes"] == {"train": 4, "val": 1, "test": 2}


@pytest.mark.usefixtures("quickly")
def test_an_alpha_channel_is_dropped(raw, valid, tmp_path):
    for path in raw.rglob("*.png"):
        image = Image.open(path)
        image.putalpha(Image.fromarray(np.full((SIZE, SIZE), 77, np.uint8)))
        image.save(path)
    assert contents(pack(raw, tmp_path / "rgba")) == contents(pack(valid, tmp_path / "rgb"))


@pytest.mark.parametrize(("grid", "outermost"), [("center", 1 - 1 / SIZE), ("corner", 1.0)])
@pytest.mark.usefixtures("quickly")
def test_the_outermost_rays_are_at_pixel_centres_or_at_the_images_edge(
    valid, tmp_path, grid, outermost
):
    """`corner` is linspace(-1, 1, size) over the image; `center` begins half a pixel inside."""
    out = pack(valid, tmp_path / "packed", dataclasses.replace(TINY, pixel_grid=grid))
    intrinsics = Scenes(out / "val", CPU).cameras(torch.tensor([0]))[0][0, 0]
    _, directions = camera_rays(intrinsics, torch.eye(4), SIZE, SIZE)
    plane = directions[..., :2] / directions[..., 2:] * FOCAL
    expected = torch.linspace(-outermost, outermost, SIZE)
    torch.testing.assert_close(plane[..., 0], expected.expand(SIZE, SIZE))
    torch.testing.assert_close(plane[..., 1], expected[:, None].expand(SIZE, SIZE))


def subset(**options):
    defaults = {"classes": None, "shards": None, "max_scenes": None}
    return dataclasses.replace(TINY, subset=SubsetConfig(**{**defaults, **options}))


def scene_names(root, split, config):
    infos = nmr.list_scenes(root, split, config, root / "views.txt")
    return [info.name.split("/")[1] for info in infos]


@pytest.mark.parametrize("word", ["04256520", "sofa,couch", "couch"])
def test_a_subset_of_classes_is_named_by_ids_or_names_and_needs_no_other_class(raw, word):
    shutil.rmtree(raw / "02828884")
    assert scene_names(raw, "train", subset(classes=(word,))) == ["s1", "s0", "s2"]
    assert scene_names(raw, "test", subset(classes=(word,))) == ["s3"]


def test_the_classes_of_a_subset_keep_the_datasets_order(valid):
    assert scene_names(valid, "test", subset(classes=("bench", "sofa"))) == ["s3", "b2"]


def test_an_unknown_class_is_refused_with_those_that_there_are(valid):
    expected = (
        r"metadata\.yaml: .* no class is called 'chair'; there are 04256520 \(sofa,couch\), 0"
    )
    with pytest.raises(DataError, match=expected):
        scene_names(valid, "train", subset(classes=("bench", "chair")))


@pytest.mark.parametrize(
    ("count", "names"), [(1, ["s1"]), (2, ["s1", "b0"]), (3, ["s1", "s0", "b0"])]
)
def test_max_scenes_are_dealt_out_to_the_classes(valid, count, names):
    assert scene_names(valid, "train", subset(max_scenes=count)) == names


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("quickly")
def test_a_fault_is_refused_with_the_file_and_leaves_the_output_as_it_was(
    raw, valid, tmp_path, fault
):
    break_it, expected = FAULTS[fault]
    new, existing = tmp_path / "new", pack(valid, tmp_path / "existing")
    before = contents(existing)
    break_it(raw)
    for out in (new, existing):
        with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}.*{expected}"):
            pack(raw, out)
    assert not new.exists()
    assert contents(existing) == before
