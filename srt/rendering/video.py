"""Videos, written frame by frame: H.264, whose bytes do not depend on the cores, and GIF."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np

from srt.common.shapes import UInt8

if TYPE_CHECKING:
    from PIL import Image

BT709 = 1  # H.264's number of the colour space that browsers expect
QUALITY = {"crf": "18", "preset": "medium"}  # losses that the eye does not see
SHORTEST_DELAY = 20  # milliseconds of a GIF's frame: browsers show shorter ones for 100


def made_ahead(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yields the frames; while one is used, a thread makes the next."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = iter(frames)
        following = pool.submit(next, coming, None)
        while (frame := following.result()) is not None:
            following = pool.submit(next, coming, None)
            yield frame


class VideoWriter(ABC):
    """Context manager for a video that plays in browsers; `path` exists once it is complete."""

    def __init__(self, path: Path, frames_per_second: int) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.part")
        self._frames_per_second = frames_per_second
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> VideoWriter:
        self._open()
        return self

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Appends a frame. Raises ValueError where it is not of the first frame's shape."""
        if self._shape is not None and frame.shape != self._shape:
            raise ValueError(
                f"{self._path}: a frame has shape {frame.shape}, the first one had {self._shape}"
            )
        self._append(frame)
        self._shape = frame.shape

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._replace()
        finally:
            self._close()
            self._partial.unlink(missing_ok=True)

    def _replace(self) -> None:
        if self._shape is None:
            raise ValueError(f"{self._path}: a video needs at least one frame")
        self._finish()
        self._close()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.replace(self._path)

    @abstractmethod
    def _open(self) -> None:
        """Begins the partial file, so that a folder that cannot be written to is known at once."""

    @abstractmethod
    def _append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Takes a frame of the right shape."""

    @abstractmethod
    def _finish(self) -> None:
        """Writes what is left to write."""

    @abstractmethod
    def _close(self) -> None:
        """Closes the partial file, complete or not, once or twice."""


class Mp4Writer(VideoWriter):
    """H.264.

    An odd height or width grows by one pixel, a copy of the last row or column: the pixel format
    has one colour for each 2 x 2 pixels.
    """

    def _open(self) -> None:
        import av

        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(self._partial), "w", format="mp4", container_options=options)

    def _append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        import av

        height, width = frame.shape[:2]
        if self._shape is None:
            self._open_stream(height, width)
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709, threads=1
        )
        self._container.mux(self._stream.encode(picture))

    def _open_stream(self, height: int, width: int) -> None:
        stream = self._container.add_stream("libx264", self._frames_per_second, options=QUALITY)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.thread_count = 1  # the bytes would depend on it
        self._stream = stream

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _close(self) -> None:
        self._container.close()


class GifWriter(VideoWriter):
    """A GIF that plays in a loop, with 256 colours of its own for each frame.

    Its frames last whole hundredths of a second, two at least: 60 a second become 50.
    """

    def _open(self) -> None:
        self._file: IO[bytes] = self._partial.open("wb")
        self._frames: list[Image.Image] = []

    def _append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        from PIL import Image

        self._frames.append(Image.fromarray(frame).quantize(256))

    def _finish(self) -> None:
        delay = max(SHORTEST_DELAY, round(100 / self._frames_per_second) * 10)
        first, *others = self._frames
        first.save(
            self._file, format="gif", save_all=True, append_images=others, duration=delay, loop=0
        )

    def _close(self) -> None:
        self._file.close()


WRITERS: dict[str, type[VideoWriter]] = {".mp4": Mp4Writer, ".gif": GifWriter}
