"""The encoder's first layer behind its convolution: our kernel against the compiler's.

    python -m benchmarks.first_layer

Nine values of an image, of its camera's position, are added to a convolution of its pixels, and the
ReLU is taken: srt/models/encoder.py, CameraAndPixels; the kernel is in srt/models/kernels.py. The
backward pass is the compiler's either way.

n images of c channels, h x w pixels; channels stand in the last place.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from benchmarks.attention import milliseconds
from srt.models.encoder import CameraAndPixels
from srt.models.kernels import add_camera

SIZES = {"SRT, MSN": (160, 96, 128, 128), "SRT, NMR": (256, 96, 64, 64)}


def random_tensors(count: int, channels: int, *size: int) -> tuple[Tensor, Tensor]:
    """Returns pixels and camera."""
    torch.manual_seed(0)
    pixels = torch.randn(count, channels, *size, device="cuda").bfloat16()
    camera = torch.randn(count, channels, 3, 3, device="cuda").bfloat16()
    return pixels.contiguous(memory_format=torch.channels_last), camera


def main() -> None:
    """Prints the milliseconds of both ways."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(torch.cuda.get_device_name())
    compiled = torch.compile(CameraAndPixels(), dynamic=False)  # which is plain without autocast
    for name, shape in SIZES.items():
        inputs = random_tensors(*shape)
        theirs, ours = (milliseconds(partial(way, *inputs)) for way in (compiled, add_camera))
        print(f"{name}: {theirs:.3f} by the compiler, {ours:.3f} by ours")


if __name__ == "__main__":
    main()
