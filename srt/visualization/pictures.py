"""Pictures to look at: images enlarged, captioned and tiled on white. All are uint8 RGB."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from srt.common.files import write_atomically
from srt.common.shapes import Float, UInt8

WHITE = 255
GREY = 200  # an outline, because renders often have a white background
GAP = 8
TEXT_SIZE = 16
GRID_IMAGE = 192  # an image of a grid, and one of a video, is enlarged until its shorter side
VIDEO_IMAGE = 256  # has at least so many pixels
SHEET_IMAGE = 128  # the same of a contact sheet's frame
ERROR_RANGE = 0.5  # the error of magma's brightest colour: fixed, so that pictures compare


def to_uint8(images: Float[Tensor, "*images h w 3"]) -> UInt8[np.ndarray, "*images h w 3"]:
    """Returns colours of 0 to 1 as rounded bytes; what lies outside is clipped."""
    return np.asarray((images.detach().float().clamp(0, 1) * 255).round().byte().cpu())


def comparison_columns(
    inputs: UInt8[np.ndarray, "scenes views _ _ 3"],
    targets: UInt8[np.ndarray, "scenes h w 3"],
    predictions: UInt8[np.ndarray, "scenes h w 3"],
) -> list[tuple[str, UInt8[np.ndarray, "scenes _ _ 3"]]]:
    """Returns the titled columns that compare predictions with what they were made from."""
    views = inputs.shape[1]
    titles = ["input"] if views == 1 else [f"input {view + 1}" for view in range(views)]
    return [
        *((title, inputs[:, view]) for view, title in enumerate(titles)),
        ("target", targets),
        ("prediction", predictions),
        (f"error, 0 to {ERROR_RANGE}", error_map(targets, predictions)),
    ]


def grid(
    columns: Sequence[tuple[str, UInt8[np.ndarray, "scenes _ _ 3"]]],
    labels: Sequence[str] = (),
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the columns side by side under their titles, a scene in each row.

    Args:
        labels: what is written above each row, if anything.
    """
    enlarged = [(title, outline(enlarge(images, GRID_IMAGE))) for title, images in columns]
    header = [caption(title, images.shape[2]) for title, images in enlarged]
    scenes = zip(*(images for _, images in enlarged), strict=True)
    rows = [tile(list(images), axis=1) for images in scenes]
    for index, text in enumerate(labels):
        rows[index] = tile([caption(text, rows[index].shape[1]), rows[index]], axis=0)
    return with_margin(tile([tile(header, axis=1), *rows], axis=0))


