"""H.264 videos, written frame by frame. Their bytes do not depend on the number of cores."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np

from srt.shapes import UInt8

BT709 = 1  # H.264's number of the colour space that browsers expect
QUALITY = {"crf": "18", "preset": "medium"}  # losses that the eye does not see


class VideoWriter:
    """Context manager for a video that plays in browsers; `path` exists once it is complete.

    An odd height or width grows by one pixel, a copy of the last row or column: the pixel format
    has one colour for each 2 x 2 pixels.
    """

    def __init__(self, path: Path, frames_per_second: int) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.part")
        self._frames_per_second = frames_per_second
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> VideoWriter:
        import av

        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(self._partial), "w", format="mp4", container_options=options)
        return self

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Appends a frame. Raises ValueError where it is not of the first frame's shape."""
        import av

        if self._shape is None:
            self._shape = frame.shape
            self._open_stream(*frame.shape[:2])
        if frame.shape != self._shape:
            raise ValueError(
                f"{self._path}: a frame has shape {frame.shape}, the first one had {self._shape}"
            )
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709, threads=1
        )
        self._container.mux(self._stream.encode(picture))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._container.close()
            self._partial.unlink(missing_ok=True)

    def _open_stream(self, height: int, width: int) -> None:
        stream = self._container.add_stream("libx264", self._frames_per_second, options=QUALITY)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.thread_count = 1  # the bytes would depend on it
        self._stream = stream

    def _finish(self) -> None:
        if self._shape is None:
            raise ValueError(f"{self._path}: a video needs at least one frame")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.replace(self._path)
