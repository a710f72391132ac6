"""The encoder's first layer behind its convolution: kernels of our own against the compiler's.

    python -m benchmarks.first_layer

srt/models/encoder.py's CameraAndPixels adds nine values of an image, of its camera's position, to a
convolution of its pixels, and takes the ReLU. The compiler's kernel for that reaches a third of the
memory's speed, and keeps a mask for the backward pass: on an H100 it is 1.9 ms of a step of SRT on
MSN, its backward pass 1.2. Here one kernel reads and writes once, and the other needs no mask, for
the outcome is kept for the next layer; sums for the nine values are taken along. Predicted: 0.7 and
1.0 ms, and 0.25 GB less. Kernels that win by this benchmark belong into srt/models/kernels.py; they
were tried by Triton's interpreter alone.

n images of c channels, h x w pixels; channels stand in the last place.
"""

# ruff: noqa: N803  (what is known when a kernel is compiled is in capitals)
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from srt.models.encoder import CameraAndPixels
from srt.shapes import Float

SIZES = {"SRT, MSN": (160, 96, 128, 128), "SRT, NMR": (256, 96, 64, 64)}
BLOCK = 1024  # numbers in hand, forward
COLUMNS = 16  # pixels in hand, backward


@triton.jit
def _forward_kernel(
    pixels, camera, out, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0)
    image, y = line // HEIGHT, line % HEIGHT
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = number < WIDTH * CHANNELS
    x, channel = number // CHANNELS, number % CHANNELS
    row = tl.where(y == 0, 0, tl.where(y == HEIGHT - 1, 2, 1))
    column = tl.where(x == 0, 0, tl.where(x == WIDTH - 1, 2, 1))
    place = line.to(tl.int64) * (WIDTH * CHANNELS) + number
    seen = tl.load(pixels + place, here, other=0.0).to(tl.float32)
    value = tl.load(camera + ((image * 3 + row) * 3 + column) * CHANNELS + channel, here, other=0.0)
    found = tl.maximum(seen + value.to(tl.float32), 0.0)
    tl.store(out + place, found.to(out.dtype.element_ty), here)


@triton.jit
def _backward_kernel(
    out, dout, dpixels, sums, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, PADDED: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0)
    channel, column = tl.arange(0, PADDED), tl.arange(0, COLUMNS)
    known = channel < CHANNELS
    first = tl.zeros((PADDED,), tl.float32)
    inside, last = first, first
    start = line.to(tl.int64) * (WIDTH * CHANNELS)
    for left in range(0, WIDTH, COLUMNS):
        x = left + column
        here = (x < WIDTH)[:, None] & known[None, :]
        place = start + x[:, None] * CHANNELS + channel[None, :]
        positive = tl.load(out + place, here, other=0.0) > 0
        gradient = tl.where(positive, tl.load(dout + place, here, other=0.0), 0.0)
        tl.store(dpixels + place, gradient, here)
        part = gradient.to(tl.float32)
        first += tl.sum(tl.where((x == 0)[:, None], part, 0.0), 0)
        last += tl.sum(tl.where((x == WIDTH - 1)[:, None], part, 0.0), 0)
        inside += tl.sum(tl.where(((x > 0) & (x < WIDTH - 1))[:, None], part, 0.0), 0)
    sums += line * (3 * CHANNELS) + channel
    tl.store(sums, first, known)
    tl.store(sums + CHANNELS, inside, known)
    tl.store(sums + 2 * CHANNELS, last, known)


def forward(
    pixels: Float[Tensor, "n c h w"], camera: Float[Tensor, "n c 3 3"]
) -> Float[Tensor, "n c h w"]:
    """Returns what CameraAndPixels does."""
    count, channels, height, width = pixels.shape
    out, values = torch.empty_like(pixels), camera.permute(0, 2, 3, 1).contiguous()
    sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels}
    grid = (count * height, triton.cdiv(width * channels, BLOCK))
    _forward_kernel[grid](pixels, values, out, **sizes, BLOCK=BLOCK)
    return out


def backward(
    out: Float[Tensor, "n c h w"], dout: Float[Tensor, "n c h w"]
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c 3 3"]]:
    """Returns the gradients of pixels and camera; those of lines are added by PyTorch."""
    count, channels, height, width = out.shape
    dpixels, sums = torch.empty_like(out), out.new_empty(count, height, 3, channels).float()
    sizes = {"WIDTH": width, "CHANNELS": channels, "COLUMNS": COLUMNS}
    padded = triton.next_power_of_2(channels)
    _backward_kernel[(count * height,)](out, dout, dpixels, sums, **sizes, PADDED=padded)
    rows = torch.stack((sums[:, 0], sums[:, 1:-1].sum(dim=1), sums[:, -1]), dim=1)
    return dpixels, rows.permute(0, 3, 1, 2).to(out.dtype)


def random_tensors(
    shape: tuple[int, int, int, int], device: str, kind: torch.dtype
) -> list[Tensor]:
    """Returns pixels, camera and a gradient."""
    torch.manual_seed(0)
    images = [torch.randn(shape, device=device).to(kind) for _ in range(2)]
    pixels, dout = (part.contiguous(memory_format=torch.channels_last) for part in images)
    return [pixels, torch.randn(*shape[:2], 3, 3, device=device).to(kind), dout]


def check(pixels: Tensor, camera: Tensor, dout: Tensor) -> float:
    """Returns the largest relative error of the camera's gradient; the others must be the same."""
    inputs = [pixels.clone().requires_grad_(), camera.clone().requires_grad_()]
    plain = CameraAndPixels()(*inputs)
    wanted = torch.autograd.grad(plain, inputs, dout)
    out = forward(pixels, camera)
    found = backward(out, dout)
    if not (torch.equal(out, plain) and torch.equal(found[0], wanted[0])):
        raise SystemExit("the kernels are wrong here")
    return ((found[1] - wanted[1]).norm() / wanted[1].norm()).item()


def milliseconds(work: Callable[[], object]) -> float:
    """Returns the median."""
    found: float = triton.testing.do_bench(work, return_mode="median")
    return found


def compare(pixels: Tensor, camera: Tensor, dout: Tensor) -> str:
    """Returns the milliseconds of both ways, forward and backward."""
    inputs = [pixels.clone().requires_grad_(), camera.clone().requires_grad_()]
    compiled = torch.compile(CameraAndPixels(), dynamic=False)
    seen, out = compiled(*inputs), forward(pixels, camera)
    theirs = milliseconds(lambda: compiled(*inputs))
    ours = milliseconds(lambda: forward(pixels, camera))
    theirs_back = milliseconds(lambda: torch.autograd.grad(seen, inputs, dout, retain_graph=True))
    ours_back = milliseconds(lambda: backward(out, dout))
    return (
        f"forward {theirs:.3f} by the compiler, {ours:.3f} by ours;"
        f" backward {theirs_back:.3f} and {ours_back:.3f}"
    )


def main() -> None:
    """Prints an error, and the milliseconds of both ways."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    small = random_tensors((3, 96, 20, 12), "cuda", torch.bfloat16)
    print(torch.cuda.get_device_name(), "error", check(*small))
    for name, shape in SIZES.items():
        print(f"{name}: {compare(*random_tensors(shape, 'cuda', torch.bfloat16))}")


if __name__ == "__main__":
    main()
