"""Cameras in random poses, as tests of relative attention need them."""

import torch

from srt.geometry.token_cameras import TokenCameras, normalise_intrinsics


def random_numbers(*shape, seed):
    """Return standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_rotations(*shape, seed):
    """Return rotations; none is a reflection."""
    orthogonal, _ = torch.linalg.qr(random_numbers(*shape, 3, 3, seed=seed))
    return orthogonal * torch.linalg.det(orthogonal)[..., None, None]


def random_poses(*shape, seed, distance=3.0):
    """Return rigid motions, with roll, whose translations have the length `distance`."""
    pose = torch.eye(4, dtype=torch.float64).repeat(*shape, 1, 1)
    pose[..., :3, :3] = random_rotations(*shape, seed=seed)
    translation = random_numbers(*shape, 3, seed=seed + 1)
    pose[..., :3, 3] = distance * translation / translation.norm(dim=-1, keepdim=True)
    return pose


def random_intrinsics(*shape, seed):
    """Return normalised intrinsics: unequal focal lengths, the centre off the middle."""
    numbers = torch.rand(
        *shape, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(*shape, 1, 1)
    intrinsics[..., 0, 0] = 40 + 40 * numbers[..., 0]
    intrinsics[..., 1, 1] = 40 + 40 * numbers[..., 1]
    intrinsics[..., 0, 2] = 20 + 20 * numbers[..., 2]
    intrinsics[..., 1, 2] = 20 + 20 * numbers[..., 3]
    return normalise_intrinsics(intrinsics, height=48, width=64)


def random_cameras(views, tokens, *, seed, scenes=2, distance=3.0):
    """Return cameras with intrinsics, and tokens at random positions in random views."""
    generator = torch.Generator().manual_seed(seed)
    return TokenCameras(
        random_poses(scenes, views, seed=seed, distance=distance),
        torch.randint(views, (scenes, tokens), generator=generator),
        torch.rand(scenes, tokens, 2, dtype=torch.float64, generator=generator),
        random_intrinsics(scenes, views, seed=seed + 2),
    )
