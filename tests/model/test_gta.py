"""GTA's model depends on relative cameras, and on nothing else of the cameras."""

import pytest
import torch
from support.gta_records import (
    CHANNELS,
    build_pair,
    decode,
    target_rays,
)
from support.random_cameras import (
    random_cameras,
    random_intrinsics,
    random_numbers,
    random_poses,
)

from srt.geometry.camera_channels import PropeChannels
from srt.geometry.cameras import rigid_inverse

SCHEMES = {
    **CHANNELS,
    "prope": PropeChannels(head_dim=32, rows=2, columns=3),
}


@pytest.fixture(params=SCHEMES)
def model(request):
    """A small model with PyTorch's initial weights, for each kind of representation."""
    return build_pair(channels=SCHEMES[request.param])


class Inputs:
    """Two scenes of three input views of 16 x 24 pixels, and ten rays of two target views."""

    def __init__(self, distance=3.0):
        self.images = random_numbers(2, 3, 16, 24, 3, seed=1).sigmoid()
        self.world_to_camera = random_poses(2, 3, seed=2, distance=distance)
        self.intrinsics = random_intrinsics(2, 3, seed=3)
        self.targets = random_cameras(2, 10, seed=4, distance=distance)

    def move_world(self, motion):
        """Give the world other coordinates."""
        self.world_to_camera = self.world_to_camera @ motion
        self.targets = self.targets._replace(world_to_camera=self.targets.world_to_camera @ motion)
        return self

    def colours(self, model):
        rays = target_rays(self.targets)
        return decode(model, self.images, self.world_to_camera, rays, self.intrinsics)[1]


def assert_equal(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def largest_change(actual, expected):
    return (actual - expected).abs().max().item()


def test_a_rigid_motion_of_the_world_changes_no_colour(model):
    moved = Inputs().move_world(random_poses(1, 1, seed=9))
    assert_equal(moved.colours(model), Inputs().colours(model))


def test_the_first_input_camera_can_be_the_world(model):
    first = Inputs().world_to_camera[:, :1]
    moved = Inputs().move_world(rigid_inverse(first))
    assert_equal(moved.colours(model), Inputs().colours(model))


@pytest.mark.parametrize("view", [0, 1, 2])
def test_a_motion_of_a_single_input_camera_changes_the_colours(model, view):
    inputs = Inputs()
    inputs.world_to_camera[:, view] @= random_poses(1, seed=9)
    assert largest_change(inputs.colours(model), Inputs().colours(model)) > 1e-7


def test_a_motion_of_a_target_camera_changes_the_colours_of_its_rays_only(model):
    inputs = Inputs()
    inputs.targets.world_to_camera[:, 1] @= random_poses(1, seed=9)
    change = (inputs.colours(model) - Inputs().colours(model)).abs().amax(-1)  # (b, r)
    moved = inputs.targets.view_index == 1
    assert change[moved].min() > 1e-7
    assert change[~moved].max() < 1e-12


def test_camera_to_world_in_place_of_world_to_camera_depends_on_the_world(model):
    # The mistake that a test with rotations alone would not notice.
    def mistaken(inputs):
        inputs.world_to_camera = rigid_inverse(inputs.world_to_camera)
        poses = rigid_inverse(inputs.targets.world_to_camera)
        inputs.targets = inputs.targets._replace(world_to_camera=poses)
        return inputs.colours(model)

    moved = Inputs().move_world(random_poses(1, 1, seed=9))
    assert largest_change(mistaken(moved), mistaken(Inputs())) > 1e-7


def test_a_mirrored_world_looks_different(model):
    # A reflection is no rigid motion, although it keeps all distances.
    inputs = Inputs()
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    inputs.world_to_camera = mirror @ inputs.world_to_camera @ mirror
    targets = mirror @ inputs.targets.world_to_camera @ mirror
    inputs.targets = inputs.targets._replace(world_to_camera=targets)
    assert largest_change(inputs.colours(model), Inputs().colours(model)) > 1e-7


def test_the_order_of_input_views_changes_no_colour(model):
    inputs, order = Inputs(), [2, 0, 1]
    inputs.images = inputs.images[:, order]
    inputs.world_to_camera = inputs.world_to_camera[:, order]
    inputs.intrinsics = inputs.intrinsics[:, order]
    assert_equal(inputs.colours(model), Inputs().colours(model))


def test_images_with_exchanged_cameras_give_other_colours(model):
    inputs = Inputs()
    inputs.images = inputs.images[:, [1, 0, 2]]
    assert largest_change(inputs.colours(model), Inputs().colours(model)) > 1e-7


def test_a_rays_position_in_its_image_changes_its_colour(model):
    inputs = Inputs()
    inputs.targets = inputs.targets._replace(coordinates=inputs.targets.coordinates.flip(-1))
    assert largest_change(inputs.colours(model), Inputs().colours(model)) > 1e-7


@pytest.mark.parametrize("size", [1, 3, 10])
def test_any_groups_of_rays_give_the_same_colours_and_gradients(model, size):
    inputs, weights = Inputs(), random_numbers(2, 10, 3, seed=7)
    (inputs.colours(model) * weights).sum().backward()
    expected = {tensor: value.grad.clone() for tensor, value in model.named_parameters()}
    model.zero_grad()

    # What the tokens give is computed once; every group adds its gradients.
    encoder, decoder = model["encoder"], model["decoder"]
    cameras = encoder.patch_cameras(inputs.images, inputs.world_to_camera, inputs.intrinsics)
    keys_values = decoder.scene_keys_values(encoder(inputs.images, cameras), cameras)
    groups = target_rays(inputs.targets).split(size)
    colours = torch.cat([decoder(keys_values, rays).colours for rays in groups], dim=1)
    (colours * weights).sum().backward()
    assert_equal(colours, Inputs().colours(model))
    for tensor, value in model.named_parameters():
        assert_equal(value.grad, expected[tensor])


def test_gradients_are_finite_where_cameras_are_far_away(model):
    Inputs(distance=100.0).colours(model).sum().backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())


