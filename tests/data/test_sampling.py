"""Batches as a function of (seed, step): which pixels they have, and where their rays go."""

import dataclasses

import pytest
import torch
from support.numbered_pixels import (
    CPU,
    HEIGHT,
    SAMPLER,
    SCENES,
    VIEWS,
    WIDTH,
    equal_tensors,
    expect_uniform,
    pixels_of,
    sampler,
    tensors,
    view_config_with,
    write_packed,
)

from srt.config.strict import ConfigError
from srt.data.batch import make_full_view_batch
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import pixel_directions, rigid_inverse


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return Scenes(write_packed(tmp_path_factory.mktemp("packed") / "train", SCENES), CPU)


def cameras(scenes, scene, view):
    """Return camera_to_world and intrinsics of any number of views."""
    intrinsics, poses = scenes.cameras(torch.arange(SCENES))
    return poses[scene, view], intrinsics[scene, view]


def draw_pixels(scenes, source, steps):
    """Return the pixels of many steps: a pixel of each input view (b, v), and the targets (b, r).

    Each is a tuple of scene, view, row and column.
    """
    batches = [source.batch(scenes, step) for step in range(steps)]
    inputs = pixels_of(torch.cat([batch.images[:, :, 0, 0] for batch in batches]))
    return inputs, pixels_of(torch.cat([batch.colours for batch in batches]))


def test_a_batch_depends_on_seed_and_step_alone(scenes):
    batch = sampler(seed=3).batch(scenes, 11)
    sampler(seed=3).batch(scenes, 12)  # earlier batches must not change later ones
    assert all(equal_tensors(batch, sampler(seed=3).batch(scenes, 11)))
    assert not any(equal_tensors(batch, sampler(seed=3).batch(scenes, 12)))
    assert not any(equal_tensors(batch, sampler(seed=4).batch(scenes, 11)))


@pytest.mark.parametrize("processes", [2, 4])
def test_the_processes_shares_make_up_the_batch_of_one_process(scenes, processes):
    for step in (0, 1, 1000):
        shares = [
            sampler(world_size=processes, rank=rank).batch(scenes, step)
            for rank in range(processes)
        ]
        names = tensors(shares[0])
        joined = {name: torch.cat([getattr(share, name) for share in shares]) for name in names}
        joined = dataclasses.replace(shares[0], **joined)
        assert all(equal_tensors(joined, SAMPLER.batch(scenes, step)))


def test_a_batch_that_the_processes_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"train\.batch_size 8 .* processes 3"):
        sampler(world_size=3)


@pytest.mark.parametrize("uniforms", [1, 3, 10])
def test_draws_along_rays_are_uniform_and_independent(scenes, uniforms):
    source = sampler(uniforms_per_ray=uniforms, batch_size=40)
    numbers = torch.stack([source.batch(scenes, step).uniforms for step in range(10)])
    assert numbers.shape == (10, 40, 12, uniforms)
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    tenths = (numbers * 10).long()
    expect_uniform(tenths.flatten().bincount(minlength=10))
    for axis in range(4 if uniforms > 1 else 3):
        expect_uniform((tenths.diff(dim=axis) % 10).flatten().bincount(minlength=10))


def test_a_model_that_samples_no_rays_draws_nothing_and_sees_the_same_batch(scenes):
    batch, without = SAMPLER.batch(scenes, 3), sampler(uniforms_per_ray=0).batch(scenes, 3)
    assert without.uniforms is None
    assert all(equal_tensors(dataclasses.replace(batch, uniforms=None), without))


def test_rays_carry_the_datasets_bounds_and_split_into_groups_in_order(scenes):
    batch = SAMPLER.batch(scenes, 0)
    assert (batch.rays.near, batch.rays.far) == (1.0, 4.0)
    groups = list(batch.rays.split(5))
    assert [group.origins.shape[1] for group in groups] == [5, 5, 2]
    for name in ("origins", "directions", "uniforms"):
        joined = torch.cat([getattr(group, name) for group in groups], dim=1)
        assert torch.equal(joined, getattr(batch, name))
    assert {(group.near, group.far) for group in groups} == {(1.0, 4.0)}
    whole = dataclasses.replace(batch, uniforms=None).rays
    assert [group.uniforms for group in whole.split(5)] == [None] * 3


