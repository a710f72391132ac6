"""Videos -> one small GIF: what models are given, and what they show while a camera goes around."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from srt.common.shapes import UInt8
from srt.rendering.video import GifWriter
from srt.visualization.pictures import tile

FRAMES = 24  # at most
FRAMES_PER_SECOND = 8
HEIGHT = 180  # pixels of each video: two fit beside each other in a README


def write_teaser(path: Path, videos: Sequence[Path], frames: int) -> None:
    """Writes the first scenes of the videos, small and beside each other.

    Args:
        path: of the GIF.
        videos: as render writes them.
        frames: of the first scene of each.
    """
    stride = max(1, frames // FRAMES)
    takes = [islice(frames_of(video), 0, frames, stride) for video in videos]
    with GifWriter(path, FRAMES_PER_SECOND) as writer:
        for beside in zip(*takes):
            writer.write(tile([_reduced(frame) for frame in beside], axis=1))


def _reduced(frame: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    from PIL import Image

    height, width = frame.shape[:2]
    size = (round(width * HEIGHT / height), HEIGHT)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def frames_of(path: Path) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yields a video's frames, the same bytes on every machine: integers alone are multiplied."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield to_rgb(frame.to_ndarray(), frame.height)


def to_rgb(
    planes: UInt8[np.ndarray, "rows width"], height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the colours of brightness and, at half its size, two colour differences (BT.709)."""
    width = planes.shape[1]
    light = 298 * (planes[:height].astype(np.int32) - 16)
    halves = planes[height:].reshape(2, height // 2, width // 2).astype(np.int32) - 128
    blue, red = halves.repeat(2, axis=1).repeat(2, axis=2)
    green = light - 55 * blue - 136 * red
    colours = np.stack((light + 459 * red, green, light + 541 * blue), axis=-1)
    return np.clip((colours + 128) >> 8, 0, 255).astype(np.uint8)
