"""One small GIF from several videos: the inputs of models and their renders, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from srt.common.shapes import UInt8
from srt.rendering.video import GifWriter
from srt.visualization.pictures import tile

MOST_FRAMES = 24
FRAMES_PER_SECOND = 8
HEIGHT = 180  # pixels of each video, so that two fit side by side in a README


def write_teaser(path: Path, videos: Sequence[Path], frames: int) -> None:
    """Write a GIF of the first scenes of the videos, reduced and side by side.

    Args:
        path: the GIF.
        videos: files that `workflow.render` wrote.
        frames: the number of frames of the first scene, in each video.
    """
    # Of each video, read every n-th frame of the first scene.
    stride = max(1, frames // MOST_FRAMES)
    streams = [islice(read_frames(video), 0, frames, stride) for video in videos]

    # A frame of the GIF holds the frames of all videos at one time.
    with GifWriter(path, FRAMES_PER_SECOND) as writer:
        for simultaneous in zip(*streams):
            writer.write(tile([_reduce(frame) for frame in simultaneous], axis=1))


def _reduce(frame: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the frame at height `HEIGHT`."""
    from PIL import Image

    height, width = frame.shape[:2]
    size = (round(width * HEIGHT / height), HEIGHT)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def read_frames(path: Path) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield a video's frames. They are the same bytes on every machine.

    H.264 defines the decoder's output exactly, and `yuv_to_rgb` computes with integers alone.
    """
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield yuv_to_rgb(frame.to_ndarray(), frame.height)


def yuv_to_rgb(
    planes: UInt8[np.ndarray, "rows width"], height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the RGB colours of a frame in YUV 4:2:0 (BT.709, limited range).

    Args:
        planes: the brightness of all pixels, and below it the two colour differences, each at half
            the height and width.
    """
    # Brightness has the range 16 to 235. The factors are fixed-point numbers of 8 bits' fraction.
    width = planes.shape[1]
    light = 298 * (planes[:height].astype(np.int32) - 16)  # (height, width)

    # Each colour difference, centred on 128, belongs to a block of 2 x 2 pixels.
    halves = planes[height:].reshape(2, height // 2, width // 2).astype(np.int32) - 128
    blue, red = halves.repeat(2, axis=1).repeat(2, axis=2)  # each (height, width)

    # Adding 128 before the shift by 8 bits rounds to the nearest integer.
    green = light - 55 * blue - 136 * red
    colours = np.stack((light + 459 * red, green, light + 541 * blue), axis=-1)
    return np.clip((colours + 128) >> 8, 0, 255).astype(np.uint8)
