"""Representations follow the cameras: products, inverses, the place of each token."""

import pytest
import torch
from support.random_cameras import (
    random_cameras,
    random_intrinsics,
    random_numbers,
    random_poses,
)

from srt.geometry.camera_channels import GtaChannels, PropeChannels
from srt.geometry.cameras import rigid_inverse
from srt.geometry.token_cameras import (
    TokenCameras,
    intrinsics_inverse,
    normalise_intrinsics,
    patch_cameras,
)

SCHEMES = {
    "gta": GtaChannels(16, 0, 16),
    "gta_so3": GtaChannels(8, 16, 8),
    "prope": PropeChannels(head_dim=32, rows=4, columns=5),
}

# The columns of the identity, each as a head of its own, for two scenes of seven tokens.
COLUMNS = torch.eye(32).double().expand(2, 7, 32, 32)


@pytest.fixture(params=SCHEMES)
def channels(request):
    return SCHEMES[request.param]


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def output_matrices(representation):
    """Return the matrix ρ of each token (b, n, 32, 32), for two scenes of seven tokens."""
    return representation.transform_output(COLUMNS).mT


def relations(representation):
    """Return ρ_i ρ_j⁻¹ of each pair of tokens (b, n, n, 32, 32)."""
    inverse = representation.transform_keys(COLUMNS).mT
    return output_matrices(representation)[:, :, None] @ inverse[:, None]


def test_the_inverse_undoes_and_queries_have_the_transpose(channels):
    representation = channels.represent(random_cameras(3, 7, seed=1))
    matrices = output_matrices(representation)
    assert_equal(representation.transform_keys(COLUMNS).mT @ matrices, COLUMNS)
    assert_equal(representation.transform_queries(COLUMNS).mT, matrices.mT)


def test_all_heads_and_copies_have_the_same_matrices():
    representation = GtaChannels(16, 16, 0).represent(random_cameras(3, 7, seed=1))
    vectors = random_numbers(2, 7, 1, 4, seed=2).repeat(1, 1, 3, 8)
    turned = representation.transform_output(vectors)  # (b, n, 3, 32)
    assert_equal(turned, turned[:, :, :1].expand_as(turned))
    assert_equal(turned[..., :4], turned[..., 12:16])


def test_the_block_diagonal_matrix_is_that_of_the_tokens_camera():
    cameras = random_cameras(3, 7, seed=1)
    matrices = output_matrices(GtaChannels(32, 0, 0).represent(cameras))
    for scene in range(2):
        for token, view in enumerate(cameras.view_index[scene]):
            pose = cameras.world_to_camera[scene, view]
            assert_equal(matrices[scene, token], torch.block_diag(*[pose] * 8))


def test_a_motion_of_the_world_changes_no_relation(channels):
    cameras, motion = random_cameras(3, 7, seed=1), random_poses(2, 1, seed=5)
    moved = cameras._replace(world_to_camera=cameras.world_to_camera @ motion)
    assert_equal(relations(channels.represent(moved)), relations(channels.represent(cameras)))


def test_only_differences_of_positions_in_the_image_count(channels):
    cameras = random_cameras(3, 7, seed=1)
    moved = cameras._replace(coordinates=cameras.coordinates + 0.3)
    assert_equal(relations(channels.represent(moved)), relations(channels.represent(cameras)))


def test_a_scale_multiplies_translations_and_keeps_inverses(channels):
    cameras, scale = random_cameras(3, 7, seed=1), torch.tensor(0.01).double()
    scaled = cameras._replace(world_to_camera=cameras.world_to_camera.clone())
    scaled.world_to_camera[..., :3, 3] *= scale
    vectors = random_numbers(2, 7, 2, 32, seed=2)
    expected = channels.represent(scaled)
    actual = channels.represent(cameras).scale_translations(scale)
    assert_equal(actual.transform_queries(vectors), expected.transform_queries(vectors))
    assert_equal(actual.transform_keys(vectors), expected.transform_keys(vectors))
    assert_equal(actual.transform_output(vectors), expected.transform_output(vectors))


def test_prope_with_the_identity_as_intrinsics_is_gtas_rigid_part():
    cameras, vectors = random_cameras(3, 7, seed=1), random_numbers(2, 7, 2, 32, seed=2)
    identity = torch.eye(3).double().expand(2, 3, 3, 3)
    gta = GtaChannels(16, 0, 16).represent(cameras)
    without = PropeChannels(32, 4, 5).represent(cameras._replace(normalised_intrinsics=None))
    prope = PropeChannels(32, 4, 5).represent(cameras._replace(normalised_intrinsics=identity))
    for transform in ("transform_queries", "transform_keys", "transform_output"):
        expected = getattr(gta, transform)(vectors)[..., :16]
        assert torch.equal(getattr(prope, transform)(vectors)[..., :16], expected)
        assert torch.equal(getattr(without, transform)(vectors)[..., :16], expected)


