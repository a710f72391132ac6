"""Videos that are written and read back."""

import av
import numpy as np
import pytest
from PIL import Image

from srt.rendering.video import WRITERS


def smooth_frames(height, width, count):
    """Yield frames of waves that move, which every codec can compress well."""
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        waves = (np.sin(x / 25 + i / 10), np.sin(y / 20 + i / 7), np.cos((x + y) / 30))
        yield np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def write_video(path, frames, frames_per_second=30):
    with WRITERS[path.suffix](path, frames_per_second) as video:
        for frame in frames:
            video.write(frame)


def read_video(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream, frames


def decibels(frame, original):
    """Return the PSNR between two frames of bytes."""
    error = frame / 255.0 - original / 255.0
    return -10 * np.log10((error**2).mean())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 64), (64, 65), (17, 33), (1, 1)])
def test_frames_of_any_size_come_back(tmp_path, height, width):
    write_video(tmp_path / "video.mp4", smooth_frames(height, width, 12))
    stream, decoded = read_video(tmp_path / "video.mp4")
    assert (len(decoded), stream.average_rate) == (12, 30)
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")

    # An odd height or width has grown by one pixel.
    assert decoded[0].shape == (height + height % 2, width + width % 2, 3)
    for frame, original in zip(decoded, smooth_frames(height, width, 12), strict=True):
        assert decibels(frame[:height, :width], original) > 30


def test_equal_frames_give_equal_bytes(tmp_path):
    contents = set()
    for _ in range(6):
        write_video(tmp_path / "a.mp4", smooth_frames(240, 320, 12))
        contents.add((tmp_path / "a.mp4").read_bytes())
    assert len(contents) == 1


def test_a_browser_finds_the_index_before_the_frames(tmp_path):
    write_video(tmp_path / "video.mp4", smooth_frames(64, 64, 12))
    content = (tmp_path / "video.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize(("frames_per_second", "delay"), [(10, 100), (24, 40), (60, 20)])
def test_a_gif_plays_in_a_loop_at_about_the_same_speed(tmp_path, frames_per_second, delay):
    frames = list(smooth_frames(33, 48, 12))
    write_video(tmp_path / "video.gif", frames, frames_per_second)
    with Image.open(tmp_path / "video.gif") as video:
        assert (video.n_frames, video.info["loop"]) == (12, 0)
        for i, original in enumerate(frames):
            video.seek(i)
            assert video.info["duration"] == delay
            assert decibels(np.asarray(video.convert("RGB")), original) > 30


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("written", [0, 3])
def test_an_exception_leaves_no_file(tmp_path, suffix, written):
    def interrupted_frames():
        yield from smooth_frames(32, 32, written)
        raise KeyError

    with pytest.raises(KeyError):
        write_video(tmp_path / f"video{suffix}", interrupted_frames())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_exception_does_not_change_an_older_video(tmp_path, suffix):
    path = tmp_path / f"video{suffix}"
    write_video(path, smooth_frames(32, 32, 12))
    older = path.read_bytes()

    # The second frame has another shape than the first.
    frames = [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"video\..*\(16, 16, 3\).*\(32, 32, 3\)"):
        write_video(path, frames)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [older]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_video_without_frames_is_refused(tmp_path, suffix):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / f"video{suffix}", [])
    assert not list(tmp_path.iterdir())
