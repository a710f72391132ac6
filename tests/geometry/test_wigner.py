"""Wigner D matrices turn spherical harmonics as a rotation turns directions."""

import math

import pytest
import torch
from support.gta_records import load_record
from support.random_cameras import random_numbers, random_rotations

from srt.geometry.wigner import wigner_degree1, wigner_degree2

DEGREES = {1: wigner_degree1, 2: wigner_degree2}


def harmonics(points, degree):
    """Return the spherical harmonics of points, in the order of the published code."""
    x, y, z = points.unbind(-1)
    if degree == 1:
        return torch.stack((y, z, x), dim=-1)
    root = math.sqrt(3)
    values = (root * x * y, root * y * z, (2 * z * z - x * x - y * y) / 2, root * x * z)
    return torch.stack((*values, root / 2 * (x * x - y * y)), dim=-1)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.fixture(params=DEGREES)
def degree(request):
    return request.param


def test_matrices_are_the_recorded_ones(degree):
    record = load_record("gta_so3")
    matrices = DEGREES[degree](record["wigner_rotations"])
    assert_equal(matrices, record[f"wigner_degree{degree}"])


def test_harmonics_of_a_turned_point_are_the_turned_harmonics(degree):
    rotation, points = random_rotations(8, seed=1), random_numbers(8, 3, seed=2)
    turned = harmonics((rotation @ points[..., None])[..., 0], degree)
    expected = (DEGREES[degree](rotation) @ harmonics(points, degree)[..., None])[..., 0]
    assert_equal(turned, expected)


def test_one_rotation_after_another_is_the_product_of_their_matrices(degree):
    first, second = random_rotations(8, seed=1), random_rotations(8, seed=2)
    wigner = DEGREES[degree]
    assert_equal(wigner(first @ second), wigner(first) @ wigner(second))


def test_the_inverse_is_the_transpose(degree):
    rotation, wigner = random_rotations(8, seed=1), DEGREES[degree]
    assert_equal(wigner(rotation.mT), wigner(rotation).mT)
    identity = torch.eye(2 * degree + 1).double().expand(8, -1, -1)
    assert_equal(wigner(rotation) @ wigner(rotation.mT), identity)


def test_no_rotation_gives_the_identity(degree):
    assert_equal(DEGREES[degree](torch.eye(3).double()), torch.eye(2 * degree + 1).double())


@pytest.mark.parametrize("around", [0.0, math.pi])
@pytest.mark.parametrize("tilt", [0.0, 1e-9, 1e-6, 1e-3])
def test_matrices_near_the_poles_of_euler_angles_are_right(degree, around, tilt):
    # The published code is wrong there: a tilt near 0 or π, which leaves the z axis where it is, or
    # turns it around.
    cosine, sine = math.cos(around + tilt), math.sin(around + tilt)
    rows = [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]
    tilted = torch.tensor(rows, dtype=torch.float64)
    points = random_numbers(8, 3, seed=2)
    turned = harmonics(points @ tilted.T, degree)
    assert_equal(turned, harmonics(points, degree) @ DEGREES[degree](tilted).T)