def test_bfloat16_vectors_are_multiplied_in_float32_even_under_autocast():
    cameras, vectors = random_cameras(3, 7, seed=1), random_numbers(2, 7, 2, 32, seed=2)
    low = vectors.bfloat16()
    single = cameras._replace(
        world_to_camera=cameras.world_to_camera.float(),
        coordinates=cameras.coordinates.float(),
        normalised_intrinsics=cameras.normalised_intrinsics.float(),
    )
    for channels in SCHEMES.values():
        exact = channels.represent(cameras).transform_keys(low.double())
        with torch.autocast("cpu", torch.bfloat16):
            turned = channels.represent(single).transform_keys(low)
        assert turned.dtype == torch.bfloat16
        # Half a unit in the last of eight digits, and what float32 loses.
        difference = (turned.double() - exact).abs()
        assert (difference <= exact.abs() * 2**-8 * 1.01 + 1e-4).all()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((18, 0, 8), "rigid is 18 channels; make it a multiple of 4"),
        ((16, 12, 8), "rotation is 12 channels; make it a multiple of 8"),
        ((16, 0, 6), "image is 6 channels; make it a multiple of 4"),
        ((16, 0, -4), "image is -4 channels"),
        ((0, 8, 8), "rigid is 0; give SE.3. at least 4"),
    ],
)
def test_channels_that_no_copy_fits_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        GtaChannels(*numbers)


def test_prope_needs_a_multiple_of_eight_channels():
    with pytest.raises(ValueError, match="head_dim is 36; make it a multiple of 8"):
        PropeChannels(36, 4, 4)


def test_patches_come_view_by_view_and_row_by_row_with_their_centres():
    cameras = patch_cameras(random_poses(1, 2, seed=1), rows=2, columns=3)
    assert cameras.view_index.tolist() == [[0] * 6 + [1] * 6]
    rows, columns = cameras.coordinates[0, 6:].unbind(-1)
    assert_equal(rows, torch.tensor([1, 1, 1, 3, 3, 3]).double() / 4)
    assert_equal(columns, torch.tensor([1, 3, 5, 1, 3, 5]).double() / 6)


def test_groups_of_tokens_are_all_tokens_in_their_order():
    cameras = random_cameras(3, 7, seed=1)
    groups = list(cameras.split(3))
    assert [group.view_index.shape[1] for group in groups] == [3, 3, 1]
    assert torch.equal(torch.cat([group.view_index for group in groups], 1), cameras.view_index)
    assert torch.equal(torch.cat([group.coordinates for group in groups], 1), cameras.coordinates)
    assert all(group.world_to_camera is cameras.world_to_camera for group in groups)


def test_each_token_gets_the_matrix_of_its_camera():
    cameras = TokenCameras(
        random_poses(1, 3, seed=1), torch.tensor([[2, 0, 2]]), torch.zeros(1, 3, 2)
    )
    chosen = cameras.matrices_of_tokens(cameras.world_to_camera)
    assert torch.equal(chosen, cameras.world_to_camera[:, [2, 0, 2]])


def test_normalised_intrinsics_take_the_corners_of_the_image_to_halves():
    intrinsics = torch.tensor([[50.0, 0, 30], [0, 60, 20], [0, 0, 1]]).double()
    normalised = normalise_intrinsics(intrinsics, height=48, width=64)
    corners = torch.tensor([[0.0, 64], [0, 48], [1, 1]]).double()  # in pixels
    points = intrinsics.inverse() @ corners
    expected = torch.tensor([[-0.5, 0.5], [-0.5, 0.5], [1, 1]]).double()
    assert_equal(normalised @ points, expected)


def test_the_inverse_of_intrinsics_undoes_them():
    intrinsics = random_intrinsics(4, seed=1)
    assert_equal(intrinsics_inverse(intrinsics) @ intrinsics, torch.eye(3).double().expand(4, 3, 3))


def test_rigid_inverse_undoes_poses_with_translations():
    poses = random_poses(4, seed=1)
    assert_equal(rigid_inverse(poses) @ poses, torch.eye(4).double().expand(4, 4, 4))