def side_by_side(
    inputs: UInt8[np.ndarray, "views _ _ 3"],
    render: UInt8[np.ndarray, "h w 3"],
    depth: DepthMap | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a video's frame: the inputs as a block at the left, the render, the depth if any."""
    render = enlarge(render, VIDEO_IMAGE)
    block = input_block(inputs, render.shape[0])
    title = "input" if len(inputs) == 1 else "inputs"
    columns = [
        [caption(title, block.shape[1]), block],
        [caption("render", render.shape[1]), outline(render)],
    ]
    if depth is not None:
        picture = outline(enlarge(depth.picture, VIDEO_IMAGE))
        columns.append([depth_scale(depth, picture.shape[1]), picture])
    return with_margin(tile([tile(column, axis=0) for column in columns], axis=1))


class SheetRow(NamedTuple):
    """A scene of a contact sheet."""

    title: str
    inputs: UInt8[np.ndarray, "views _ _ 3"]
    renders: UInt8[np.ndarray, "frames h w 3"]
    depth: DepthMap | None  # of all frames


def contact_sheet(rows: Sequence[SheetRow]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns each scene's inputs and frames in a row, over the depth where there is one."""
    return with_margin(tile([_sheet_row(row) for row in rows], axis=0))


def _sheet_row(row: SheetRow) -> UInt8[np.ndarray, "_ _ 3"]:
    renders = outline(enlarge(row.renders, SHEET_IMAGE))
    block = input_block(row.inputs, renders.shape[1])
    columns = [[caption(row.title, block.shape[1]), block]]
    for i, render in enumerate(renders):
        columns.append([caption(f"t = {i / len(renders):.3g}", render.shape[1]), render])
    if row.depth is not None:
        below = renders.shape[1] - block.shape[0]  # a row of pixels, where the height is odd
        block = np.pad(block, ((0, below), (0, 0), (0, 0)), constant_values=WHITE)
        columns[0] = [columns[0][0], block, depth_scale(row.depth, block.shape[1])]
        for column, depth in zip(columns[1:], outline(enlarge(row.depth.picture, SHEET_IMAGE))):
            column.append(depth)
    return tile([tile(column, axis=0) for column in columns], axis=1)


def input_block(
    inputs: UInt8[np.ndarray, "views _ _ 3"], height: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the input views in a block so high, about as many beside as below each other."""
    rows = round(math.sqrt(len(inputs)))
    each = (height - (rows - 1) * GAP) // rows
    views = [outline(_scale_to_height(image, max(1, each))) for image in inputs]
    columns = math.ceil(len(views) / rows)
    lines = [tile(views[i : i + columns], axis=1) for i in range(0, len(views), columns)]
    return tile(lines, axis=0)


class DepthMap(NamedTuple):
    """Depth as colours, and the distances that the first and the last colour stand for."""

    picture: UInt8[np.ndarray, "*frames h w 3"]
    near: float
    far: float


def depth_map(depth: Float[Tensor, "*frames h w"], near: float, far: float) -> DepthMap:
    """Returns depth through viridis, bright where it is near; what lies outside is clipped."""
    closeness = (far - depth.detach().float().cpu().numpy()) / (far - near)
    return DepthMap(_through("viridis", closeness), near, far)


def depth_scale(depth: DepthMap, width: int) -> UInt8[np.ndarray, "_ {width} 3"]:
    """Returns a caption: the colours of depth between the distances that they stand for."""
    from PIL import Image, ImageDraw, ImageFont

    start, end = f" depth {depth.near:g} ", f" {depth.far:g} "
    length = ImageFont.load_default(TEXT_SIZE).getlength(start + end)
    font = ImageFont.load_default(TEXT_SIZE * min(1, 0.7 * width / length))
    left, right = (math.ceil(font.getlength(text)) for text in (start, end))
    strip = Image.new("RGB", (width, TEXT_SIZE + 4), "white")
    draw = ImageDraw.Draw(strip)
    draw.text((0, strip.height / 2), start, "black", font, anchor="lm")
    draw.text((width, strip.height / 2), end, "black", font, anchor="rm")
    picture = np.array(strip)
    picture[4:-4, left : width - right] = _through(
        "viridis", np.linspace(1, 0, width - right - left)
    )
    return picture


def error_map(
    targets: UInt8[np.ndarray, "*images h w 3"], predictions: UInt8[np.ndarray, "*images h w 3"]
) -> UInt8[np.ndarray, "*images h w 3"]:
    """Returns the mean absolute error of the channels through magma, black where there is none."""
    error = np.abs(targets / 255 - predictions / 255).mean(axis=-1)
    return _through("magma", error / ERROR_RANGE)


def enlarge(
    images: UInt8[np.ndarray, "*images _ _ 3"], shorter_side: int
) -> UInt8[np.ndarray, "*images _ _ 3"]:
    """Returns the images with every pixel a square of pixels, no smaller than `shorter_side`."""
    factor = math.ceil(shorter_side / min(images.shape[-3:-1]))
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def caption(text: str, width: int) -> UInt8[np.ndarray, "_ {width} 3"]:
    """Returns a white strip with the text in its middle, smaller where it is too long."""
    from PIL import Image, ImageDraw, ImageFont

    length = ImageFont.load_default(TEXT_SIZE).getlength(text)
    font = ImageFont.load_default(TEXT_SIZE * min(1, 0.9 * width / max(length, 1)))
    strip = Image.new("RGB", (width, TEXT_SIZE + 4), "white")
    ImageDraw.Draw(strip).text((width / 2, strip.height / 2), text, "black", font, anchor="mm")
    return np.asarray(strip)


def tile(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], axis: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the images in a row (axis 1) or one below the other (axis 0), with white gaps."""
    across = 1 - axis
    longest = max(image.shape[across] for image in images)
    parts: list[np.ndarray] = []
    for image in images:
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[across] = (0, longest - image.shape[across])
        padding[axis] = (GAP if parts else 0, 0)
        parts.append(np.pad(image, padding, constant_values=WHITE))
    return np.concatenate(parts, axis=axis)


def write_picture(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    """Writes a PNG; `path` exists once it is complete."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="png")
    write_atomically(path, content.getvalue())


def _through(
    colour_map: str, values: Float[np.ndarray, "*images"]
) -> UInt8[np.ndarray, "*images 3"]:
    """Returns the colours of values in [0, 1]; what lies outside is clipped."""
    import matplotlib

    return np.asarray(matplotlib.colormaps[colour_map](values, bytes=True)[..., :3])


def _scale_to_height(image: UInt8[np.ndarray, "_ _ 3"], height: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the image so high: its pixels stay squares, or are averaged where it is smaller."""
    from PIL import Image

    width = max(1, round(image.shape[1] * height / image.shape[0]))
    large = Image.fromarray(enlarge(image, min(height, width)))
    return np.asarray(large.resize((width, height), Image.Resampling.BOX))


def outline(images: UInt8[np.ndarray, "*images _ _ 3"]) -> UInt8[np.ndarray, "*images _ _ 3"]:
    """Returns the images with their outermost pixels grey."""
    framed = np.full_like(images, GREY)
    framed[..., 1:-1, 1:-1, :] = images[..., 1:-1, 1:-1, :]
    return framed


def with_margin(picture: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the picture with white around it."""
    return np.pad(picture, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=WHITE)
