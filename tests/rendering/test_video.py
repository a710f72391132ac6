"""Videos are read back, pictures are looked up at the places where things must be."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from srt.rendering.video import WRITERS
from srt.visualization.pictures import (
    ERROR_RANGE,
    SheetRow,
    caption,
    comparison_columns,
    contact_sheet,
    depth_map,
    depth_scale,
    enlarge,
    error_map,
    grid,
    side_by_side,
    tile,
    to_uint8,
    write_picture,
)


def smooth_frames(height, width, count):
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


@pytest.mark.parametrize(("per_second", "delay"), [(10, 100), (24, 40), (60, 20)])
def test_a_gif_plays_in_a_loop_at_about_the_same_speed(tmp_path, per_second, delay):
    frames = list(smooth_frames(33, 48, 12))
    write_video(tmp_path / "video.gif", frames, per_second)
    with Image.open(tmp_path / "video.gif") as video:
        assert (video.n_frames, video.info["loop"]) == (12, 0)
        for i, original in enumerate(frames):
            video.seek(i)
            assert video.info["duration"] == delay
            error = np.asarray(video.convert("RGB")) / 255.0 - original / 255.0
            assert -10 * np.log10((error**2).mean()) > 30


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("written", [0, 3])
def test_an_exception_leaves_nothing_behind(tmp_path, suffix, written):
    def interrupted():
        yield from smooth_frames(32, 32, written)
        raise KeyError

    with pytest.raises(KeyError):
        write_video(tmp_path / f"video{suffix}", interrupted())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_exception_keeps_the_video_that_was_there(tmp_path, suffix):
    path = tmp_path / f"video{suffix}"
    write_video(path, smooth_frames(32, 32, 12))
    before = path.read_bytes()
    frames = [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"video\..*\(16, 16, 3\).*\(32, 32, 3\)"):
        write_video(path, frames)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_video_without_frames_is_refused(tmp_path, suffix):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / f"video{suffix}", [])
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


@pytest.mark.parametrize("views", [1, 2, 5, 10])
def test_the_inputs_are_about_as_high_as_the_render(views):
    inputs = np.full((views, 24, 32, 3), 10, np.uint8)
    frame = side_by_side(inputs, np.full((24, 32, 3), 90, np.uint8))[36:]  # below the captions
    heights = [np.ptp(np.nonzero((frame == colour).all(axis=-1))[0]) for colour in (10, 90)]
    assert heights[1] - 5 < heights[0] <= heights[1]


def test_depth_is_brighter_the_nearer_and_clipped_outside():
    depth = depth_map(torch.tensor([[1.0, 2.0, 2.5, 3.5, 4.0, 5.0]]), near=2.0, far=4.0)
    sums = depth.picture[0].sum(axis=-1, dtype=int).tolist()
    assert sums[0] == sums[1] > sums[2] > sums[3] > sums[4] == sums[5]


def test_a_frame_shows_the_depth_right_of_the_render():
    nearest = depth_map(torch.full((24, 32), 2.0), near=2.0, far=4.0)
    render = np.full((24, 32, 3), 90, np.uint8)
    frame = side_by_side(np.zeros((1, 24, 32, 3), np.uint8), render, nearest)
    _, render_columns = np.nonzero((frame == 90).all(axis=-1))
    depth_rows, depth_columns = np.nonzero((frame[40:] == nearest.picture[0, 0]).all(axis=-1))
    assert render_columns.max() < depth_columns.min()
    assert np.ptp(depth_rows) > 250


@pytest.mark.parametrize("width", [30, 128, 700])
def test_the_scale_of_depth_goes_from_near_to_far(width):
    depth = depth_map(torch.tensor([[0.035, 35.0]]), near=0.035, far=35.0)
    row = depth_scale(depth, width)[10]
    nearest, farthest = (np.nonzero((row == colour).all(axis=-1))[0] for colour in depth.picture[0])
    assert 0 < nearest.min() < farthest.max() < width


def test_a_contact_sheet_has_a_row_for_each_scene_and_time_goes_to_the_right():
    colours = np.arange(50, 56, dtype=np.uint8).reshape(2, 3)  # (scenes, frames)
    frames = colours[..., None, None, None].repeat(16, 2).repeat(16, 3).repeat(3, 4)
    inputs = np.zeros((2, 16, 16, 3), np.uint8)
    depth = depth_map(torch.full((3, 16, 16), 4.0), near=2.0, far=4.0)
    sheet = contact_sheet([SheetRow("scene", inputs, renders, depth) for renders in frames])
    places = np.array(
        [
            [np.argwhere((sheet == colour).all(axis=-1)).mean(axis=0) for colour in row]
            for row in colours
        ]
    )  # (scenes, frames, row and column)
    assert (np.diff(places[..., 1], axis=1) > 128).all()
    assert (np.diff(places[..., 0], axis=0) > 256).all()
    rows, columns = places.reshape(-1, 2).astype(int).T
    assert (sheet[rows + 128, columns] == depth.picture[0, 0, 0]).all()
