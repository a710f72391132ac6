"""Cameras and rays: the promises of the conventions, and equality with the published geometry."""

import numpy as np
import pytest
import torch
from support.paths import REFERENCE

from srt.geometry.cameras import (
    camera_rays,
    look_at,
    pinhole,
    pixel_directions,
    resize_intrinsics,
    rigid_inverse,
)

# Written by the published code: five camera positions and what it computes for them.
PUBLISHED = np.load(REFERENCE / "geometry.npz")
POSITIONS = torch.tensor(PUBLISHED["camera_pos"])
TARGETS = torch.tensor([[0.5, -0.3, 0.2]], dtype=torch.float64).expand_as(POSITIONS)

# Intrinsics whose focal lengths differ and whose centre is not the middle of the image.
UNEQUAL = torch.tensor([[21.0, 0, 11.5], [0, 34.0, 9.25], [0, 0, 1]], dtype=torch.float64)


def project(intrinsics, camera_to_world, points):
    """Return column, row and depth of points in a camera, computed by general matrix algebra."""
    world = torch.cat((points, torch.ones_like(points[..., :1])), dim=-1)
    camera = (camera_to_world.inverse() @ world[..., None])[..., :3, :]
    pixels = intrinsics @ camera  # (..., 3, 1)
    return torch.cat((pixels[..., :2, 0] / pixels[..., 2:, 0], pixels[..., 2:, 0]), dim=-1)


def test_rays_have_unit_length_and_pass_in_front_of_the_camera_through_pixel_centres():
    poses = look_at(POSITIONS, TARGETS)
    origins, directions = camera_rays(UNEQUAL.expand(5, 3, 3), poses, height=16, width=24)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones_like(directions[..., 0]))

    # A point anywhere on a ray is projected to the ray's pixel.
    points = origins[:, None, None] + 7.5 * directions
    projected = project(UNEQUAL, poses[:, None, None], points)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    torch.testing.assert_close(projected[..., 0], (columns + 0.5).double().expand(5, 16, 24))
    torch.testing.assert_close(projected[..., 1], (rows + 0.5).double().expand(5, 16, 24))
    assert (projected[..., 2] > 0).all()


def test_the_ray_of_a_single_pixel_is_that_of_the_whole_image():
    poses = look_at(POSITIONS, TARGETS)
    directions = camera_rays(UNEQUAL.expand(5, 3, 3), poses, height=16, width=24)[1]
    rows, columns = torch.tensor([0, 15, 3, 7, 9]), torch.tensor([23, 0, 4, 5, 20])
    single = pixel_directions(UNEQUAL.expand(5, 3, 3), poses, rows, columns)
    torch.testing.assert_close(single, directions[torch.arange(5), rows, columns])


def test_look_at_shows_its_target_in_the_middle_and_the_vertical_upright():
    poses = look_at(POSITIONS, TARGETS)
    torch.testing.assert_close(poses[:, :3, 3], POSITIONS)

    # Project the target, and a point straight above it.
    above = TARGETS + torch.tensor([0, 0, 0.1], dtype=torch.float64)
    middle, upper = project(UNEQUAL, poses, TARGETS), project(UNEQUAL, poses, above)
    torch.testing.assert_close(middle[:, :2], UNEQUAL[:2, 2].expand(5, 2))
    torch.testing.assert_close(middle[:, 2], (TARGETS - POSITIONS).norm(dim=-1))
    torch.testing.assert_close(upper[:, 0], middle[:, 0])  # no roll
    assert (upper[:, 1] < middle[:, 1]).all()  # row 0 is at the top


def test_look_at_is_a_rotation_and_a_translation():
    poses = look_at(POSITIONS, TARGETS)
    rotations = poses[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).double().expand(5, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(5).double())
    torch.testing.assert_close(poses[:, 3], torch.tensor([0.0, 0, 0, 1]).double().expand(5, 4))