def test_every_scene_is_seen_once_in_each_epoch_and_epochs_differ(scenes):
    (scene, *_), _ = draw_pixels(scenes, SAMPLER, steps=10)
    epochs = scene.view(-1, SCENES)  # 16 of them in 10 batches
    torch.testing.assert_close(epochs.sort(dim=1).values, torch.arange(SCENES).expand(16, SCENES))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 10


@pytest.mark.parametrize("input_views", [1, 2, 3])
def test_inputs_are_never_targets_and_every_view_is_an_input_as_often(scenes, input_views):
    source = sampler({"input_views": input_views}, batch_size=500)
    (scene, inputs, *_), (target_scene, targets, *_) = draw_pixels(scenes, source, steps=4)
    assert (scene == target_scene[:, :1]).all()
    assert (scene == scene[:, :1]).all()
    assert (inputs[:, :, None] != targets[:, None, :]).all()
    assert all(len(set(views)) == input_views for views in inputs.tolist())
    for position in range(input_views):
        expect_uniform(inputs[:, position].bincount(minlength=VIEWS))


@pytest.mark.parametrize("rays", [1, 12, 24, 50, 72, 100])
def test_every_target_pixel_is_drawn_equally_often(scenes, rays):
    """There are 72 target pixels; the rays are fewer or more, and divide them or not."""
    source = sampler(rays_per_scene=rays, batch_size=2000)
    _, (_, view, row, column) = draw_pixels(scenes, source, steps=2 if rays > 1 else 5)
    pixel_index = (view * HEIGHT + row) * WIDTH + column
    expect_uniform(pixel_index.flatten().bincount(minlength=VIEWS * HEIGHT * WIDTH))


@pytest.mark.parametrize("rays", [1, 12, 24, 36, 72])
def test_no_pixel_is_drawn_twice_where_the_rays_divide_the_pixels(scenes, rays):
    _, (_, view, row, column) = draw_pixels(scenes, sampler(rays_per_scene=rays), steps=50)
    pixel_index = (view * HEIGHT + row) * WIDTH + column
    assert all(len(set(indices)) == rays for indices in pixel_index.tolist())


def test_neighbouring_steps_scenes_and_rays_are_drawn_independently(scenes):
    """With 24 rays for 72 pixels, each ray gets one of three neighbours: the column modulo 3."""
    source, steps = sampler(rays_per_scene=24, batch_size=40), 40
    (_, inputs, *_), (*_, columns) = draw_pixels(scenes, source, steps)
    views, columns = inputs.unflatten(0, (steps, -1)), columns.unflatten(0, (steps, -1))
    for axis in (0, 1, 2):
        expect_uniform((columns.diff(dim=axis) % 3).flatten().bincount(minlength=3))
    for axis in (0, 1):
        expect_uniform((views.diff(dim=axis) % VIEWS).flatten().bincount(minlength=VIEWS))


def expect_rays_of(scenes, pixels, origins, directions):
    """Check that world rays start at their camera and go through the middle of their pixel."""
    # The rays start at the cameras.
    scene, view, row, column = pixels
    pose, intrinsics = cameras(scenes, scene, view)
    torch.testing.assert_close(origins.expand_as(directions), pose[..., :3, 3])

    # Project a point on each ray into the image. It must be in front of the camera.
    points = torch.cat((origins + 2 * directions, torch.ones_like(directions[..., :1])), dim=-1)
    projected = intrinsics @ (pose.inverse() @ points[..., None])[..., :3, :]
    pixel = projected[..., :2, 0] / projected[..., 2:, 0]
    expected = torch.stack((column + 0.5, row + 0.5), dim=-1)
    torch.testing.assert_close(pixel, expected, atol=1e-3, rtol=0)
    assert (projected[..., 2, 0] > 0).all()


def test_colours_are_those_of_the_pixel_that_the_ray_goes_through(scenes):
    for step in range(5):
        batch = sampler({"input_views": 2}).batch(scenes, step)
        expect_rays_of(scenes, pixels_of(batch.colours), batch.origins, batch.directions)
        origins = batch.image_origins[:, :, None, None].expand_as(batch.image_directions)
        expect_rays_of(scenes, pixels_of(batch.images), origins, batch.image_directions)


def test_images_are_whole_views_upright(scenes):
    _, _, rows, columns = pixels_of(SAMPLER.batch(scenes, 0).images)
    grid = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    torch.testing.assert_close(rows, grid[0].expand_as(rows))
    torch.testing.assert_close(columns, grid[1].expand_as(columns))


