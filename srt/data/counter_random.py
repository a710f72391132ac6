"""Random numbers that are hashes of counters, so that they are the same on every device.

A usual generator has a state that every draw changes. Here a number depends only on what it is for:
the seed, the training step, the purpose (its stream), the slot in the batch and a counter. Any
process can compute any of the numbers, in any order, without computing the others.

The order of the scenes is the exception: it is a permutation, drawn on the CPU by PyTorch.

Shapes: b slots of a batch, n counters.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from srt.common.shapes import Int

_MASK = 0xFFFFFFFF  # keeps 32 bits of an int64


def slot_keys(seed: int, step: int, stream: int, slots: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """Return one key for each slot of a step's batch, from which `random_bits` makes its numbers.

    Args:
        stream: the purpose of the numbers; different streams are independent of each other.
        slots: the numbers of the scenes' slots in the global batch.
    """
    # Hash the numbers in one after the other. The factor, 2^32 divided by the golden ratio, makes
    # small numbers that are close to each other differ in many bits.
    keys = slots
    for number in (seed, stream, step):
        keys = _mix(keys + number * 0x9E3779B9)
    return keys


def random_bits(keys: Int[Tensor, "b 1"], counter: Int[Tensor, "n"]) -> Int[Tensor, "b n"]:
    """Return 32 random bits for each key and counter, as integers from 0 to before 2^32."""
    # The added constant keeps counter 0 from being hashed to 0.
    return _mix(keys + _mix(counter + 0x632BE5AB))


def _mix(values: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Return the hash lowbias32 of C. Wellons of the lower 32 bits of each value."""
    values = values & _MASK
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & _MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & _MASK
    return values ^ (values >> 16)


@functools.lru_cache(maxsize=2)
def scene_permutation(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    """Return the random order in which an epoch goes through the `count` scenes.

    The last two orders are cached, since one batch can reach from one epoch into the next.
    """
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(count, generator=generator)
