"""Pictures for people: images are enlarged, captioned and tiled on white.

The three layouts are `grid` (inputs, targets, predictions and errors), `compose_frame` (a frame of
a video) and `contact_sheet` (some frames of several scenes). The functions below them colour,
caption and tile. All pictures are uint8 RGB arrays of shape (height, width, 3).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from srt.common.files import write_atomically
from srt.common.shapes import Float, UInt8

if TYPE_CHECKING:
    from PIL import ImageFont

WHITE = 255
GREY = 200  # of outlines, without which a render on white would have no edge
GAP = 8  # pixels between tiles and around a picture
TEXT_SIZE = 16  # pixels
TEXT_HEIGHT = TEXT_SIZE + 4  # pixels of a strip of text

# The least length in pixels of an image's shorter side, after enlarging, in each layout.
GRID_IMAGE = 192
VIDEO_IMAGE = 256
SHEET_IMAGE = 128

# The error that has the brightest colour. It is fixed, so that pictures can be compared.
ERROR_RANGE = 0.5


def to_uint8(images: Float[Tensor, "*images h w 3"]) -> UInt8[np.ndarray, "*images h w 3"]:
    """Return colours in [0, 1] as rounded bytes; values outside are clipped."""
    return np.asarray((images.detach().float().clamp(0, 1) * 255).round().byte().cpu())


def comparison_columns(
    inputs: UInt8[np.ndarray, "scenes views _ _ 3"],
    targets: UInt8[np.ndarray, "scenes h w 3"],
    predictions: UInt8[np.ndarray, "scenes h w 3"],
) -> list[tuple[str, UInt8[np.ndarray, "scenes _ _ 3"]]]:
    """Return the titled columns of a grid: input views, target, prediction and error."""
    # Each input view has its own column. A single one needs no number.
    columns: list[tuple[str, np.ndarray]] = []
    views = inputs.shape[1]
    for view in range(views):
        title = "input" if views == 1 else f"input {view + 1}"
        columns.append((title, inputs[:, view]))

    columns.append(("target", targets))
    columns.append(("prediction", predictions))
    columns.append((f"error, 0 to {ERROR_RANGE}", error_map(targets, predictions)))
    return columns


def grid(
    columns: Sequence[tuple[str, UInt8[np.ndarray, "scenes _ _ 3"]]],
    labels: Sequence[str] = (),
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the columns side by side under their titles. Each row is a scene.

    Args:
        labels: a text to write above each row; empty: none.
    """
    # The titles stand above the first row only.
    enlarged = [(title, add_outline(enlarge(images, GRID_IMAGE))) for title, images in columns]
    header = tile([caption(title, images.shape[2]) for title, images in enlarged], axis=1)

    # The columns hold all scenes of one kind of image; a row needs all images of one scene.
    scenes = zip(*(images for _, images in enlarged), strict=True)
    rows = [tile(list(images), axis=1) for images in scenes]
    for index, text in enumerate(labels):
        rows[index] = tile([caption(text, rows[index].shape[1]), rows[index]], axis=0)
    return add_margin(tile([header, *rows], axis=0))


