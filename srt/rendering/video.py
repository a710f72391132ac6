"""Writers of videos, frame by frame: H.264, whose bytes do not depend on the cores, and GIF.

A writer writes to a hidden partial file and renames it at the end, so that an interrupted run
leaves neither half a video nor a damaged old one.
"""

from __future__ import annotations

import os
import platform
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
QUALITY = {"crf": "18", "preset": "medium"}  # the losses are invisible

# x264's code for AVX-512 gives the same frames other bytes at each call: its macroblock tree reads
# memory that nobody wrote. Its code for older processors does not, and is as fast.
if platform.machine() in ("x86_64", "AMD64"):
    QUALITY["x264-params"] = "asm=avx2"
SHORTEST_DELAY = 20  # milliseconds; browsers show a GIF's frame of a shorter delay for 100 ms


def prefetch_frames(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the frames. While the caller uses one, a thread computes the next."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        iterator = iter(frames)
        upcoming = pool.submit(next, iterator, None)
        while (frame := upcoming.result()) is not None:
            upcoming = pool.submit(next, iterator, None)
            yield frame


class VideoWriter(ABC):
    """Context manager that writes a video for browsers. `path` exists only when it is complete.

    A subclass writes the format. Its methods are called in the order `_open`, `_append` for each
    frame, `_finish` if nothing failed, and `_close`.
    """

    def __init__(self, path: Path, frames_per_second: int) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.part")
        self._frames_per_second = frames_per_second
        self._shape: tuple[int, ...] | None = None  # of the first frame

    def __enter__(self) -> VideoWriter:
        self._open()
        return self

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Append a frame.

        Raises:
            ValueError: the frame has another shape than the first one.
        """
        if self._shape is not None and frame.shape != self._shape:
            raise ValueError(
                f"{self._path}: a frame has shape {frame.shape}, the first one had {self._shape}"
            )
        self._append(frame)
        self._shape = frame.shape

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an exception the partial file is removed, and an older video stays.
        try:
            if error_type is None:
                self._replace()
        finally:
            self._close()
            self._partial.unlink(missing_ok=True)

    def _replace(self) -> None:
        """Complete the partial file and give it the name of the video."""
        if self._shape is None:
            raise ValueError(f"{self._path}: a video needs at least one frame")
        self._finish()
        self._close()

        # The content must be on the disk before the name is, or a crash could leave an empty file.
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.replace(self._path)

    @abstractmethod
    def _open(self) -> None:
        """Create the partial file. A folder without write permission fails here, at once."""

    @abstractmethod
    def _append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Encode a frame. All frames have one shape."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what the encoder still holds."""

    @abstractmethod
    def _close(self) -> None:
        """Close the partial file, complete or not. A second call does nothing."""


class Mp4Writer(VideoWriter):
    """Writes H.264 in an MP4 file.

    An odd height or width grows by one pixel, a copy of the last row or column: the pixel format
    has one colour for each 2 x 2 pixels.
    """

    def _open(self) -> None:
        import av

        # The index comes first, so that a browser can start early. No version is in the file.
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(self._partial), "w", format="mp4", container_options=options)

    def _append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        import av

        # Only the first frame says how large the video is.
        height, width = frame.shape[:2]
        if self._shape is None:
            self._open_stream(height, width)

        # Repeat the last row or column if their number is odd, then convert the colours.
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        yuv = rgb.reformat(format="yuv420p", dst_colorspace=BT709, threads=1)
        self._container.mux(self._stream.encode(yuv))

    def _open_stream(self, height: int, width: int) -> None:
        stream = self._container.add_stream("libx264", self._frames_per_second, options=QUALITY)
        stream.height = height + height % 2
        stream.width = width + width % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.thread_count = 1  # the bytes depend on it
        self._stream = stream

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _close(self) -> None:
        self._container.close()


class GifWriter(VideoWriter):
    """Writes a GIF that plays in a loop. Each frame has its own palette of 256 colours.

    A GIF counts delays in hundredths of a second, and browsers need two at least: 60 frames per
    second become 50.
    """

    def _open(self) -> None:
        self._file: IO[bytes] = self._partial.open("wb")
        self._frames: list[Image.Image] = []

    def _append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        from PIL import Image

        self._frames.append(Image.fromarray(frame).quantize(256))

    def _finish(self) -> None:
        # Pillow takes the delay in milliseconds. Loop 0 means without end.
        delay = max(SHORTEST_DELAY, round(100 / self._frames_per_second) * 10)
        self._frames[0].save(
            self._file,
            format="gif",
            save_all=True,
            append_images=self._frames[1:],
            duration=delay,
            loop=0,
        )

    def _close(self) -> None:
        self._file.close()


WRITERS: dict[str, type[VideoWriter]] = {".mp4": Mp4Writer, ".gif": GifWriter}
