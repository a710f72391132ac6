"""Triton kernels: the decoder's MLP, a product with all that its hidden channels need; encodings;
the camera's part of the encoder's first layer.

Imported on a GPU only; srt/model/fused_decoder.py, encoding.py and encoder.py have the same in plain
PyTorch, and say when to use which. Rows are queries, points or pixels. In the MLP a program holds
some of them and goes through the hidden channels. Triton's blocks are powers of two, so that a
width of 192 is 128 + 64, and one of 96 is 64 + 32: names end in `_a` for the first part and in `_b`
for the second.
"""

# ruff: noqa: N803, N806  (what is known when a kernel is compiled is in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.common.shapes import Float

# By width: rows and hidden channels in hand, warps, stages. The fastest of seven on an H200.
EXPAND = {96: (64, 64, 4, 3), 192: (128, 32, 8, 3)}
CONTRACT_BACKWARD = {96: (64, 64, 4, 3), 192: (128, 64, 8, 2)}
ENCODED_ROWS = 64  # in hand
NUMBERS = 1024  # in hand, of an image's row, where the camera is added
COLUMNS = 32  # in hand, with all their channels, where the camera's gradient is added up


@triton.jit
def _gelu(x):
    """Returns the normal distribution's integral up to x, and its density.

    Abramowitz and Stegun, 7.1.25: off by 1.3e-5 at most, a hundredth of bfloat16's rounding.
    """
    bell = tl.exp2(x * x * -0.72134752)
    distance = 1.0 + 0.33267253 * tl.abs(x)
    t = tl.rsqrt(distance * distance)
    tail = bell * t * (0.1740121 + t * (-0.0479399 + t * 0.3739278))
    return tl.where(x > 0, 1.0 - tail, tail), bell * 0.39894228


