"""The statistics and pictures of a packed dataset."""

import math

import numpy as np
import pytest
import torch
from support.small_packed import write_split

from srt.data.packed.reader import Scenes, read_split_header
from srt.geometry.cameras import look_at, pinhole
from srt.report.dataset_summary import camera_figure, camera_ranges, contact_sheet, split_summary

CPU = torch.device("cpu")
SCENES, VIEWS, SIZE = 5, 3, 8
DISTANCES = 2 + torch.arange(SCENES * VIEWS, dtype=torch.float64)  # of all cameras, from the origin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a split of two classes, whose cameras look at the origin from 45 degrees above."""
    # Each camera has a distance of its own, and a random direction.
    azimuth = torch.rand(SCENES, VIEWS, dtype=torch.float64) * 6
    directions = torch.stack((azimuth.cos(), azimuth.sin(), torch.ones_like(azimuth)), dim=-1)
    positions = DISTANCES.view(SCENES, VIEWS, 1) * directions / math.sqrt(2)

    # A focal length of half the image's width makes a field of view of 90 degrees.
    poses = look_at(positions, torch.zeros_like(positions))
    intrinsics = pinhole(1.0, 2.0, SIZE, SIZE).expand(SCENES, VIEWS, 3, 3)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (SCENES, VIEWS, SIZE, SIZE, 3), dtype=np.uint8)
    target = tmp_path_factory.mktemp("packed") / "train"
    return write_split(target, images, intrinsics, poses, classes=("cube", "ball"))


def test_counts_and_camera_ranges_are_those_of_the_scenes(folder):
    summary = split_summary(Scenes(folder, CPU), read_split_header(folder))
    assert (summary.scenes, summary.views, summary.image_size) == (5, 3, (8, 8))
    assert summary.classes == {"ball": 2, "cube": 3}
    assert summary.uncompressed_bytes == 5 * 3 * 8 * 8 * 3

    # The smallest, the median and the largest value.
    ranges = summary.cameras
    assert ranges.distance_to_origin == pytest.approx([2, 9, 16], abs=1e-3)
    assert ranges.elevation_degrees == pytest.approx([45] * 3, abs=1e-2)
    assert ranges.angle_off_origin_degrees == pytest.approx([0] * 3, abs=0.1)
    assert ranges.field_of_view_degrees == pytest.approx([90] * 3, abs=1e-2)


def test_camera_ranges_do_not_depend_on_the_size_of_a_block(folder, monkeypatch):
    ranges = camera_ranges(Scenes(folder, CPU))
    monkeypatch.setattr("srt.report.dataset_summary.SCENES_PER_BLOCK", 2)
    assert camera_ranges(Scenes(folder, CPU)) == ranges


def test_a_contact_sheet_grows_by_the_rows_of_each_split(folder):
    scenes = Scenes(folder, CPU)
    one_split = contact_sheet({"a": scenes})
    two_splits = contact_sheet({"a": scenes, "b": scenes})
    assert two_splits.shape[1] == one_split.shape[1]
    assert 1.8 * one_split.shape[0] < two_splits.shape[0] < 2 * one_split.shape[0]
    assert (one_split[: one_split.shape[0] // 3] != one_split[0, 0]).any()


def test_the_camera_figure_is_not_blank(folder):
    scenes = Scenes(folder, CPU)
    figure = camera_figure({"train": scenes, "val": scenes}, "cubes")
    colours = {tuple(colour) for colour in figure.reshape(-1, 3)[::7].tolist()}
    assert len(colours) > 20
