"""Triton kernels that add a camera's nine values to an image and take the ReLU.

They follow the first convolution of the encoder. The plain version is `CameraAndPixels` in
srt/model/encoder.py, which says what the nine values are: one for each corner and each edge, and
one for all pixels inside. `benchmarks/first_layer.py` measures both.

n images of c channels, h x w pixels. Channels are last in memory.
"""

# ruff: noqa: N803  (constants of a compiled kernel are in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.common.shapes import Float

# The numbers that a program of the forward kernel holds: channels of pixels of one image row.
NUMBERS = 1024

# The pixels, with all their channels, that a program of the backward kernel holds at once.
COLUMNS = 32


def add_camera(
    pixels: Float[Tensor, "n c h w"], camera: Float[Tensor, "n c 3 3"]
) -> Float[Tensor, "n c h w"]:
    """Return ReLU(pixels + camera), with each pixel's one of the nine values."""
    count, channels, height, width = pixels.shape
    out = torch.empty_like(pixels)
    values = camera.permute(0, 2, 3, 1).contiguous()  # (n, 3, 3, c)
    sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels}
    grid = (count * height, triton.cdiv(width * channels, NUMBERS))
    _add_camera_kernel[grid](pixels, values, out, **sizes, NUMBERS=NUMBERS)
    return out


def add_camera_backward(
    out: Float[Tensor, "n c h w"], dy: Float[Tensor, "n c h w"]
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c 3 3"]]:
    """Return the gradients of the pixels and of the camera's values.

    Args:
        out: what `add_camera` returned.
        dy: its gradient.
    """
    # The kernel sums over each image row: its first pixel, those between, and its last pixel.
    count, channels, height, width = out.shape
    dpixels = torch.empty_like(out)
    sums = out.new_empty(count, height, 3, channels).float()
    sizes = {"WIDTH": width, "CHANNELS": channels, "COLUMNS": COLUMNS}
    padded = triton.next_power_of_2(channels)
    _add_camera_backward_kernel[(count * height,)](out, dy, dpixels, sums, **sizes, PADDED=padded)

    # The sums of the first row, of those between, and of the last row are the nine gradients.
    rows = torch.stack((sums[:, 0], sums[:, 1:-1].sum(dim=1), sums[:, -1]), dim=1)  # (n, 3, 3, c)
    return dpixels, rows.permute(0, 3, 1, 2).to(out.dtype).contiguous()


@triton.jit
def _add_camera_kernel(
    pixels, camera, out,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    # A program has a piece of one image row: consecutive numbers, which are pixels' channels.
    image_row = tl.program_id(0)
    image = image_row // HEIGHT
    y = image_row % HEIGHT
    number = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    mask = number < WIDTH * CHANNELS
    x = number // CHANNELS
    channel = number % CHANNELS

    # Which of the nine values each pixel gets: 0 at the first row or column, 2 at the last, else 1.
    row = tl.where(y == 0, 0, tl.where(y == HEIGHT - 1, 2, 1))
    column = tl.where(x == 0, 0, tl.where(x == WIDTH - 1, 2, 1))
    camera_pointer = camera + ((image * 3 + row) * 3 + column) * CHANNELS + channel

    # Add in float32, and round once.
    offset = image_row.to(tl.int64) * (WIDTH * CHANNELS) + number
    pixel_value = tl.load(pixels + offset, mask, other=0.0).to(tl.float32)
    camera_value = tl.load(camera_pointer, mask, other=0.0).to(tl.float32)
    result = tl.maximum(pixel_value + camera_value, 0.0)
    tl.store(out + offset, result.to(out.dtype.element_ty), mask)


@triton.jit
def _relu_gradient(out, dy, offset, mask):
    """Return the gradient before the ReLU: 0 where the ReLU's result is 0."""
    positive = tl.load(out + offset, mask, other=0.0) > 0
    return tl.where(positive, tl.load(dy + offset, mask, other=0.0), 0.0)


@triton.jit
def _add_camera_backward_kernel(
    out, dy, dpixels, sums,
    WIDTH: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    # A program has one image row. Its channels are padded to a power of two.
    image_row = tl.program_id(0)
    column = tl.arange(0, COLUMNS)[:, None]
    channel = tl.arange(0, PADDED)
    channel_mask = channel < CHANNELS
    row_start = image_row.to(tl.int64) * (WIDTH * CHANNELS)

    # The pixels' gradients, and their sum over the row.
    total = tl.zeros((COLUMNS, PADDED), tl.float32)
    for start in range(0, WIDTH, COLUMNS):
        mask = (start + column < WIDTH) & channel_mask[None, :]
        offset = row_start + (start + column) * CHANNELS + channel[None, :]
        gradient = _relu_gradient(out, dy, offset, mask)
        tl.store(dpixels + offset, gradient.to(dpixels.dtype.element_ty), mask)
        total += gradient.to(tl.float32)

    # The first and the last pixel of the row belong to other values of the camera than the rest.
    last_offset = row_start + (WIDTH - 1) * CHANNELS + channel
    first = _relu_gradient(out, dy, row_start + channel, channel_mask).to(tl.float32)
    last = _relu_gradient(out, dy, last_offset, channel_mask).to(tl.float32)
    sums += image_row.to(tl.int64) * (3 * CHANNELS) + channel
    tl.store(sums, first, channel_mask)
    tl.store(sums + CHANNELS, tl.sum(total, 0) - first - last, channel_mask)
    tl.store(sums + 2 * CHANNELS, last, channel_mask)
