"""The warped input, which is exact if the world is a plane that faces the input's camera."""

import numpy as np
import pytest
import torch
from support import small_packed
from support.tiny_training import ALONE, CPU, tiny_experiment

from srt.data.batch import ViewConfig
from srt.data.packed.reader import Scenes
from srt.evaluation.baselines import warp_nearest_view
from srt.evaluation.evaluator import evaluate_items
from srt.evaluation.protocols import Item
from srt.geometry.cameras import camera_rays, look_at, pinhole
from srt.model.srt import build_model

SIZE = 32
INTRINSICS = pinhole(1.5, 1.0, SIZE, SIZE)
SOURCE = look_at(torch.tensor([2.0, 0.5, 1.0]).double(), torch.zeros(3).double())

# Positions near the source camera, and that of the source camera itself.
AROUND = [[2.2, 0.1, 0.8], [1.8, 1.2, 0.9], [1.9, 0.4, 1.7], [2.0, 0.5, 1.0]]


def cameras(positions):
    """Return the intrinsics and poses of cameras that look at the origin."""
    poses = look_at(torch.tensor(positions).double(), torch.zeros(len(positions), 3).double())
    return INTRINSICS.expand(len(positions), 3, 3), poses


def render_plane(intrinsics, poses):
    """Return images of a plane through the origin that faces SOURCE.

    Its colours change linearly, so that an interpolation between pixels is exact.
    """
    # Intersect the rays with the plane.
    origins, directions = camera_rays(intrinsics, poses, SIZE, SIZE)
    right, down, forward = SOURCE[:3, :3].unbind(dim=-1)
    origins = origins[:, None, None]
    along = -(origins @ forward) / (directions @ forward)
    points = origins + along[..., None] * directions

    # Colour the points by their coordinates on the plane.
    u, v = points @ right, points @ down
    return torch.stack((0.5 + 0.6 * u, 0.5 + 0.6 * v, 0.5 + 0.4 * (u - v)), dim=-1)


def warp(image, positions):
    """Return the warps of SOURCE's image to cameras at these positions."""
    count = len(positions)
    sources = INTRINSICS.expand(count, 3, 3), SOURCE.expand(count, 4, 4)
    return warp_nearest_view(image.expand(count, SIZE, SIZE, 3), sources, cameras(positions))


def test_a_warped_plane_equals_its_render():
    image = render_plane(INTRINSICS[None], SOURCE[None])
    warped, expected = warp(image, AROUND), render_plane(*cameras(AROUND))

    # The image shows everything that is in the inner pixels of the targets.
    inner = (slice(None), slice(10, -10), slice(10, -10))
    torch.testing.assert_close(warped[inner], expected[inner], atol=1e-9, rtol=0)

    # A copy of the image would be wrong.
    assert (image.expand_as(expected)[inner] - expected[inner]).abs().max() > 0.03


def test_the_source_camera_sees_the_image_itself():
    image = torch.rand(1, SIZE, SIZE, 3).double()
    torch.testing.assert_close(warp(image, [SOURCE[:3, 3].tolist()]), image, atol=1e-9, rtol=0)


def test_a_camera_behind_the_plane_sees_the_image_mirrored():
    image = torch.rand(1, SIZE, SIZE, 3).double()
    horizontal = look_at(torch.tensor([2.0, 0.0, 0.0]).double(), torch.zeros(3).double())
    source = INTRINSICS[None], horizontal[None]
    warped = warp_nearest_view(image, source, cameras([[-2.0, 0.0, 0.0]]))
    torch.testing.assert_close(warped, image.flip(2), atol=1e-9, rtol=0)


def test_pixels_outside_the_image_have_the_mean_colour_of_its_edge():
    image = torch.rand(1, SIZE, SIZE, 3).double()
    edge = torch.ones(SIZE, SIZE, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    edge_colour = image[0, edge].mean(dim=0)

    # From far away, the image fills only the middle.
    warped = warp(image, [(4 * SOURCE[:3, 3]).tolist()])
    for row, column in ((0, 0), (SIZE - 1, SIZE // 2)):
        torch.testing.assert_close(warped[0, row, column], edge_colour)
    assert (warped[0, SIZE // 2, SIZE // 2] - edge_colour).abs().max() > 1e-3


def test_a_camera_that_looks_away_from_the_plane_sees_none_of_it():
    image = torch.rand(1, SIZE, SIZE, 3).double()
    away = look_at(torch.tensor([2.0, 0.5, 1.0]), torch.tensor([4.0, 1.0, 2.0])).double()
    source = INTRINSICS[None], SOURCE[None]
    warped = warp_nearest_view(image, source, (INTRINSICS[None], away[None]))
    torch.testing.assert_close(warped, warped[:, :1, :1].expand_as(warped))  # one colour


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_the_warped_input_of_a_plane_is_measured_as_nearly_exact(tmp_path, protocol):
    # The target cameras are nearer than the source camera, which shows all that they see.
    positions = [SOURCE[:3, 3].tolist()]
    positions += [(0.7 * torch.tensor(position)).tolist() for position in AROUND[:3]]
    intrinsics, poses = cameras(positions)
    images = (render_plane(intrinsics, poses) * 255).round().clamp(0, 255).numpy().astype(np.uint8)
    small_packed.write_split(
        tmp_path / "test", images[None], intrinsics[None], poses[None], names=["a"]
    )
    view_config = ViewConfig(
        canonical=True, input_views=1, input_stride=1, all_targets=False, near=0.5, far=4.0
    )
    (row,) = evaluate_items(
        build_model(tiny_experiment(tmp_path).model, seed=0).eval(),
        Scenes(tmp_path / "test", CPU),
        [Item(0, (0,))],
        protocol,
        mean_colour=(0.5, 0.5, 0.5),
        lpips=None,
        view_config=view_config,
        rays_per_group=100,
        processes=ALONE,
    )
    assert row.baselines.warped_input.psnr > 45  # images of 8 bits allow no exact result
    assert row.baselines.input_view.psnr < 30
