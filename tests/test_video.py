"""Videos are read back, pictures are looked up at the places where things must be."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from srt.pictures import (
    ERROR_RANGE,
    caption,
    comparison_columns,
    enlarge,
    error_map,
    grid,
    side_by_side,
    tile,
    to_uint8,
    write_picture,
)
from srt.video import VideoWriter


def smooth_frames(height, width, count):
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        waves = (np.sin(x / 25 + i / 10), np.sin(y / 20 + i / 7), np.cos((x + y) / 30))
        yield np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def write_video(path, frames):
    with VideoWriter(path, frames_per_second=30) as video:
        for frame in frames:
            video.write(frame)


def read_video(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream, frames


@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 64), (64, 65), (17, 33), (1, 1)])
def test_frames_of_any_size_come_back(tmp_path, height, width):
    write_video(tmp_path / "video.mp4", smooth_frames(height, width, 12))
    stream, decoded = read_video(tmp_path / "video.mp4")
    assert (len(decoded), stream.average_rate) == (12, 30)
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert decoded[0].shape == (height + height % 2, width + width % 2, 3)
    for frame, original in zip(decoded, smooth_frames(height, width, 12), strict=True):
        error = frame[:height, :width] / 255.0 - original / 255.0
        assert -10 * np.log10((error**2).mean()) > 30


def test_the_same_frames_give_the_same_bytes(tmp_path):
    write_video(tmp_path / "a.mp4", smooth_frames(240, 320, 12))
    write_video(tmp_path / "b.mp4", smooth_frames(240, 320, 12))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_browser_finds_the_index_before_the_frames(tmp_path):
    write_video(tmp_path / "video.mp4", smooth_frames(64, 64, 12))
    content = (tmp_path / "video.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("written", [0, 3])
def test_an_exception_leaves_nothing_behind(tmp_path, written):
    def interrupted():
        yield from smooth_frames(32, 32, written)
        raise KeyError

    with pytest.raises(KeyError):
        write_video(tmp_path / "video.mp4", interrupted())
    assert not list(tmp_path.iterdir())


def test_an_exception_keeps_the_video_that_was_there(tmp_path):
    write_video(tmp_path / "video.mp4", smooth_frames(32, 32, 12))
    before = (tmp_path / "video.mp4").read_bytes()
    frames = [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"video\.mp4.*\(16, 16, 3\).*\(32, 32, 3\)"):
        write_video(tmp_path / "video.mp4", frames)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "video.mp4", [])
    assert not list(tmp_path.iterdir())


def test_colours_are_rounded_and_clipped():
    colours = to_uint8(torch.tensor([[[-0.2, 0.5, 1.3]]]))
    assert colours.tolist() == [[[0, 128, 255]]]


def test_enlarging_makes_every_pixel_a_square():
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    large = enlarge(image, shorter_side=5)
    assert large.shape == (6, 9, 3)
    assert (large[1::3, 1::3] == image).all()
    assert (large[0::3, 2::3] == image).all()


def test_tiles_of_different_sizes_lie_on_white():
    low, high = np.zeros((2, 3, 3), np.uint8), np.full((5, 4, 3), 7, np.uint8)
    row = tile([low, high], axis=1)
    assert (row[:2, :3] == 0).all()
    assert (row[:, -4:] == 7).all()
    assert (row[2:, :3] == 255).all()
    assert (row[:, 3:-4] == 255).all()


def test_an_error_map_is_black_without_error_and_grows_brighter_with_it():
    target = np.zeros((1, 3, 3), np.uint8)
    prediction = np.array([0, 255 * ERROR_RANGE / 2, 255], np.uint8)[None, :, None].repeat(3, 2)
    none, some, most = error_map(target, prediction)[0].sum(axis=-1, dtype=int)
    assert none < 10 < some < most


def test_a_caption_fits_its_width():
    text = caption("a title longer than its column", width=96)
    assert text.shape[1] == 96
    assert (text[:, [0, -1]] == 255).all()
    assert (text < 128).any()


def test_a_grid_shows_every_column_in_order_and_every_scene(tmp_path):
    colours = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)  # (scenes, columns)
    inputs, targets, predictions = (
        colours[:, i, None, None, None].repeat(64, 1).repeat(64, 2).repeat(3, 3) for i in range(3)
    )
    columns = comparison_columns(inputs[:, None], targets, predictions)
    assert [title for title, _ in columns][:3] == ["input", "target", "prediction"]
    write_picture(tmp_path / "grid.png", grid(columns))
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    for scene, row in enumerate((height // 4, height * 3 // 4)):
        assert pixels[row, [width * c // 8 for c in (1, 3, 5)], 0].tolist() == [*colours[scene]]
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


@pytest.mark.parametrize("views", [1, 2, 3, 5])
def test_a_frame_shows_the_inputs_left_of_the_enlarged_render(views):
    inputs = np.full((views, 24, 32, 3), 10, np.uint8)
    frame = side_by_side(inputs, np.full((24, 32, 3), 90, np.uint8))
    _, input_columns = np.nonzero((frame == 10).all(axis=-1))
    render_rows, render_columns = np.nonzero((frame == 90).all(axis=-1))
    assert input_columns.max() < render_columns.min()
    assert np.ptp(render_rows) > 250


def test_input_views_of_another_size_fit_beside_the_render():
    frame = side_by_side(np.zeros((5, 240, 320, 3), np.uint8), np.ones((64, 64, 3), np.uint8))
    assert frame.shape[0] < 340
