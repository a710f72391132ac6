"""The NMR reader: parity with the published loader, and every check of the raw data."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from nmr_faults import FAULTS
from PIL import Image
from small_nmr import (
    FOCAL,
    LISTS,
    PUBLISHED,
    REPOSITORY,
    SIZE,
    TINY,
    VIEWS,
    contents,
    in_threads,
    pack,
    small_shards,
    write_raw,
)

from srt.config import SPLITS
from srt.data import packing
from srt.data.sampling import whole_views
from srt.data.scenes import DataError, Scenes, read_header
from srt.files import sha256_of
from srt.geometry import camera_rays

REAL = REPOSITORY.parent / "shared" / "data" / "nmr_real"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real_packed(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip("the small set of real renders is not beside the repository")
    out = tmp_path_factory.mktemp("packed") / "nmr"
    packing.pack(REAL, None, PUBLISHED, out, provenance={}, workers=2)
    return out


@pytest.mark.parametrize("frame", ["canonical", "world"])
@pytest.mark.parametrize("item", [0, 1, 2])
def test_items_equal_the_published_loaders(real_packed, frame, item):
    """Images, positions, directions: 1e-5 (the corner grid, as published)."""
    file = np.load(REPOSITORY / "tests" / "reference" / "loader_nmr.npz")
    recorded = {
        k.removeprefix(f"{frame}_{item}_"): v for k, v in file.items() if k.startswith(frame)
    }
    recorded = {k: file[f"{frame}_{item}_{k}"] for k in recorded if f"{frame}_{item}_{k}" in file}
    scenes = Scenes(real_packed / "val", CPU)
    names = [info.name.split("/")[1] for info in scenes.infos]
    scene, view = names.index(str(recorded["scene"])), int(recorded["view"])
    others = [i for i in range(24) if i != view]
    batch = whole_views(
        scenes,
        torch.tensor([scene]),
        torch.tensor([[view]]),
        torch.tensor([others]),
        canonical=frame == "canonical",
    )
    close = {"rtol": 0, "atol": 1e-5}
    image = recorded["input_image"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(batch.images[0], image, **close)
    np.testing.assert_allclose(batch.image_origins[0], recorded["input_camera_pos"], **close)
    step = 64 // recorded["input_rays_sub"].shape[1] + (
        64 % recorded["input_rays_sub"].shape[1] > 0
    )
    rays = batch.image_directions[0, :, ::step, ::step]
    np.testing.assert_allclose(rays, recorded["input_rays_sub"], **close)
    index = recorded["target_index"]
    np.testing.assert_allclose(batch.colours[0, index], recorded["target_pixels"], **close)
    np.testing.assert_allclose(batch.origins[0, index], recorded["target_camera_pos"], **close)
    np.testing.assert_allclose(batch.directions[0, index], recorded["target_rays"], **close)
    if frame == "canonical":
        to_canonical = scenes.camera_to_world[scene, view].inverse()
        np.testing.assert_allclose(to_canonical, recorded["transform"], **close)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("valid") / "raw")


@pytest.fixture
def raw(valid, tmp_path):
    return shutil.copytree(valid, tmp_path / "raw")


@pytest.fixture
def quickly(monkeypatch):
    in_threads(monkeypatch)
    small_shards(monkeypatch)


@pytest.mark.usefixtures("quickly")
def test_packed_scenes_are_the_raw_ones_in_the_published_order(valid, tmp_path):
    out = pack(valid, tmp_path / "packed")
    for split in SPLITS:
        scenes = Scenes(out / split, CPU)
        names = [f"{c}/{name}" for c, lists in LISTS.items() for name in lists[split]]
        assert [info.name for info in scenes.infos] == names
        for index, name in enumerate(names):
            images = [Image.open(path) for path in sorted((valid / name / "image").iterdir())]
            packed = scenes.images(torch.tensor([index]), torch.arange(VIEWS)[None])[0] * 255
            np.testing.assert_array_equal(packed.round(), np.stack(images))
            check_cameras(scenes, index, np.load(valid / name / "cameras.npz"))


def check_cameras(scenes, index, raw_cameras):
    """Checks that a world point is seen where the raw matrices put it, once y-up is z-up."""
    point = np.array([0.3, -0.2, 0.5])
    for view in range(VIEWS):
        seen = raw_cameras[f"world_mat_{view}"] @ [*point, 1]
        place = (raw_cameras[f"camera_mat_{view}"] @ seen)[:2] / seen[2]  # in [-1, 1]
        z_up = torch.tensor([point[0], -point[2], point[1], 1]).float()
        ours = (
            scenes.intrinsics[index, view]
            @ (scenes.camera_to_world[index, view].inverse() @ z_up)[:3]
        )
        np.testing.assert_allclose(ours[:2] / ours[2], (place + 1) / 2 * SIZE, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("quickly")
def test_the_header_tells_classes_source_views_and_the_mean_colour(valid, tmp_path):
    out = pack(valid, tmp_path / "packed")
    test = Scenes(out / "test", CPU).infos
    assert [(info.class_name, info.source_view) for info in test] == [
        ("sofa,couch", 2),
        ("bench", 0),
    ]
    train = Scenes(out / "train", CPU)
    assert {info.source_view for info in train.infos} == {None}
    images = train.images(torch.arange(4), torch.arange(VIEWS).expand(4, VIEWS))
    mean = read_header(out / "train")["mean_colour"]
    np.testing.assert_allclose(mean, images.mean(dim=(0, 1, 2, 3)), rtol=1e-5)


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
    """`corner` is linspace(-1, 1, size) over the image, `center` half a pixel inside."""
    out = pack(valid, tmp_path / "packed", dataclasses.replace(TINY, pixel_grid=grid))
    intrinsics = Scenes(out / "val", CPU).intrinsics[0, 0]
    _, directions = camera_rays(intrinsics, torch.eye(4), SIZE, SIZE)
    plane = directions[..., :2] / directions[..., 2:] * FOCAL
    expected = torch.linspace(-outermost, outermost, SIZE)
    torch.testing.assert_close(plane[..., 0], expected.expand(SIZE, SIZE))
    torch.testing.assert_close(plane[..., 1], expected[:, None].expand(SIZE, SIZE))


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