def compose_frame(
    inputs: UInt8[np.ndarray, "views _ _ 3"],
    render: UInt8[np.ndarray, "h w 3"],
    depth: DepthMap | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return a frame of a video: from left to right all inputs, the render and any depth."""
    # The inputs form a block as high as the render.
    render = enlarge(render, VIDEO_IMAGE)
    block = input_block(inputs, render.shape[0])
    title = "input" if len(inputs) == 1 else "inputs"
    columns = [
        [caption(title, block.shape[1]), block],
        [caption("render", render.shape[1]), add_outline(render)],
    ]

    # The caption of the depth is its scale of colours.
    if depth is not None:
        picture = add_outline(enlarge(depth.picture, VIDEO_IMAGE))
        columns.append([depth_scale(depth, picture.shape[1]), picture])
    return add_margin(tile([tile(column, axis=0) for column in columns], axis=1))


class SheetRow(NamedTuple):
    """One scene of a contact sheet."""

    title: str
    inputs: UInt8[np.ndarray, "views _ _ 3"]
    renders: UInt8[np.ndarray, "frames h w 3"]
    depth: DepthMap | None  # of all frames


def contact_sheet(rows: Sequence[SheetRow]) -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture with one row of inputs and frames for each scene, above any depth."""
    return add_margin(tile([_sheet_row(row) for row in rows], axis=0))


def _sheet_row(row: SheetRow) -> UInt8[np.ndarray, "_ _ 3"]:
    # The inputs are the first column, and each frame is a column under its time in [0, 1).
    renders = add_outline(enlarge(row.renders, SHEET_IMAGE))
    block = input_block(row.inputs, renders.shape[1])
    columns = [[caption(row.title, block.shape[1]), block]]
    for i, render in enumerate(renders):
        columns.append([caption(f"t = {i / len(renders):.3g}", render.shape[1]), render])

    if row.depth is not None:
        _append_depth(columns, row.depth, renders.shape[1])
    return tile([tile(column, axis=0) for column in columns], axis=1)


def _append_depth(
    columns: list[list[UInt8[np.ndarray, "_ _ 3"]]], depth: DepthMap, height: int
) -> None:
    """Add each depth below its frame, and the scale of colours below the inputs.

    Args:
        columns: captions and pictures of the inputs and of each frame.
        height: of a frame.
    """
    # The block of inputs may be a pixel lower than a frame: white makes both equally high.
    title, block = columns[0]
    padding = ((0, height - block.shape[0]), (0, 0), (0, 0))
    block = np.pad(block, padding, constant_values=WHITE)
    columns[0] = [title, block, depth_scale(depth, block.shape[1])]
    for column, picture in zip(columns[1:], add_outline(enlarge(depth.picture, SHEET_IMAGE))):
        column.append(picture)


def input_block(
    inputs: UInt8[np.ndarray, "views _ _ 3"], height: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the input views as a block about `height` pixels high and about as many columns."""
    # About as many rows as columns of views share the height, less the gaps between them.
    rows = round(math.sqrt(len(inputs)))
    columns = math.ceil(len(inputs) / rows)
    view_height = max(1, (height - (rows - 1) * GAP) // rows)

    views = [add_outline(_scale_to_height(image, view_height)) for image in inputs]
    row_pictures = [tile(views[i : i + columns], axis=1) for i in range(0, len(views), columns)]
    return tile(row_pictures, axis=0)


class DepthMap(NamedTuple):
    """Depth as colours, and the distances that the first and the last colour stand for."""

    picture: UInt8[np.ndarray, "*frames h w 3"]
    near: float
    far: float


def depth_map(depth: Float[Tensor, "*frames h w"], near: float, far: float) -> DepthMap:
    """Return depth in the colours of viridis, the nearest brightest; values outside are clipped."""
    closeness = (far - depth.detach().float().cpu().numpy()) / (far - near)
    return DepthMap(_apply_colour_map("viridis", closeness), near, far)


def depth_scale(depth: DepthMap, width: int) -> UInt8[np.ndarray, "_ {width} 3"]:
    """Return a caption for depth: its colours between the distances that they stand for."""
    from PIL import Image, ImageDraw

    # The two distances take at most 70 % of the width, so that the colours have room.
    start, end = f" depth {depth.near:g} ", f" {depth.far:g} "
    font = _fitting_font(start + end, 0.7 * width)
    strip = Image.new("RGB", (width, TEXT_HEIGHT), "white")
    draw = ImageDraw.Draw(strip)
    draw.text((0, strip.height / 2), start, "black", font, anchor="lm")
    draw.text((width, strip.height / 2), end, "black", font, anchor="rm")

    # The colours fill the space between the texts, from the nearest to the farthest.
    first = math.ceil(font.getlength(start))
    end_of_colours = width - math.ceil(font.getlength(end))
    closeness = np.linspace(1, 0, end_of_colours - first)
    picture = np.array(strip)
    picture[4:-4, first:end_of_colours] = _apply_colour_map("viridis", closeness)
    return picture


def error_map(
    targets: UInt8[np.ndarray, "*images h w 3"], predictions: UInt8[np.ndarray, "*images h w 3"]
) -> UInt8[np.ndarray, "*images h w 3"]:
    """Return the channels' mean absolute error in the colours of magma, black for no error."""
    error = np.abs(targets / 255 - predictions / 255).mean(axis=-1)
    return _apply_colour_map("magma", error / ERROR_RANGE)


def _apply_colour_map(
    colour_map: str, values: Float[np.ndarray, "*images"]
) -> UInt8[np.ndarray, "*images 3"]:
    """Return the colours of values in [0, 1]; values outside are clipped."""
    import matplotlib

    return np.asarray(matplotlib.colormaps[colour_map](values, bytes=True)[..., :3])


def enlarge(
    images: UInt8[np.ndarray, "*images _ _ 3"], shorter_side: int
) -> UInt8[np.ndarray, "*images _ _ 3"]:
    """Return images whose shorter side has at least `shorter_side` pixels.

    Every pixel becomes a square of equal pixels, so that nothing is blurred.
    """
    factor = math.ceil(shorter_side / min(images.shape[-3:-1]))
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def _scale_to_height(image: UInt8[np.ndarray, "_ _ 3"], height: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the image at this height: enlarged pixels stay squares, reduced ones are averaged."""
    from PIL import Image

    width = max(1, round(image.shape[1] * height / image.shape[0]))
    large = Image.fromarray(enlarge(image, min(height, width)))
    return np.asarray(large.resize((width, height), Image.Resampling.BOX))


def caption(text: str, width: int) -> UInt8[np.ndarray, "_ {width} 3"]:
    """Return a white strip with the text in its middle, in a smaller font if it is too long."""
    from PIL import Image, ImageDraw

    font = _fitting_font(text, 0.9 * width)
    strip = Image.new("RGB", (width, TEXT_HEIGHT), "white")
    ImageDraw.Draw(strip).text((width / 2, strip.height / 2), text, "black", font, anchor="mm")
    return np.asarray(strip)


def _fitting_font(text: str, width: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font at `TEXT_SIZE`, or smaller if the text would be longer than `width`."""
    from PIL import ImageFont

    length = ImageFont.load_default(TEXT_SIZE).getlength(text)
    return ImageFont.load_default(TEXT_SIZE * min(1, width / max(length, 1)))


def tile(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], axis: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the images in a row (axis 1) or in a column (axis 0), with white gaps between them."""
    # White fills what an image lacks across the axis, and the gap to the image before it.
    across = 1 - axis
    longest = max(image.shape[across] for image in images)
    padded: list[np.ndarray] = []
    for image in images:
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[across] = (0, longest - image.shape[across])
        padding[axis] = (GAP if padded else 0, 0)
        padded.append(np.pad(image, padding, constant_values=WHITE))
    return np.concatenate(padded, axis=axis)


def add_outline(images: UInt8[np.ndarray, "*images _ _ 3"]) -> UInt8[np.ndarray, "*images _ _ 3"]:
    """Return the images with their outermost pixels in grey."""
    outlined = np.full_like(images, GREY)
    outlined[..., 1:-1, 1:-1, :] = images[..., 1:-1, 1:-1, :]
    return outlined


def add_margin(picture: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the picture with a white margin."""
    return np.pad(picture, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=WHITE)


def write_picture(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    """Write a PNG file. `path` exists only when the file is complete."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="png")
    write_atomically(path, content.getvalue())
