"""Compares our kernels for the encoder's first layer with those of the compiler.

    python -m benchmarks.first_layer

After the first convolution, nine values that depend on an image's camera are added to its channels,
and the ReLU is applied (`CameraAndPixels` in srt/model/encoder.py). Our kernels for this are in
srt/model/kernels/triton_camera.py.

Shapes: n images of c channels, h x w pixels. In memory, channels come last.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.attention_speed import milliseconds
from benchmarks.command_line import make_parser
from srt.model.encoder import CameraAndPixels

SIZES = {"SRT, MSN": (160, 96, 128, 128), "SRT, NMR": (256, 96, 64, 64)}


def random_tensors(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the convolution of the pixels, (n, c, h, w), the camera's values, and a gradient."""
    torch.manual_seed(0)
    images = [torch.randn(shape, device="cuda").bfloat16() for _ in range(2)]
    pixels, dy = (image.contiguous(memory_format=torch.channels_last) for image in images)
    return pixels, torch.randn(*shape[:2], 3, 3, device="cuda").bfloat16(), dy


def compare(pixels: Tensor, camera: Tensor, dy: Tensor) -> str:
    """Return the milliseconds of both, forward and backward, as text."""
    # Triton is on machines with a GPU only.
    from srt.model.kernels.triton_camera import add_camera, add_camera_backward

    # Without autocast, the module uses plain operations and not our kernels.
    inputs = [pixels.clone().requires_grad_(), camera.clone().requires_grad_()]
    compiled = torch.compile(CameraAndPixels(), dynamic=False)
    output, out = compiled(*inputs), add_camera(pixels, camera)
    backward = partial(torch.autograd.grad, output, inputs, dy, retain_graph=True)

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
    """Print the milliseconds of the compiler's kernels and of ours for all sizes."""
    make_parser(__doc__).parse_args()
    print(torch.cuda.get_device_name())
    for name, shape in SIZES.items():
        print(f"{name}: {compare(*random_tensors(*shape))}")


if __name__ == "__main__":
    main()
