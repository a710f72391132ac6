"""The encoder's first layer behind its convolution: its kernels against the compiler's.

    python -m benchmarks.first_layer

Nine values of an image, of its camera's position, are added to a convolution of its pixels, and the
ReLU is taken (srt/models/encoder.py, CameraAndPixels). The compiler's kernels keep a mask for the
backward pass; ours (srt/models/kernels.py) read what the next layer keeps in any case, and take the
sums for the nine values along.

n images of c channels, h x w pixels; channels stand in the last place.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import triton
from torch import Tensor

from srt.models.encoder import CameraAndPixels
from srt.models.kernels import add_camera, add_camera_backward

SIZES = {"SRT, MSN": (160, 96, 128, 128), "SRT, NMR": (256, 96, 64, 64)}


def random_tensors(shape: tuple[int, int, int, int]) -> list[Tensor]:
    """Returns pixels, camera and a gradient."""
    torch.manual_seed(0)
    images = [torch.randn(shape, device="cuda").bfloat16() for _ in range(2)]
    pixels, dy = (part.contiguous(memory_format=torch.channels_last) for part in images)
    return [pixels, torch.randn(*shape[:2], 3, 3, device="cuda").bfloat16(), dy]


def milliseconds(work: Callable[[], object]) -> float:
    """Returns the median."""
    found: float = triton.testing.do_bench(work, return_mode="median")
    return found


def compare(pixels: Tensor, camera: Tensor, dy: Tensor) -> str:
    """Returns the milliseconds of both ways, forward and backward."""
    inputs = [pixels.clone().requires_grad_(), camera.clone().requires_grad_()]
    compiled = torch.compile(CameraAndPixels(), dynamic=False)  # which is plain without autocast
    seen, out = compiled(*inputs), add_camera(pixels, camera)
    theirs = milliseconds(lambda: compiled(*inputs))
    ours = milliseconds(lambda: add_camera(pixels, camera))
    theirs_back = milliseconds(lambda: torch.autograd.grad(seen, inputs, dy, retain_graph=True))
    ours_back = milliseconds(lambda: add_camera_backward(out, dy))
    return (
        f"forward {theirs:.3f} by the compiler, {ours:.3f} by ours;"
        f" backward {theirs_back:.3f} and {ours_back:.3f}"
    )


def main() -> None:
    """Prints the milliseconds of both ways."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(torch.cuda.get_device_name())
    for name, shape in SIZES.items():
        print(f"{name}: {compare(*random_tensors(shape))}")


if __name__ == "__main__":
    main()
