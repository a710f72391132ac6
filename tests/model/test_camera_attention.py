"""Attention with cameras is its definition, and plain attention where all cameras are equal."""

import math

import numpy as np
import pytest
import torch
from support.paths import REFERENCE
from support.random_cameras import random_cameras, random_numbers, random_poses

from srt.geometry.camera_channels import GtaChannels, PropeChannels
from srt.geometry.token_cameras import TokenCameras, normalise_intrinsics, patch_cameras
from srt.model.attention import CrossAttention, SelfAttention
from srt.model.camera_attention import (
    CameraCrossAttention,
    CameraSelfAttention,
    attend_from_cameras,
    world_keys_values,
)

SCHEMES = {
    "gta": GtaChannels(16, 0, 16),
    "gta_so3": GtaChannels(8, 16, 8),
    "prope": PropeChannels(head_dim=32, rows=4, columns=5),
}


@pytest.fixture(params=SCHEMES)
def channels(request):
    return SCHEMES[request.param]


def assert_equal(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def attend_to_pairs(query, key, value, relations):
    """Return attention as GTA defines it, with a loop over all pairs of tokens.

    Args:
        query, key, value: (b, n, h, d)
        relations: ρ_i ρ_j⁻¹ of each pair (b, n, n, d, d).
    """
    output = torch.zeros_like(query)
    scenes, tokens, heads, head_dim = query.shape
    for b in range(scenes):
        for h in range(heads):
            for i in range(tokens):
                seen_keys = relations[b, i] @ key[b, :, h, :, None]  # (n, d, 1)
                seen_values = relations[b, i] @ value[b, :, h, :, None]
                scores = (seen_keys[..., 0] @ query[b, i, h]) / math.sqrt(head_dim)
                output[b, i, h] = scores.softmax(0) @ seen_values[..., 0]
    return output.flatten(2)


def test_transforms_outside_the_kernel_are_attention_to_relative_cameras(channels):
    cameras = random_cameras(2, 4, seed=1)
    representation = channels.represent(cameras)
    query, key, value = (random_numbers(2, 4, 3, 32, seed=seed) for seed in (2, 3, 4))

    # The matrices, as products with the columns of the identity.
    columns = torch.eye(32).double().expand(2, 4, 32, 32)
    matrices = representation.transform_output(columns).mT
    relations = matrices[:, :, None] @ matrices.inverse()[:, None]
    expected = attend_to_pairs(query, key, value, relations)

    keys_values = world_keys_values(key, value, representation)
    assert_equal(attend_from_cameras(query, keys_values, representation), expected)


def same_cameras(tokens, pose):
    """Return tokens that all have one camera, and one position in its image."""
    return TokenCameras(
        pose.expand(2, 1, 4, 4),
        torch.zeros(2, tokens, dtype=torch.long),
        torch.full((2, tokens, 2), 0.3, dtype=torch.float64),
    )


POSES = {"the identity": torch.eye(4).double(), "any pose": random_poses(seed=8)}


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_tokens_with_equal_cameras_attend_to_each_other_as_without_cameras(channels, pose):
    plain = SelfAttention(24, heads=2, head_dim=32).double()
    layer = CameraSelfAttention(24, 2, 32, translation_scale=0.5).double()
    layer.load_state_dict({**plain.state_dict(), "world.scale": torch.tensor(0.5)})
    tokens = random_numbers(2, 5, 24, seed=1)
    representation = channels.represent(same_cameras(5, pose))
    assert_equal(layer(tokens, representation), plain(tokens), tolerance=1e-12)


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_queries_with_the_tokens_camera_attend_as_without_cameras(channels, pose):
    plain = CrossAttention(24, 40, heads=2, head_dim=32).double()
    layer = CameraCrossAttention(24, 40, 2, 32, translation_scale=0.5).double()
    layer.load_state_dict({**plain.state_dict(), "world.scale": torch.tensor(0.5)})
    queries, tokens = random_numbers(2, 3, 24, seed=1), random_numbers(2, 5, 40, seed=2)
    pair = layer.scene_keys_values(tokens, channels.represent(same_cameras(5, pose)))
    attended = layer(queries, pair, channels.represent(same_cameras(3, pose)))
    assert_equal(attended, plain(queries, plain.scene_keys_values(tokens)), tolerance=1e-12)


def test_one_query_stands_for_all_of_the_representation(channels):
    layer = CameraCrossAttention(24, 40, 2, 32, translation_scale=0.5).double()
    cameras, tokens = random_cameras(3, 7, seed=1), random_numbers(2, 5, 40, seed=2)
    pair = layer.scene_keys_values(tokens, channels.represent(random_cameras(2, 5, seed=3)))
    query, representation = random_numbers(1, 1, 24, seed=4), channels.represent(cameras)
    repeated = layer(query.expand(2, 7, -1), pair, representation)
    assert_equal(layer(query, pair, representation), repeated, tolerance=1e-12)


def test_values_are_seen_from_the_querys_camera(channels):
    # With equal scores for all keys, only the transform of values and outputs knows the cameras.
    cameras = random_cameras(2, 4, seed=1)
    value, zeros = random_numbers(2, 4, 1, 32, seed=2), torch.zeros(2, 4, 1, 32).double()
    moved = cameras._replace(world_to_camera=cameras.world_to_camera.clone())
    moved.world_to_camera[:, 0] = random_poses(seed=6)
    outputs = []
    for some in (cameras, moved):
        representation = channels.represent(some)
        keys_values = world_keys_values(zeros, value, representation)
        outputs.append(attend_from_cameras(zeros, keys_values, representation))
    assert (outputs[0] - outputs[1]).abs().max() > 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("distance", [0.0, 1.0, 10.0])
@pytest.mark.parametrize(
    "tokens", [70, 600]
)  # our own kernel attends to the few, cuDNN to the many
def test_bfloat16_attention_on_a_gpu_is_as_precise_as_without_cameras(channels, tokens, distance):
    # A learned scale keeps what is far away within the range of the channels.
    scale = torch.tensor(1 / max(distance, 1.0), dtype=torch.float64)
    cameras = random_cameras(2, tokens, seed=1, distance=distance)
    exact = [random_numbers(2, tokens, 3, 32, seed=seed).bfloat16().double() for seed in (2, 3, 4)]
    ours = [values.cuda().bfloat16() for values in exact]
    dy = random_numbers(2, tokens, 96, seed=5)

    def output_and_gradients(cameras, scale, inputs):
        query, key, value = [values.requires_grad_() for values in inputs]
        representation = channels.represent(cameras).scale_translations(scale)
        keys_values = world_keys_values(key, value, representation)
        output = attend_from_cameras(query, keys_values, representation)
        return (output, *torch.autograd.grad(output, inputs, dy.to(output)))

    # On the GPU, cameras are in float32, as they are in training.
    single = TokenCameras(
        cameras.world_to_camera.float().cuda(),
        cameras.view_index.cuda(),
        cameras.coordinates.float().cuda(),
        cameras.normalised_intrinsics.float().cuda(),
    )
    expected = output_and_gradients(cameras, scale, exact)
    for actual, precise in zip(output_and_gradients(single, scale.cuda().float(), ours), expected):
        assert actual.dtype == torch.bfloat16
        assert (actual.cpu().double() - precise).norm() < 1e-2 * precise.norm()


PROPE = np.load(REFERENCE / "attention_prope.npz")


def recorded(name):
    return torch.from_numpy(PROPE[name]).double()


def recorded_cameras(prefix, with_intrinsics):
    """Return the cameras of recorded tokens and the representation's sizes."""
    columns, rows = PROPE[f"{prefix}patches_xy"].tolist()
    width, height = PROPE[f"{prefix}image_width_height"].tolist()
    intrinsics = normalise_intrinsics(recorded(f"{prefix}intrinsics"), height, width)
    poses = recorded(f"{prefix}world_to_camera")
    cameras = patch_cameras(poses, rows, columns, intrinsics if with_intrinsics else None)
    return cameras, PropeChannels(32, rows, columns)


def recorded_attention(prefix, with_intrinsics, queries, keys, values):
    """Return attention to the recorded keys and values, for queries with these cameras."""
    query_cameras, query_channels = recorded_cameras(prefix, with_intrinsics)
    key_cameras, key_channels = recorded_cameras("", with_intrinsics)
    key, value = keys.transpose(1, 2), values.transpose(1, 2)  # each (b, m, h, d)
    keys_values = world_keys_values(key, value, key_channels.represent(key_cameras))
    representation = query_channels.represent(query_cameras)
    output = attend_from_cameras(queries.transpose(1, 2), keys_values, representation)
    return output.unflatten(-1, (2, 32)).transpose(1, 2)  # (b, h, n, d)


@pytest.mark.parametrize("suffix", ["", "_without_intrinsics"])
@pytest.mark.parametrize("prefix", ["", "cross_"])
def test_propes_attention_and_its_gradients_are_the_recorded_ones(prefix, suffix):
    inputs = [recorded(name).requires_grad_() for name in (f"{prefix}q", "k", "v")]
    output = recorded_attention(prefix, suffix == "", *inputs)
    assert_equal(output, recorded(f"{prefix}output{suffix}"))

    (output.square().sum() / 2).backward()
    norms = torch.stack([values.grad.norm() for values in inputs])
    assert_equal(norms, recorded(f"{prefix}grad_norms{suffix}"))
