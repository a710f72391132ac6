"""Pictures: colours, tiles and layouts, tested at the positions where things must be."""

import numpy as np
import pytest
import torch
from PIL import Image

from srt.visualization.pictures import (
    ERROR_RANGE,
    SheetRow,
    caption,
    comparison_columns,
    compose_frame,
    contact_sheet,
    depth_map,
    depth_scale,
    enlarge,
    error_map,
    grid,
    tile,
    to_uint8,
    write_picture,
)


def pixels_of_colour(picture, colour):
    """Return the rows and the columns of all pixels that have this colour."""
    return np.nonzero((picture == colour).all(axis=-1))


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

    # The space below the low image and the gap are white.
    assert (row[2:, :3] == 255).all()
    assert (row[:, 3:-4] == 255).all()


def test_an_error_map_is_black_without_error_and_brighter_for_larger_errors():
    target = np.zeros((1, 3, 3), np.uint8)
    prediction = np.array([0, 255 * ERROR_RANGE / 2, 255], np.uint8)[None, :, None].repeat(3, 2)
    no_error, half, largest = error_map(target, prediction)[0].sum(axis=-1, dtype=int)
    assert no_error < 10 < half < largest


def test_a_caption_fits_its_width():
    text = caption("a title longer than its column", width=96)
    assert text.shape[1] == 96
    assert (text[:, [0, -1]] == 255).all()
    assert (text < 128).any()


def test_a_grid_shows_every_column_in_order_and_every_scene(tmp_path):
    # Each image has one colour, by which it is recognised.
    colours = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)  # (scenes, columns)
    images = colours.T[..., None, None, None].repeat(64, 2).repeat(64, 3).repeat(3, 4)
    inputs, targets, predictions = images  # each (scenes, 64, 64, 3)
    columns = comparison_columns(inputs[:, None], targets, predictions)
    assert [title for title, _ in columns][:3] == ["input", "target", "prediction"]

    write_picture(tmp_path / "grid.png", grid(columns))
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]

    # Look at the middles of the first three of four columns, in the first and the second row.
    height, width = pixels.shape[:2]
    middles = [width * eighth // 8 for eighth in (1, 3, 5)]
    assert pixels[height // 4, middles, 0].tolist() == colours[0].tolist()
    assert pixels[height * 3 // 4, middles, 0].tolist() == colours[1].tolist()


@pytest.mark.parametrize("views", [1, 2, 3, 5])
def test_a_frame_shows_the_inputs_to_the_left_of_the_enlarged_render(views):
    inputs = np.full((views, 24, 32, 3), 10, np.uint8)
    frame = compose_frame(inputs, np.full((24, 32, 3), 90, np.uint8))
    _, input_columns = pixels_of_colour(frame, 10)
    render_rows, render_columns = pixels_of_colour(frame, 90)
    assert input_columns.max() < render_columns.min()
    assert np.ptp(render_rows) > 250


def test_input_views_of_another_size_fit_next_to_the_render():
    frame = compose_frame(np.zeros((5, 240, 320, 3), np.uint8), np.ones((64, 64, 3), np.uint8))
    assert frame.shape[0] < 340


@pytest.mark.parametrize("views", [1, 2, 5, 10])
def test_the_inputs_are_about_as_high_as_the_render(views):
    inputs = np.full((views, 24, 32, 3), 10, np.uint8)
    frame = compose_frame(inputs, np.full((24, 32, 3), 90, np.uint8))[36:]  # below the captions
    input_height, render_height = (
        np.ptp(pixels_of_colour(frame, colour)[0]) for colour in (10, 90)
    )
    assert render_height - 5 < input_height <= render_height


def test_depth_is_brighter_for_nearer_points_and_clipped_outside():
    depth = depth_map(torch.tensor([[1.0, 2.0, 2.5, 3.5, 4.0, 5.0]]), near=2.0, far=4.0)
    sums = depth.picture[0].sum(axis=-1, dtype=int).tolist()
    assert sums[0] == sums[1] > sums[2] > sums[3] > sums[4] == sums[5]


def test_a_frame_shows_the_depth_to_the_right_of_the_render():
    nearest = depth_map(torch.full((24, 32), 2.0), near=2.0, far=4.0)
    render = np.full((24, 32, 3), 90, np.uint8)
    frame = compose_frame(np.zeros((1, 24, 32, 3), np.uint8), render, nearest)
    _, render_columns = pixels_of_colour(frame, 90)
    depth_rows, depth_columns = pixels_of_colour(frame[40:], nearest.picture[0, 0])
    assert render_columns.max() < depth_columns.min()
    assert np.ptp(depth_rows) > 250


@pytest.mark.parametrize("width", [30, 128, 700])
def test_the_scale_of_depth_goes_from_near_to_far(width):
    depth = depth_map(torch.tensor([[0.035, 35.0]]), near=0.035, far=35.0)
    row = depth_scale(depth, width)[10]
    (nearest,), (farthest,) = (pixels_of_colour(row, colour) for colour in depth.picture[0])
    assert 0 < nearest.min() < farthest.max() < width


def test_a_contact_sheet_has_a_row_for_each_scene_and_time_goes_to_the_right():
    # Each frame has one colour, by which it is recognised.
    colours = np.arange(50, 56, dtype=np.uint8).reshape(2, 3)  # (scenes, frames)
    frames = colours[..., None, None, None].repeat(16, 2).repeat(16, 3).repeat(3, 4)
    inputs = np.zeros((2, 16, 16, 3), np.uint8)
    depth = depth_map(torch.full((3, 16, 16), 4.0), near=2.0, far=4.0)
    sheet = contact_sheet([SheetRow("scene", inputs, renders, depth) for renders in frames])

    # Find the middle of each frame.
    middles = np.zeros((2, 3, 2))  # (scenes, frames, row and column)
    for scene, frame in np.ndindex(2, 3):
        middles[scene, frame] = np.mean(pixels_of_colour(sheet, colours[scene, frame]), axis=1)
    assert (np.diff(middles[..., 1], axis=1) > 128).all()
    assert (np.diff(middles[..., 0], axis=0) > 256).all()

    # The depth is below its frame.
    rows, columns = middles.reshape(-1, 2).astype(int).T
    assert (sheet[rows + 128, columns] == depth.picture[0, 0, 0]).all()
