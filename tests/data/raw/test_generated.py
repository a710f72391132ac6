"""Scenes that are rendered when they are packed, and how a GPU renders them."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import PARAMS

from srt.common.devices import shared_device
from srt.config.load import load_dataset
from srt.config.schema import SyntheticConfig
from srt.data.packed.reader import Scenes
from srt.data.packed.writer import pack
from srt.data.raw.common import RawScene
from srt.data.raw.generated import HIGHEST, list_scenes, read_scene, write_generated
from srt.data.synthetic import raycaster_gpu
from srt.data.synthetic.as_nmr import DISTANCE, write_nmr
from srt.data.synthetic.raycaster import first_hits, pixel_rays, render
from srt.data.synthetic.raycaster_gpu import SolidTable
from srt.data.synthetic.scenes import (
    SceneKey,
    camera_positions,
    look_at_origin,
    random_ground_scene,
)
from srt.geometry.cameras import pinhole

SEED = 5
STYLES = ("solids", "objects", "clutter")


def config(scene, **changes):
    """Return a small dataset of scenes of this kind."""
    counts = SyntheticConfig(scene=scene, train=5, val=2, test=3)
    small = {"image_size": (16, 16), "views": 4, "input_views": 1, "synthetic": counts}
    name = "nmr" if scene.startswith("object") and scene != "objects" else "msn"
    return dataclasses.replace(load_dataset(PARAMS, name, "bench"), **{**small, **changes})


def write_small(root, scene, **changes):
    """Write a small dataset; return its root, its configuration and its training scenes."""
    dataset = config(scene, **changes)
    write_generated(root, config=dataset, name="made", seed=SEED, workers=1)
    return root, dataset, list_scenes(root, "train", dataset, None)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("index", range(3))
def test_all_solids_at_once_are_seen_as_one_after_the_other(style, index, monkeypatch):
    rng = np.random.default_rng([SEED, index])
    scene = random_ground_scene(style, rng)
    poses = look_at_origin(camera_positions(rng, 2, (8.0, 12.0), (15.0, 70.0)))
    rays = pixel_rays(pinhole(1.1, 1.0, 40, 56).expand(2, 3, 3), poses, 40, 56)

    # One after the other: the plain ray caster, with the solids in a list.
    solids = [solid for solids_of_object in scene.objects for solid in solids_of_object]
    solids.append(scene.ground)
    expected = render(solids, scene.light, *rays).int()

    # All at once, in several groups of rays. Rounding decides where two solids meet.
    table = SolidTable(solids, torch.device("cpu"))
    distances, owners = first_hits(solids, *rays)
    monkeypatch.setattr(raycaster_gpu, "PAIRS", 50_000)
    table_distances, table_owners = first_hits(table, *rays)
    order = sorted(range(len(solids)), key=lambda i: raycaster_gpu.SHAPES.index(solids[i].shape))
    owners_in_list = torch.tensor(order)[table_owners.long()]
    same = torch.where(table_owners < 0, -1, owners_in_list) == owners
    assert same.float().mean() > 0.999
    torch.testing.assert_close(table_distances[same], distances[same], rtol=1e-4, atol=1e-4)

    # The pictures show the same.
    pictures = render(table, scene.light, *rays).int()
    assert expected.float().std() > 10
    assert ((pictures - expected).abs().amax(dim=1) > 1).float().mean() < 1e-3


def test_nmrs_objects_are_those_of_its_raw_layout(tmp_path):
    root, dataset, scenes = write_small(tmp_path / "recipe", "object")
    raw = tmp_path / "raw"
    write_nmr(raw, config=dataset, name="nmr", seed=SEED, workers=1)
    for info in scenes:
        scene = read_scene(root, info, dataset)
        for view, image in enumerate(scene.images):
            path = raw / info.name / "image" / f"{view:04d}.png"
            np.testing.assert_array_equal(image, np.asarray(Image.open(path)))

    # The test scenes have the source views that the raw layout lists.
    lines = [line.split() for line in (raw / "src_dvr.txt").read_text().splitlines()]
    sources = {f"{class_id}/{name}": int(view) for class_id, name, view in lines}
    tests = list_scenes(root, "test", dataset, None)
    assert {info.name: info.source_view for info in tests} == sources


def test_objects_of_one_class_stand_together_so_that_a_few_spread_evenly_are_of_all(tmp_path):
    counts = SyntheticConfig(scene="object", train=1, val=1, test=64)
    root, dataset, _ = write_small(tmp_path, "object", synthetic=counts)
    scenes = list_scenes(root, "test", dataset, None)
    assert len({info.class_name for info in scenes[::16]}) == 4
    assert [info.class_name for info in scenes] == sorted(
        (info.class_name for info in scenes), key=["chair", "car", "lamp", "airplane"].index
    )


def test_cameras_anywhere_are_at_one_distance_and_see_the_object(tmp_path):
    root, dataset, scenes = write_small(tmp_path, "object_anywhere", views=60)
    poses = np.concatenate([read_scene(root, info, dataset).camera_to_world for info in scenes])
    positions, ahead = poses[:, :3, 3], poses[:, :3, 2]
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), DISTANCE, rtol=1e-6)
    np.testing.assert_allclose(ahead, -positions / DISTANCE, atol=1e-6)
    elevation = np.degrees(np.arcsin(positions[:, 2] / DISTANCE))
    assert 0 <= elevation.min() < 5
    assert HIGHEST - 5 < elevation.max() <= HIGHEST


@pytest.mark.parametrize("scene", ["object_anywhere", "clutter"])
def test_a_scene_depends_on_nothing_but_its_key(tmp_path, scene):
    root, dataset, scenes = write_small(tmp_path / "made", scene)
    first, second = (read_scene(root, scenes[number], dataset) for number in (0, 4))
    again = read_scene(
        root, scenes[0], dataclasses.replace(dataset, synthetic=config(scene).synthetic)
    )
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.images, second.images)
    other = tmp_path / "other"
    write_generated(other, config=dataset, name="made", seed=SEED + 1, workers=1)
    assert not np.array_equal(read_scene(other, scenes[0], dataset).images, first.images)


def test_it_packs_and_reads_like_every_dataset(tmp_path):
    root, dataset, scenes = write_small(tmp_path / "raw", "objects", storage="raw")
    out = tmp_path / "packed"
    pack(root, None, dataset, out, provenance={"source": "synthetic"}, workers=1)
    packed = Scenes(out / "train", torch.device("cpu"))
    assert packed.names == [info.name for info in scenes]
    raw: RawScene = read_scene(root, scenes[2], dataset)
    images = packed.disk._shards[0][2]
    np.testing.assert_array_equal(images, raw.images)
    poses = packed.cameras(torch.tensor([2]))[1][0]
    torch.testing.assert_close(poses, torch.from_numpy(raw.camera_to_world).float())
    assert json.loads((out / "manifest.json").read_text())["scenes"]["test"] == 3


def test_scenes_of_two_datasets_differ():
    keys = [SceneKey(seed=SEED, dataset=name, split="train", index=0) for name in ("msn", "other")]
    scenes = [random_ground_scene("objects", key.generator()) for key in keys]
    assert scenes[0].objects[0][0].to_world.tolist() != scenes[1].objects[0][0].to_world.tolist()


@pytest.mark.parametrize(
    ("gpus", "number", "expected"), [(0, 7, "cpu"), (1, 7, "cuda:0"), (4, 7, "cuda:3")]
)
def test_processes_share_out_the_gpus_by_their_numbers(monkeypatch, gpus, number, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "getpid", lambda: number)
    assert str(shared_device()) == expected