def test_the_canonical_frame_has_the_first_input_camera_at_0_looking_along_z(scenes):
    world = sampler({"input_views": 2}).batch(scenes, 5)
    batch = sampler({"input_views": 2, "canonical": True}).batch(scenes, 5)

    # The first input camera is at 0, and its rays are those of a camera without rotation.
    torch.testing.assert_close(batch.image_origins[:, 0], torch.zeros(8, 3), atol=1e-6, rtol=0)
    scene, view, row, column = pixels_of(batch.images[:, 0])
    along_z = torch.eye(4).expand(*scene.shape, 4, 4)
    rays = pixel_directions(cameras(scenes, scene, view)[1], along_z, row, column)
    torch.testing.assert_close(batch.image_directions[:, 0], rays, atol=1e-6, rtol=0)

    # All else has moved with that camera.
    pose = rigid_inverse(cameras(scenes, scene[:, 0, 0], view[:, 0, 0])[0])
    rotation, translation = pose[:, :3, :3], pose[:, :3, 3]
    for name in ("image_directions", "directions", "image_origins", "origins"):
        moved = torch.einsum("bij,b...j->b...i", rotation, getattr(world, name))
        if name.endswith("origins"):
            moved = moved + translation[:, None]
        torch.testing.assert_close(getattr(batch, name), moved, atol=1e-5, rtol=0)
    assert torch.equal(batch.images, world.images)
    assert torch.equal(batch.colours, world.colours)


def test_whole_views_have_all_their_pixels_in_order(scenes):
    scene, inputs = torch.tensor([4, 1]), torch.tensor([[2], [0]])
    batch = make_full_view_batch(
        scenes, scene, inputs, torch.tensor([[3, 0], [1, 3]]), view_config_with()
    )

    # The rays of each scene are two whole views.
    pixels = torch.stack(pixels_of(batch.colours)).unflatten(2, (2, HEIGHT, WIDTH))
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    for item, (number, targets) in enumerate([(4, [3, 0]), (1, [1, 3])]):
        for position, view in enumerate(targets):
            assert (pixels[0, item, position] == number).all()
            assert (pixels[1, item, position] == view).all()
            assert torch.equal(pixels[2, item, position], rows)
            assert torch.equal(pixels[3, item, position], columns)
    expect_rays_of(scenes, pixels_of(batch.colours), batch.origins, batch.directions)


def test_with_all_views_as_targets_the_inputs_are_targets_as_often_as_the_others(scenes):
    source = sampler({"all_targets": True}, batch_size=500)
    (_, inputs, *_), (_, targets, *_) = draw_pixels(scenes, source, steps=2)
    expect_uniform(((targets - inputs[:, :1]) % VIEWS).flatten().bincount(minlength=VIEWS))


@pytest.mark.parametrize("stride", [2, 3])
def test_strided_inputs_show_the_rays_of_the_pixels_that_are_kept(scenes, stride):
    source = sampler({"input_stride": stride, "canonical": False})
    batch = source.batch(scenes, 2)
    _, _, rows, columns = pixels_of(batch.images)
    assert torch.equal(rows[0, 0, :, 0], torch.arange(HEIGHT)[stride // 2 :: stride])
    assert torch.equal(columns[0, 0, 0], torch.arange(WIDTH)[stride // 2 :: stride])
    origins = batch.image_origins[:, :, None, None].expand_as(batch.image_directions)
    expect_rays_of(scenes, pixels_of(batch.images), origins, batch.image_directions)


@pytest.mark.gpu
@pytest.mark.parametrize("canonical", [False, True])
def test_a_gpu_draws_the_same_batch_by_its_compiled_kernels(scenes, tmp_path, canonical):
    source = sampler({"canonical": canonical})
    gpu_scenes = Scenes(write_packed(tmp_path / "train", SCENES), torch.device("cuda"))
    for step in (0, 1, 1000):
        # The indices are equal; the rays are rounded differently.
        expected = source.batch_indices(scenes, step)
        indices = source.batch_indices(gpu_scenes, step)
        for name, values in vars(expected).items():
            assert torch.equal(getattr(indices, name).cpu(), values), name
        batch = source.batch(gpu_scenes, step)
        for name, values in source.batch(scenes, step).tensors().items():
            torch.testing.assert_close(getattr(batch, name).cpu(), values, rtol=1e-5, atol=1e-6)
