"""A Triton kernel of the Fourier encoding, which writes each channel once, in bfloat16.

The plain version is `encode_inputs` in srt/model/positional_encoding.py, which says what the
encoding is. A program computes some channels of a block of points. A table tells it, for each
channel, which coordinate is encoded with which octave, and whether by a sine or a cosine.
"""

# ruff: noqa: N803  (constants of a compiled kernel are in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.common.shapes import Float

# The points of a block.
ENCODED_ROWS = 64


def encode(
    rows: Float[Tensor, "n columns"],
    leading: int,
    octaves: tuple[int, ...],
    starts: tuple[int, ...],
    width: int,
) -> Float[Tensor, "n width"]:
    """Return the Fourier encoding of rows in bfloat16, with channels of 0 appended.

    Args:
        rows: `leading` columns that are copied, then three coordinates for each entry of `octaves`.
        octaves: how many octaves each three coordinates are encoded with.
        starts: the lowest octave of each three coordinates.
        width: the number of channels of the result.
    """
    encoded = rows.new_empty(rows.shape[0], width, dtype=torch.bfloat16)
    chunk = 64 if width % 64 == 0 else 32
    grid = (triton.cdiv(rows.shape[0], ENCODED_ROWS), triton.cdiv(width, chunk))
    sizes = {"COLUMNS": rows.shape[1], "LEADING": leading, "WIDTH": width, "CHUNK": chunk}
    table = _channel_table(leading, octaves, starts, width, rows.device)
    _encode_kernel[grid](rows, *table, encoded, rows.shape[0], ROWS=ENCODED_ROWS, **sizes)
    return encoded


@functools.cache
def _channel_table(
    leading: int,
    octaves: tuple[int, ...],
    starts: tuple[int, ...],
    width: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each channel's column, its half turns per unit of length, and its phase.

    The phase is in half turns: 0 for a sine, 1/2 for a cosine. A padding channel has 0 half turns,
    so that it is the sine of 0.
    """
    # Columns that are copied come first. Of them only the column is read.
    channels = [(column, 0.0, 0.0) for column in range(leading)]

    # For each three coordinates: all sines, then all cosines; within them, coordinate by
    # coordinate; within these, octave by octave.
    for number, (count, start) in enumerate(zip(octaves, starts)):
        first_column = leading + 3 * number
        for phase in (0.0, 0.5):
            for column in range(first_column, first_column + 3):
                for octave in range(start, start + count):
                    channels.append((column, 2.0**octave, phase))

    channels += [(0, 0.0, 0.0)] * (width - len(channels))
    columns, scales, phases = zip(*channels)
    return (
        torch.tensor(columns, device=device, dtype=torch.int32),
        torch.tensor(scales, device=device),
        torch.tensor(phases, device=device),
    )


@triton.jit
def _sine_of_half_turns(half_turns):
    """Return sin(π · half_turns) for numbers in [-1, 1]."""
    # By symmetry, an angle in [0, 1/2] has the same sine but for its sign.
    u = 0.5 - tl.abs(tl.abs(half_turns) - 0.5)

    # An odd polynomial, fitted to sin(π u) on [0, 1/2] so that its largest error is as small as
    # possible: 3.4e-9.
    square = u * u
    sine = 0.07722013444 * square - 0.5980451703
    sine = sine * square + 2.5500314236
    sine = sine * square - 5.1677069664
    sine = (sine * square + 3.1415925027) * u
    return tl.where(half_turns < 0, -sine, sine)


@triton.jit
def _encode_kernel(
    rows, columns, scales, phases, encoded, count,
    COLUMNS: tl.constexpr, LEADING: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    # A block of rows and a chunk of channels; both may reach beyond the end.
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    channel_mask = channel < WIDTH
    mask = (row < count - first)[:, None] & channel_mask[None, :]

    # Each channel reads its column.
    column = tl.load(columns + channel, mask=channel_mask, other=0)
    source = rows + first * COLUMNS + row[:, None] * COLUMNS + column[None, :]
    x = tl.load(source, mask, other=0.0)

    # The angle in half turns. Removing whole turns is exact, and leaves a number in [-1, 1].
    half_turns = x * tl.load(scales + channel, mask=channel_mask, other=0.0)[None, :]
    half_turns -= 2 * tl.floor(0.5 * half_turns + 0.5)
    half_turns += tl.load(phases + channel, mask=channel_mask, other=0.0)[None, :]
    half_turns -= 2 * tl.floor(0.5 * half_turns + 0.5)

    # Leading channels are copied, all others are encoded.
    value = tl.where((channel < LEADING)[None, :], x, _sine_of_half_turns(half_turns))
    target = encoded + first * WIDTH + row[:, None] * WIDTH + channel[None, :]
    tl.store(target, value.to(encoded.dtype.element_ty), mask=mask)