def test_every_parameter_has_a_gradient(model):
    (Inputs().colours(model) * random_numbers(2, 10, 3, seed=7)).sum().backward()
    for tensor, value in model.named_parameters():
        assert value.grad.abs().max() > 0, tensor


def scale_world(inputs, factor):
    """Put all cameras `factor` times as far away."""
    inputs.world_to_camera[..., :3, 3] *= factor
    inputs.targets.world_to_camera[..., :3, 3] *= factor
    return inputs


def test_a_larger_world_with_smaller_learned_scales_looks_the_same(model):
    expected = Inputs().colours(model)
    for tensor, value in model.named_parameters():
        if tensor.endswith("world.scale"):
            value.data /= 8
    assert_equal(scale_world(Inputs(), 8).colours(model), expected)


def test_the_scale_of_the_world_matters():
    # The learned scale starts small, so that the default weights hardly notice a factor of two.
    for channels in SCHEMES.values():
        model = build_pair(channels=channels, translation_scale=None)
        change = largest_change(scale_world(Inputs(), 2).colours(model), Inputs().colours(model))
        assert change > 1e-6


def test_without_a_learned_scale_translations_stay_as_they_are(model):
    # A scale of 1 is the same as none, and there is one in each layer otherwise.
    scales = [tensor for tensor in model.state_dict() if tensor.endswith("world.scale")]
    assert len(scales) == 4
    for tensor in scales:
        model.get_parameter(tensor).data.fill_(1)
    plain = build_pair(channels=model["encoder"].channels, translation_scale=None)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k not in scales})
    assert_equal(Inputs().colours(plain), Inputs().colours(model))


def test_gta_ignores_intrinsics_and_prope_reads_them():
    for name, channels in SCHEMES.items():
        model, other = build_pair(channels=channels), Inputs()
        other.intrinsics = other.intrinsics.flip(1)
        change = largest_change(other.colours(model), Inputs().colours(model))
        assert (change > 1e-7) == (name == "prope")


def test_rays_without_cameras_are_refused():
    rays = target_rays(Inputs().targets)._replace(cameras=None)
    with pytest.raises(ValueError, match=r"rays.cameras is None.*camera of each ray"):
        build_pair()["decoder"]([], rays)


def test_images_whose_size_is_no_multiple_of_a_patch_have_a_camera_for_each_token():
    encoder = build_pair()["encoder"]
    images = random_numbers(1, 2, 19, 13, 3, seed=1)
    cameras = encoder.patch_cameras(images, random_poses(1, 2, seed=2))
    assert encoder(images, cameras).shape[1] == cameras.view_index.shape[1] == 2 * 3 * 2
