"""Random numbers from counters: uniform, and independent of each other."""

import pytest
import torch
from support.numbered_pixels import expect_uniform

from srt.data.counter_random import random_bits, slot_keys


def expect_uncorrelated(first, second):
    """Check that each of the 32 bits of two draws differs in half of the cases.

    The share may be five standard deviations away from a half.
    """
    differing = torch.stack([((first ^ second) >> bit & 1).double().mean() for bit in range(32)])
    tolerance = 5 * 0.5 / first.numel() ** 0.5
    assert ((differing - 0.5).abs() < tolerance).all(), differing


def draw_bits(seed=0, steps=range(1), stream=1):
    """Return random bits (steps, slots, counters)."""
    slots, counters = torch.arange(64), torch.arange(512)
    keys = [slot_keys(seed, step, stream, slots)[:, None] for step in steps]
    return torch.stack([random_bits(step_keys, counters) for step_keys in keys])


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_random_bits_are_uniform_and_neighbours_are_uncorrelated(seed):
    bits = draw_bits(seed, steps=[0, 1, 2, 3_000_000])
    assert bits.min() >= 0
    assert bits.max() < 2**32

    # Groups of the bits, as numbers, are uniform.
    for shift in (0, 11, 22, 28):
        expect_uniform((bits >> shift & 15).flatten().bincount(minlength=16))
    expect_uniform((bits >> 22).flatten().bincount(minlength=1024))

    # Neighbouring counters, slots and steps have nothing in common.
    expect_uncorrelated(bits[:, :, 1:], bits[:, :, :-1])
    expect_uncorrelated(bits[:, 1:], bits[:, :-1])
    for step in (1, 2, 3):
        expect_uncorrelated(bits[step], bits[step - 1])


def test_streams_and_seeds_are_uncorrelated():
    bits = draw_bits()
    expect_uncorrelated(bits, draw_bits(stream=2))
    expect_uncorrelated(bits, draw_bits(seed=1))
    expect_uncorrelated(draw_bits(seed=1, stream=2), draw_bits(seed=2, stream=1))
