"""Camera motions: equality with the published renderer, and properties of each motion."""

import numpy as np
import pytest
import torch
from support.paths import REFERENCE

from srt.geometry.cameras import camera_rays, look_at, pinhole
from srt.rendering.trajectories import MOTIONS, camera_path, fade

# Written by the published code: positions and rays of each motion at some times.
PUBLISHED = np.load(REFERENCE / "motions.npz")
POSITION = torch.tensor(PUBLISHED["motion_camera0"])
TIMES = torch.tensor(PUBLISHED["motion_t"])


@pytest.mark.parametrize("motion", MOTIONS)
def test_positions_and_rays_are_the_published_ones(motion):
    trajectory = MOTIONS[motion](POSITION, TIMES)
    intrinsics = pinhole(0.035, 0.032, height=6, width=8).repeat(len(TIMES), 1, 1)
    intrinsics[:, :2, :2] *= trajectory.focal_scale[:, None, None]
    poses = look_at(trajectory.positions, trajectory.targets)
    origins, directions = camera_rays(intrinsics, poses, height=6, width=8)
    np.testing.assert_allclose(origins, PUBLISHED[f"motion_{motion}_pos"], atol=1e-5)
    np.testing.assert_allclose(directions, PUBLISHED[f"motion_{motion}_rays"], atol=1e-5)


def test_fade_is_the_published_one():
    np.testing.assert_allclose(fade(TIMES), PUBLISHED["fade_t"], atol=1e-12)


@pytest.mark.parametrize("motion", MOTIONS)
def test_poses_are_rigid_and_single_precision_is_enough(motion):
    poses, focal_scale = camera_path(motion, POSITION.float(), frames=40, with_fade=True)
    assert poses.dtype == focal_scale.dtype == torch.float32

    # A rotation is orthogonal, and its determinant is 1.
    rotations = poses[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(40, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(40))
    torch.testing.assert_close(poses[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(40, 4))


@pytest.mark.parametrize("motion", ["rotate", "rotate_and_closeup", "eyeroll"])
def test_a_motion_that_goes_around_ends_where_it_starts(motion):
    start_and_end = torch.tensor([0.0, 1.0], dtype=torch.float64)
    positions, targets, _ = MOTIONS[motion](POSITION, start_and_end)
    torch.testing.assert_close(positions[0], positions[1])
    torch.testing.assert_close(targets[0], targets[1])


def test_only_zoom_changes_the_focal_length_and_makes_it_five_times_as_long():
    for name, motion in MOTIONS.items():
        scale = motion(POSITION, TIMES).focal_scale
        torch.testing.assert_close(scale[-1].item(), 5.0 if name == "zoom" else 1.0)


def test_frames_divide_the_time_without_its_end():
    poses, _ = camera_path("rotate", POSITION, frames=8, with_fade=False)
    expected = MOTIONS["rotate"](POSITION, TIMES[:8]).positions  # eighths, from 0 on
    torch.testing.assert_close(poses[:, :3, 3], expected)


def test_an_unknown_motion_is_refused_with_the_names_of_all_motions():
    with pytest.raises(ValueError, match=r"'spin'.*rotate, zoom, closeup"):
        camera_path("spin", POSITION, frames=8, with_fade=False)


def test_a_camera_straight_above_the_origin_is_refused():
    with pytest.raises(ValueError, match="roll is not defined"):
        camera_path("rotate", torch.tensor([0.0, 0.0, 3.0]), frames=8, with_fade=False)
