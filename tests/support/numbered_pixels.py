"""Packed scenes whose colours say which pixel they are of, and a sampler of batches of them.

The red channel is the number of the scene and view, green is the row, blue is the column.
"""

import dataclasses

import numpy as np
import torch
from support.small_packed import write_split

from srt.data.batch import ViewConfig
from srt.data.sampling import Sampler
from srt.geometry.cameras import look_at

SCENES, VIEWS, HEIGHT, WIDTH = 5, 4, 4, 6
CPU = torch.device("cpu")
SAMPLER = Sampler(
    batch_size=8,
    rays_per_scene=12,
    uniforms_per_ray=3,
    view_config=ViewConfig(
        canonical=False, input_views=1, input_stride=1, all_targets=False, near=1.0, far=4.0
    ),
    seed=0,
    rank=0,
    world_size=1,
)


def write_packed(folder, scenes_per_shard, storage="raw"):
    """Write scenes of colours (scene and view, row, column); each view has a camera of its own."""
    scene, view, row, column = np.indices((SCENES, VIEWS, HEIGHT, WIDTH))
    # Every pixel has a colour that no other pixel has.
    images = np.stack((scene * VIEWS + view, row, column), axis=-1).astype(np.uint8)

    # Random cameras that look at the origin, with random focal lengths and principal points.
    generator = torch.Generator().manual_seed(7)
    positions = torch.randn(SCENES, VIEWS, 3, generator=generator, dtype=torch.float64)
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(SCENES, VIEWS, 1, 1)
    uniforms = torch.rand(SCENES, VIEWS, 2, 2, generator=generator, dtype=torch.float64)
    intrinsics[..., (0, 1), (0, 1)] = 5 + 3 * uniforms[..., 0]
    intrinsics[..., :2, 2] = torch.tensor([WIDTH, HEIGHT]) * (0.3 + 0.4 * uniforms[..., 1])
    poses = look_at(positions, torch.zeros_like(positions))
    return write_split(
        folder, images, intrinsics, poses, scenes_per_shard=scenes_per_shard, storage=storage
    )


def pixels_of(colours):
    """Return the scene, view, row and column of the pixels that have these colours."""
    views, rows, columns = (colours * 255).round().long().unbind(-1)
    return views // VIEWS, views % VIEWS, rows, columns


def tensors(batch):
    return {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}


def equal_tensors(first, second):
    """Return for each tensor of two batches whether they are equal."""
    first, second = tensors(first), tensors(second)
    assert first.keys() == second.keys()
    return [torch.equal(first[name], second[name]) for name in first]


def sampler(view_config=(), **changes):
    """Return the sampler of these tests with changes, to its view configuration and to itself."""
    return dataclasses.replace(
        SAMPLER, view_config=view_config_with(**dict(view_config)), **changes
    )


def view_config_with(**changes):
    return dataclasses.replace(SAMPLER.view_config, **changes)


def expect_uniform(counts):
    """Check that counts are those of a uniform distribution, by the chi-squared test.

    Chi-squared may be five standard deviations above its mean.
    """
    mean, freedom = counts.sum() / len(counts), len(counts) - 1
    chi_squared = ((counts - mean) ** 2 / mean).sum()
    assert chi_squared < freedom + 5 * (2 * freedom) ** 0.5, counts
