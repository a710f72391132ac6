"""Wigner D matrices: what a rotation of space does to spherical harmonics.

Spherical harmonics of one degree are polynomials of a direction. Rotating the direction mixes those
of one degree with each other: Y(R x) = D(R) Y(x). The matrices D(R) are orthogonal, and they are a
representation: D(A B) = D(A) D(B), D(Rᵀ) = D(R)ᵀ.

The published file of GTA (autonomousvision/gta, source/utils/wigner_d.py) computes the same
matrices by way of Euler angles, and is wrong near their poles. Here they are polynomials of the
rotation's elements, which have no poles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from srt.common.shapes import Float


def wigner_degree1(rotation: Float[Tensor, "*views 3 3"]) -> Float[Tensor, "*views 3 3"]:
    """Return the matrices of degree 1: the rotation itself, with its axes in the order y, z, x."""
    return rotation.roll((-1, -1), dims=(-2, -1))


def wigner_degree2(rotation: Float[Tensor, "*views 3 3"]) -> Float[Tensor, "*views 5 5"]:
    """Return the matrices of degree 2.

    The polynomials are √3 xy, √3 yz, (2z² - x² - y²) / 2, √3 xz and √3 (x² - y²) / 2, in this
    order.
    """
    # The rows of R turn the coordinates x, y and z of R p into linear forms of p. Each polynomial
    # of R p is then a quadratic form of p.
    x, y, z = rotation.unbind(dim=-2)  # each (*views, 3)
    forms = torch.stack(
        (
            math.sqrt(3) * symmetric_product(x, y),
            math.sqrt(3) * symmetric_product(y, z),
            symmetric_product(z, z) - (symmetric_product(x, x) + symmetric_product(y, y)) / 2,
            math.sqrt(3) * symmetric_product(x, z),
            math.sqrt(3) / 2 * (symmetric_product(x, x) - symmetric_product(y, y)),
        ),
        dim=-3,
    )  # (*views, 5, 3, 3)

    # The trace of a form is 0, so five of its elements say how it is made of the polynomials of p.
    return torch.stack(
        (
            2 / math.sqrt(3) * forms[..., 0, 1],
            2 / math.sqrt(3) * forms[..., 1, 2],
            forms[..., 2, 2],
            2 / math.sqrt(3) * forms[..., 0, 2],
            (forms[..., 0, 0] - forms[..., 1, 1]) / math.sqrt(3),
        ),
        dim=-1,
    )


def symmetric_product(
    a: Float[Tensor, "*views 3"], b: Float[Tensor, "*views 3"]
) -> Float[Tensor, "*views 3 3"]:
    """Return the symmetric matrix M for which pᵀ M p = (a · p) (b · p)."""
    product = a[..., :, None] * b[..., None, :]  # (*views, 3, 3)
    return (product + product.transpose(-1, -2)) / 2