@pytest.mark.parametrize("height", [2.0, -2.0, 0.0])
def test_a_camera_straight_above_below_or_at_its_target_is_refused_by_its_position(height):
    positions = torch.tensor([[3.0, 0, 1], [0.25, 0.5, height]])
    targets = torch.tensor([[0.0, 0, 0], [0.25, 0.5, 0]])
    with pytest.raises(ValueError, match=rf"\[0\.25, 0\.5, {height}\].*roll is not defined"):
        look_at(positions, targets)


def test_rigid_inverse_is_the_inverse():
    poses = look_at(POSITIONS, TARGETS)
    torch.testing.assert_close(rigid_inverse(poses), torch.linalg.inv(poses))
    torch.testing.assert_close(rigid_inverse(rigid_inverse(poses)), poses)


def corner_directions(intrinsics, rows, columns):
    """Return the directions of points of the image plane, in pixels from its upper left corner."""
    # A pixel's centre is its index + 0.5.
    pose = torch.eye(4, dtype=torch.float64).expand(*rows.shape, 4, 4)
    return pixel_directions(intrinsics.expand(*rows.shape, 3, 3), pose, rows - 0.5, columns - 0.5)


@pytest.mark.parametrize("new_size", [(48, 72), (4, 6), (16, 48), (40, 24), (16, 24), (33, 50)])
def test_resized_cameras_show_the_same_width_and_the_same_middle(new_size):
    """A point of the image keeps its direction, and rows change as much above as below."""
    height, width = 16, 24
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.rand(2, 50, generator=generator, dtype=torch.float64) * 16
    expected = corner_directions(UNEQUAL, rows, columns)

    # The same points in the resized image.
    scale = new_size[1] / width
    new_rows, new_columns = (rows - height / 2) * scale + new_size[0] / 2, columns * scale
    resized = resize_intrinsics(UNEQUAL, (height, width), new_size)
    torch.testing.assert_close(corner_directions(resized, new_rows, new_columns), expected)


def test_resizing_does_not_change_its_argument():
    original = UNEQUAL.clone()
    resize_intrinsics(UNEQUAL, (16, 24), (32, 48))
    torch.testing.assert_close(UNEQUAL, original, rtol=0, atol=0)


def test_a_pinhole_sees_the_width_of_its_sensor_across_the_image_and_square_pixels():
    intrinsics = pinhole(0.035, 0.032, height=12, width=16)
    edges = torch.tensor([0.0, 16]).double()
    left_edge, right_edge = corner_directions(intrinsics, torch.tensor([6.0, 6]).double(), edges)
    half_width = torch.tensor(0.016 / 0.035).double()
    torch.testing.assert_close(left_edge[0] / left_edge[2], -half_width)
    torch.testing.assert_close(right_edge[0] / right_edge[2], half_width)
    assert intrinsics[0, 0] == intrinsics[1, 1]


def test_poses_are_the_published_ones():
    poses = look_at(POSITIONS, torch.zeros_like(POSITIONS))
    world_to_camera = PUBLISHED["extrinsic_look_at_origin"]
    np.testing.assert_allclose(rigid_inverse(poses), world_to_camera, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "size", "sensor_width", "target"),
    [
        ("rays_12x16_f35_s32", (12, 16), 0.032, (0, 0, 0)),
        ("rays_6x8_sensor_0064", (6, 8), 0.0064, (0, 0, 0)),
        ("rays_6x8_track", (6, 8), 0.032, (0.3, -0.2, 0.1)),
    ],
)
def test_rays_are_the_published_ones(name, size, sensor_width, target):
    poses = look_at(POSITIONS, torch.tensor(target).double().expand(5, 3))
    intrinsics = pinhole(0.035, sensor_width, *size).expand(5, 3, 3)
    origins, directions = camera_rays(intrinsics, poses, *size)
    np.testing.assert_array_equal(origins, POSITIONS)

    # The reference file holds float32 numbers.
    np.testing.assert_allclose(directions, PUBLISHED[name], rtol=0, atol=1e-7)
