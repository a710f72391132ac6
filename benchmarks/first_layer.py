"""The encoder's first layer behind its convolution: our kernels against the compiler's.

    python -m benchmarks.first_layer

Nine values of an image, of its camera's position, are added to a convolution of its pixels, and the
ReLU is taken: srt/model/encoder.py, CameraAndPixels; the kernels are in srt/model/kernels/triton_mlp.py.

n images of c channels, h x w pixels; channels stand in the last place.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from benchmarks.attention_speed import milliseconds
from srt.model.encoder import CameraAndPixels
from srt.model.kernels.triton_mlp import add_camera, add_camera_backward

SIZES = {"SRT, MSN": (160, 96, 128, 128), "SRT, NMR": (256, 96, 64, 64)}


def random_tensors(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns pixels, camera and a gradient."""
    torch.manual_seed(0)
    images = [torch.randn(shape, device="cuda").bfloat16() for _ in range(2)]
    pixels, dy = (part.contiguous(memory_format=torch.channels_last) for part in images)
    return pixels, torch.randn(*shape[:2], 3, 3, device="cuda").bfloat16(), dy


def compare(pixels: Tensor, camera: Tensor, dy: Tensor) -> str:
    """Returns the milliseconds of both ways, forward and backward."""
    inputs = [pixels.clone().requires_grad_(), camera.clone().requires_grad_()]
    compiled = torch.compile(CameraAndPixels(), dynamic=False)  # which is plain without autocast
    seen, out = compiled(*inputs), add_camera(pixels, camera)
    backward = partial(torch.autograd.grad, seen, inputs, dy, retain_graph=True)
    theirs = milliseconds(partial(compiled, *inputs)), milliseconds(backward)
    ours = (
        milliseconds(partial(add_camera, pixels, camera)),
        milliseconds(partial(add_camera_backward, out, dy)),
    )
    return (
        f"forward {theirs[0]:.3f} by the compiler, {ours[0]:.3f} by ours;"
        f" backward {theirs[1]:.3f} and {ours[1]:.3f}"
    )


def main() -> None:
    """Prints the milliseconds of both ways."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(torch.cuda.get_device_name())
    for name, shape in SIZES.items():
        print(f"{name}: {compare(*random_tensors(*shape))}")


if __name__ == "__main__":
    main()