@triton.jit
def _expand_kernel(
    normal, expand, hidden, slope, count,
    KEEP: tl.constexpr, A: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = A + A // 2
    first = tl.program_id(0).to(tl.int64) * ROWS
    row, column = tl.arange(0, ROWS), tl.arange(0, CHUNK)
    place_a, place_b = tl.arange(0, A), A + tl.arange(0, A // 2)
    here = (row < count - first)[:, None]
    rows = normal + first * WIDTH + row[:, None] * WIDTH
    normal_a = tl.load(rows + place_a[None, :], mask=here, other=0.0)
    normal_b = tl.load(rows + place_b[None, :], mask=here, other=0.0)
    hidden += first * HIDDEN
    slope += first * HIDDEN
    for start in range(0, HIDDEN, CHUNK):
        columns = start + column[None, :]
        x = tl.dot(normal_a, tl.load(expand + place_a[:, None] * HIDDEN + columns))
        x = tl.dot(normal_b, tl.load(expand + place_b[:, None] * HIDDEN + columns), x)
        part, density = _gelu(x)
        place = row[:, None] * HIDDEN + columns
        tl.store(hidden + place, (x * part).to(hidden.dtype.element_ty), mask=here)
        if KEEP:
            tl.store(slope + place, (part + x * density).to(slope.dtype.element_ty), mask=here)


@triton.jit
def _contract_backward_kernel(
    dy, contract, slope, dx, count,
    A: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = A + A // 2
    first = tl.program_id(0).to(tl.int64) * ROWS
    row, column = tl.arange(0, ROWS), tl.arange(0, CHUNK)
    place_a, place_b = tl.arange(0, A), A + tl.arange(0, A // 2)
    here = (row < count - first)[:, None]
    rows = dy + first * WIDTH + row[:, None] * WIDTH
    dy_a = tl.load(rows + place_a[None, :], mask=here, other=0.0)
    dy_b = tl.load(rows + place_b[None, :], mask=here, other=0.0)
    slope += first * HIDDEN
    dx += first * HIDDEN
    for start in range(0, HIDDEN, CHUNK):
        weights = contract + (start + column)[:, None] * WIDTH
        place = row[:, None] * HIDDEN + (start + column)[None, :]
        steep = tl.load(slope + place, mask=here, other=0.0)
        dh = tl.dot(dy_a, tl.trans(tl.load(weights + place_a[None, :])))
        dh = tl.dot(dy_b, tl.trans(tl.load(weights + place_b[None, :])), dh)
        tl.store(dx + place, (dh * steep).to(dx.dtype.element_ty), mask=here)


def _shape(width: int, hidden: int, count: int, by_width: dict[int, Any]) -> tuple[Any, Any]:
    """Returns the grid, and what a kernel is compiled for."""
    rows, chunk, warps, stages = by_width[width]
    sizes = {"A": width // 3 * 2, "HIDDEN": hidden, "ROWS": rows, "CHUNK": chunk}
    return (triton.cdiv(count, rows),), {**sizes, "num_warps": warps, "num_stages": stages}


def expand_gelu(
    normal: Float[Tensor, "n width"], expand: Float[Tensor, "width hidden"], keep: bool
) -> tuple[Float[Tensor, "n hidden"], Float[Tensor, "_ hidden"]]:
    """Returns GELU(normal · expand), and GELU's slope there if it is to be kept."""
    count, hidden = normal.shape[0], expand.shape[1]
    activations = normal.new_empty(count, hidden)
    slope = normal.new_empty(count if keep else 0, hidden)
    grid, sizes = _shape(normal.shape[1], hidden, count, EXPAND)
    _expand_kernel[grid](normal, expand, activations, slope, count, KEEP=keep, **sizes)
    return activations, slope


def contract_backward(
    dy: Float[Tensor, "n width"],
    contract: Float[Tensor, "hidden width"],
    slope: Float[Tensor, "n hidden"],
) -> Float[Tensor, "n hidden"]:
    """Returns (dy · contractᵀ) · slope: the gradient of what GELU is taken of."""
    dx = torch.empty_like(slope)
    grid, sizes = _shape(dy.shape[1], slope.shape[1], dy.shape[0], CONTRACT_BACKWARD)
    _contract_backward_kernel[grid](dy, contract, slope, dx, dy.shape[0], **sizes)
    return dx


@triton.jit
def _encode_kernel(
    rows, source, scale, phase, encoded, count,
    COLUMNS: tl.constexpr, RAW: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * ROWS
    row, channel = tl.arange(0, ROWS), tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    here = (row < count - first)[:, None] & (channel < WIDTH)[None, :]
    inside = channel < WIDTH
    column = tl.load(source + channel, mask=inside, other=0)
    x = tl.load(rows + first * COLUMNS + row[:, None] * COLUMNS + column[None, :], here, other=0.0)
    # Half turns, of which whole turns are left out: exact. What is left is in [-1, 1].
    half_turns = x * tl.load(scale + channel, mask=inside, other=0.0)[None, :]
    half_turns -= 2 * tl.floor(0.5 * half_turns + 0.5)
    half_turns += tl.load(phase + channel, mask=inside, other=0.0)[None, :]
    half_turns -= 2 * tl.floor(0.5 * half_turns + 0.5)
    u = 0.5 - tl.abs(tl.abs(half_turns) - 0.5)
    square = u * u
    # sin(pi u) on [0, 1/2], fitted so that its largest error is the smallest: 3.4e-9.
    sine = 0.07722013444 * square - 0.5980451703
    sine = sine * square + 2.5500314236
    sine = sine * square - 5.1677069664
    sine = (sine * square + 3.1415925027) * u
    sine = tl.where(half_turns < 0, -sine, sine)
    value = tl.where((channel < RAW)[None, :], x, sine)
    place = encoded + first * WIDTH + row[:, None] * WIDTH + channel[None, :]
    tl.store(place, value.to(encoded.dtype.element_ty), mask=here)


@functools.cache
def _waves(
    raw: int, octaves: tuple[int, ...], starts: tuple[int, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each channel's column, its half turns a unit, and the phase in half turns."""
    channels = [(column, 0.0, 0.0) for column in range(raw)]
    for part, (count, start) in enumerate(zip(octaves, starts)):
        for phase in (0.0, 0.5):
            for axis in range(raw + 3 * part, raw + 3 * part + 3):
                channels += [(axis, 2.0**octave, phase) for octave in range(start, start + count)]
    channels += [(0, 0.0, 0.0)] * (width - len(channels))
    source, scale, phases = zip(*channels)
    return (
        torch.tensor(source, device=device, dtype=torch.int32),
        torch.tensor(scale, device=device),
        torch.tensor(phases, device=device),
    )


def encode(
    rows: Float[Tensor, "n columns"],
    raw: int,
    octaves: tuple[int, ...],
    starts: tuple[int, ...],
    width: int,
) -> Float[Tensor, "n width"]:
    """Returns the first `raw` columns, sines and cosines of each three of the others, and 0."""
    encoded = rows.new_empty(rows.shape[0], width, dtype=torch.bfloat16)
    chunk = 64 if width % 64 == 0 else 32
    grid = (triton.cdiv(rows.shape[0], ENCODED_ROWS), triton.cdiv(width, chunk))
    sizes = {"COLUMNS": rows.shape[1], "RAW": raw, "WIDTH": width, "CHUNK": chunk}
    waves = _waves(raw, octaves, starts, width, rows.device)
    _encode_kernel[grid](rows, *waves, encoded, rows.shape[0], ROWS=ENCODED_ROWS, **sizes)
    return encoded


@triton.jit
def _add_camera_kernel(
    pixels, camera, out,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0)
    image, y = line // HEIGHT, line % HEIGHT
    number = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    here = number < WIDTH * CHANNELS
    x, channel = number // CHANNELS, number % CHANNELS
    row = tl.where(y == 0, 0, tl.where(y == HEIGHT - 1, 2, 1))
    column = tl.where(x == 0, 0, tl.where(x == WIDTH - 1, 2, 1))
    place = line.to(tl.int64) * (WIDTH * CHANNELS) + number
    seen = tl.load(pixels + place, here, other=0.0).to(tl.float32)
    value = tl.load(camera + ((image * 3 + row) * 3 + column) * CHANNELS + channel, here, other=0.0)
    found = tl.maximum(seen + value.to(tl.float32), 0.0)
    tl.store(out + place, found.to(out.dtype.element_ty), here)


def add_camera(
    pixels: Float[Tensor, "n c h w"], camera: Float[Tensor, "n c 3 3"]
) -> Float[Tensor, "n c h w"]:
    """Returns the ReLU of pixels, whose channels stand in the last place, plus a camera's part."""
    count, channels, height, width = pixels.shape
    out, values = torch.empty_like(pixels), camera.permute(0, 2, 3, 1).contiguous()
    sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels}
    grid = (count * height, triton.cdiv(width * channels, NUMBERS))
    _add_camera_kernel[grid](pixels, values, out, **sizes, NUMBERS=NUMBERS)
    return out


@triton.jit
def _kept(out, dy, place, here):
    """Returns the gradient where the ReLU let its input through, else 0."""
    positive = tl.load(out + place, here, other=0.0) > 0
    return tl.where(positive, tl.load(dy + place, here, other=0.0), 0.0)


@triton.jit
def _add_camera_backward_kernel(
    out, dy, dpixels, sums,
    WIDTH: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    line, column, channel = tl.program_id(0), tl.arange(0, COLUMNS)[:, None], tl.arange(0, PADDED)
    known, start = channel < CHANNELS, line.to(tl.int64) * (WIDTH * CHANNELS)
    total = tl.zeros((COLUMNS, PADDED), tl.float32)
    for left in range(0, WIDTH, COLUMNS):
        here = (left + column < WIDTH) & known[None, :]
        place = start + (left + column) * CHANNELS + channel[None, :]
        gradient = _kept(out, dy, place, here)
        tl.store(dpixels + place, gradient.to(dpixels.dtype.element_ty), here)
        total += gradient.to(tl.float32)
    first = _kept(out, dy, start + channel, known).to(tl.float32)
    last = _kept(out, dy, start + (WIDTH - 1) * CHANNELS + channel, known).to(tl.float32)
    sums += line.to(tl.int64) * (3 * CHANNELS) + channel
    tl.store(sums, first, known)
    tl.store(sums + CHANNELS, tl.sum(total, 0) - first - last, known)
    tl.store(sums + 2 * CHANNELS, last, known)


def add_camera_backward(
    out: Float[Tensor, "n c h w"], dy: Float[Tensor, "n c h w"]
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c 3 3"]]:
    """Returns the gradients of `add_camera`'s pixels and camera, from its outcome."""
    count, channels, height, width = out.shape
    dpixels, sums = torch.empty_like(out), out.new_empty(count, height, 3, channels).float()
    sizes = {"WIDTH": width, "CHANNELS": channels, "COLUMNS": COLUMNS}
    padded = triton.next_power_of_2(channels)
    _add_camera_backward_kernel[(count * height,)](out, dy, dpixels, sums, **sizes, PADDED=padded)
    rows = torch.stack((sums[:, 0], sums[:, 1:-1].sum(dim=1), sums[:, -1]), dim=1)
    return dpixels, rows.permute(0, 3, 1, 2).to(out.dtype).contiguous()
