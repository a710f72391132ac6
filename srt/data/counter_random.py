"""Random numbers as hashes of counters: the same on every device, in any order."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from srt.common.shapes import Int

_MASK = 0xFFFFFFFF


def slot_keys(seed: int, step: int, stream: int, slots: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """Returns what each slot of a step's batch draws a stream of random numbers with."""
    keys = slots
    for part in (seed, stream, step):
        keys = _mix(keys + part * 0x9E3779B9)
    return keys


def random_bits(keys: Int[Tensor, "b 1"], counter: Int[Tensor, "n"]) -> Int[Tensor, "b n"]:
    """Returns 32 random bits for each slot and counter (the hash lowbias32 of C. Wellons)."""
    return _mix(keys + _mix(counter + 0x632BE5AB))


def _mix(values: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    values = values & _MASK
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & _MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & _MASK
    return values ^ (values >> 16)


@functools.lru_cache(maxsize=2)
def scene_permutation(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(count, generator=generator)
