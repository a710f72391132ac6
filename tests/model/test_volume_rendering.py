"""Sampling and compositing along rays: parity with the published code, and NeRF's properties."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from support.paths import REFERENCE
from support.tiny_training import VARIANTS, tiny_experiment

from srt.geometry.rays import Rays
from srt.model.decoder import points_along_rays
from srt.model.inference import decode_in_groups
from srt.model.srt import build_model
from srt.model.volume_rendering import (
    composite,
    even_uniforms,
    invert_histogram,
    stratified_depths,
    weighted_depths,
)

PUBLISHED = {
    name: torch.tensor(values) for name, values in np.load(REFERENCE / "volume.npz").items()
}
NEAR, FAR = 0.5, 6.0


def random_numbers(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def published_rays():
    return Rays(PUBLISHED["sample_pos"], PUBLISHED["sample_rays"], NEAR, FAR)


def assert_close(result, expected, atol=1e-6):
    torch.testing.assert_close(result, expected, atol=atol, rtol=0)


def test_coarse_samples_equal_the_published_codes():
    rays, expected = published_rays(), PUBLISHED["sample_coarse_depths"]
    uniforms = even_uniforms(12, 8, rays.directions)[:12].expand_as(expected)
    depths = stratified_depths(uniforms, NEAR, FAR)
    assert_close(depths, expected)
    assert_close(points_along_rays(rays, depths), PUBLISHED["sample_coarse_points"])


def test_fine_samples_equal_the_published_codes():
    expected, depths = PUBLISHED["sample_fine_depths"], PUBLISHED["sample_coarse_depths"]
    uniforms = even_uniforms(12, 8, depths)[12:].expand_as(expected)
    assert_close(weighted_depths(uniforms, PUBLISHED["sample_weights"], depths, NEAR), expected)


def test_compositing_equals_the_published_codes():
    samples = (PUBLISHED[f"vol_{name}"] for name in ("density", "color", "depth"))
    result = composite(*samples)

    # The published colours have no background: they come with their opacity.
    colour, alpha = PUBLISHED["vol_rgba"].split([3, 1], dim=-1)
    assert_close(result.colours, colour + 1 - alpha)
    assert_close(result.depth, PUBLISHED["vol_expected_depth"])
    assert_close(result.weights, PUBLISHED["vol_weights"])


def test_coarse_samples_lie_one_in_each_of_equally_long_segments():
    uniforms = random_numbers(50, 11)
    depths = stratified_depths(uniforms, NEAR, FAR)
    borders = torch.linspace(NEAR, FAR, 12, dtype=torch.float64)
    assert_close(uniforms, (depths - borders[:-1]) / borders.diff(), atol=1e-12)


def test_evenly_spread_numbers_fall_into_bins_in_proportion_to_their_weights():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    borders = torch.tensor([1.0, 2.0, 4.0, 4.5, 7.0], dtype=torch.float64)
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    samples = invert_histogram(uniforms, weights, borders)

    # `histc` counts samples below 4.0 in bins of length 1.
    counts = torch.histc(samples.float(), 4, 0, 4)
    assert counts.tolist() == [0, 100, 0, 0]
    assert ((samples > 4) & (samples < 4.5)).sum() == 600
    assert (samples.diff() > 0).all()
    assert samples[-1] <= 7


def test_fine_samples_lie_around_the_coarse_sample_that_has_all_weight():
    depths = stratified_depths(random_numbers(20, 16), NEAR, FAR)
    weights = torch.zeros(20, 16, dtype=torch.float64)
    weights[:, 9] = 1
    samples = weighted_depths(random_numbers(20, 400, seed=1), weights, depths, NEAR)

    # Three quarters are in the segment before the sample, one quarter in the one behind it.
    in_segment_before = (samples >= depths[:, 8:9]) & (samples < depths[:, 9:10])
    in_segment_after = (samples >= depths[:, 9:10]) & (samples <= depths[:, 10:11])
    assert in_segment_before.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert in_segment_after.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_uniform_fog_absorbs_by_the_law_of_beer_and_lambert():
    """However it is sampled, it absorbs 1 - exp(-density · length) of the light."""
    depths = torch.cat(
        (torch.tensor([2.0]), 2 + random_numbers(30).sort().values, torch.tensor([3.0]))
    )
    density = torch.full_like(depths, 1.7)
    density[-1] = 0  # there is no fog behind the last sample
    colour = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64).expand(len(depths), 3)
    absorbed = 1 - math.exp(-1.7 * (3 - 2))
    result = composite(density, colour, depths)
    assert_close(result.colours, absorbed * colour[0] + 1 - absorbed)
    assert_close(result.weights.sum(), torch.tensor(absorbed, dtype=torch.float64))


def test_an_opaque_sample_hides_all_behind_it_and_an_empty_ray_is_white():
    depths = torch.tensor([1.0, 2.0, 3.0, 4.0])
    colours = torch.eye(4)[:, :3]
    wall = composite(torch.tensor([0.0, 1e4, 5.0, 5.0]), colours, depths)
    assert_close(wall.colours, colours[1])
    assert_close(wall.depth, torch.tensor(2.0))
    assert_close(composite(torch.zeros(4), colours, depths).colours, torch.ones(3))


def test_gradients_are_finite_where_densities_are_extreme():
    densities = torch.tensor([[0.0, 1e-12, 1e8, 1e8, 3.0]], requires_grad=True)
    colours = torch.rand(1, 5, 3, requires_grad=True)
    result = composite(densities, colours, torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0]]))
    (result.colours.sum() + result.depth.sum()).backward()
    assert densities.grad.isfinite().all()
    assert colours.grad.isfinite().all()


@pytest.fixture(scope="module", params=["vsrt", "vsrt, two nets"])
def model(request, tmp_path_factory):
    config = tiny_experiment(tmp_path_factory.mktemp("params"), VARIANTS[request.param]).model
    return build_model(config, seed=0).double().requires_grad_(False)


def keys_values_and_rays(model, uniforms=None):
    """Return what the queries of two random scenes attend to, and seven rays of each."""
    width = model.encoder.config.latent_dim
    directions = torch.nn.functional.normalize(random_numbers(2, 7, 3, seed=1) - 0.5, dim=-1)
    rays = Rays(random_numbers(2, 7, 3, seed=2), directions, NEAR, FAR, uniforms)
    return model.decoder.scene_keys_values(random_numbers(2, 5, width) - 0.5), rays


def test_any_grouping_of_rays_gives_the_same_colours_and_depths(model):
    keys_values, rays = keys_values_and_rays(model, random_numbers(2, 7, 10, seed=3))
    whole = model.decode(keys_values, rays)
    for queries in (1, 40, 70, 10**6):
        grouped = decode_in_groups(model, keys_values, rays, queries)
        assert_close(grouped.colours, whole.colours, atol=1e-12)
        assert_close(grouped.depth, whole.depth, atol=1e-12)


def test_a_group_has_as_many_rays_as_its_queries_allow(model, monkeypatch):
    """With one net a ray is 10 queries: 6 coarse samples and 4 fine ones.

    With two nets it is 16, because the fine net evaluates the coarse samples again.
    """
    keys_values, rays = keys_values_and_rays(model)
    sizes = []
    decode = model.decode

    def decode_and_count(keys_values, group):
        sizes.append(group.origins.shape[1])
        return decode(keys_values, group)

    monkeypatch.setattr(model, "decode", decode_and_count)
    decode_in_groups(model, keys_values, rays, 2 * 3 * 16)
    assert sizes == ([3, 3, 1] if model.decoder.fine is not None else [4, 3])


def test_depths_lie_between_near_and_far_and_follow_the_bounds(model):
    keys_values, rays = keys_values_and_rays(model)
    depth = model.decode(keys_values, rays).depth
    assert ((depth > NEAR) & (depth < FAR + 1)).all()
    farther = model.decode(keys_values, rays._replace(near=10.0, far=12.0)).depth
    assert ((farther > 9.9) & (farther < 12.5)).all()


def test_a_ray_always_looks_the_same_unless_its_samples_are_random(model):
    keys_values, rays = keys_values_and_rays(model)
    first, again = (model.decode(keys_values, rays).colours for _ in range(2))
    assert torch.equal(first, again)
    random_rays = rays._replace(uniforms=random_numbers(2, 7, 10, seed=3))
    assert not torch.allclose(first, model.decode(keys_values, random_rays).colours)


def test_one_net_for_both_passes_equals_two_with_the_same_weights(tmp_path):
    """One net does not evaluate the coarse samples again, but uses the values of the first pass."""
    config = tiny_experiment(tmp_path, VARIANTS["vsrt"]).model
    one = build_model(config, seed=0).double()
    two = build_model(dataclasses.replace(config, separate_fine_net=True), seed=1).double()
    weights = one.state_dict()
    doubled = {name.replace("decoder.coarse", "decoder.fine"): weights[name] for name in weights}
    two.load_state_dict(weights | doubled)
    for uniforms in (None, random_numbers(2, 7, 10, seed=3)):
        predictions = [model.decode(*keys_values_and_rays(model, uniforms)) for model in (one, two)]
        for value, expected in zip(*predictions):
            assert_close(value, expected, atol=1e-12)
