"""Model and packed scenes -> video.mp4: a camera moves around scenes that were never trained on.

Or a GIF, or a contact sheet: what `out` ends in says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from srt.common.devices import best_device
from srt.common.errors import UserError
from srt.common.shapes import UInt8
from srt.config.load import load_experiment
from srt.config.schema import Layout, Motion, RenderConfig, shard_numbers
from srt.config.strict import ConfigError, read
from srt.data.batch import ViewConfig, make_view_config
from srt.data.packed.reader import Scenes
from srt.model.srt import SRT
from srt.model.weights import load_model
from srt.rendering.frames import (
    EncodedScene,
    Frame,
    check_scenes,
    encode_scene,
    frame_size,
    render_frames,
)
from srt.rendering.video import WRITERS, made_ahead
from srt.visualization.pictures import (
    SheetRow,
    contact_sheet,
    depth_map,
    side_by_side,
    to_uint8,
    write_picture,
)
from workflow.common.cli import run
from workflow.common.gpus import claim_gpus
from workflow.common.tracked_run import open_run

SHEET_FRAMES = 8  # at most, unless the command line says how many


def render(
    *,
    profile: str,
    experiment: str,
    data: Path,
    model: Path,
    out: Path,
    split: Literal["train", "val", "test"] = "test",
    motion: Motion | None = None,
    fade: bool | None = None,
    frames: int | None = None,
    scenes: str | None = None,
    height: int | None = None,
    width: int | None = None,
    layout: Layout | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Renders a video of an experiment's model; what is not given is as params.yaml says.

    Args:
        profile: of params.yaml.
        experiment: its name in params.yaml.
        data: the packed dataset's folder.
        model: the weights that train wrote.
        out: the video, .mp4 or .gif, or the contact sheet, .png.
        split: which scenes.
        motion: of the camera.
        fade: start and stop softly.
        frames: of each scene; where it is not given, a contact sheet has eight at most.
        scenes: their places in the split, like 0-5,9; a video shows one after the other.
        height: of a rendered frame; where only one of height and width is given, the input's
            proportions demand the other.
        width: of a rendered frame.
        layout: plot (inputs, render, and depth if the model knows it), small (without the inputs)
            or sheet (a few frames of each scene, all in one picture).
        params: the configuration.
    """
    config = load_experiment(params, experiment, profile)
    claim_gpus()
    given: dict[str, Any] = {"motion": motion, "fade": fade, "frames": frames, "layout": layout}
    if scenes is not None:
        given["scenes"] = scene_numbers(scenes)
    video = with_changes(config.render, given, (height, width))
    check_suffix(out, video.layout)
    device = best_device()
    packed = Scenes(data / split, device, resident=False)  # few of them are looked at
    check_scenes(packed, video)
    network, settings = load_model(model, device)
    rendered = render_scenes(
        network, packed, video, make_view_config(config), config.train.rays_per_group
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    if video.layout == "sheet":
        write_picture(
            out, contact_sheet([sheet_row(rendered_scene) for rendered_scene in rendered])
        )
    else:
        with WRITERS[out.suffix](out, video.fps) as writer:
            for frame in made_ahead(video_frames(rendered, with_inputs=video.layout == "plot")):
                writer.write(frame)
    tracker = open_run("render", profile, experiment, settings)
    tracker.log_artifact(out, "videos")
    tracker.close("FINISHED")


def scene_numbers(text: str) -> list[int]:
    """Returns the numbers that `0-5,9` means; raises UserError for anything else."""
    try:
        return shard_numbers(text)
    except ConfigError:
        raise UserError(f"--scenes {text!r} is not like `0-5,9`") from None


def with_changes(
    configured: RenderConfig, given: dict[str, Any], size: tuple[int | None, int | None]
) -> RenderConfig:
    """Returns what params.yaml says, changed by what is given; raises ConfigError for nonsense.

    Args:
        size: height and width; one alone is not combined with the configured other.
    """
    changes = {key: value for key, value in given.items() if value is not None}
    if size != (None, None):
        changes |= {"height": size[0], "width": size[1]}
    values = vars(configured) | {"scenes": list(configured.scenes)} | changes
    if values["layout"] == "sheet" and "frames" not in changes:
        values["frames"] = min(configured.frames, SHEET_FRAMES)
    video: RenderConfig = read(RenderConfig, values, "render")
    return video


def check_suffix(out: Path, layout: Layout) -> None:
    """Raises UserError where a file of this name cannot hold this layout."""
    known = [".png"] if layout == "sheet" else list(WRITERS)
    if out.suffix not in known:
        raise UserError(f"--out {out}: layout {layout} is written as {' or '.join(known)}")


class RenderedScene(NamedTuple):
    """A scene, and what the camera sees on its way around it."""

    number: int
    scene: EncodedScene
    frames: Iterable[Frame]


def render_scenes(
    model: SRT,
    scenes: Scenes,
    video: RenderConfig,
    view_config: ViewConfig,
    rays_per_group: int | None,
) -> Iterator[RenderedScene]:
    """Yields one scene after the other; a frame is rendered when it is asked for."""
    from tqdm import tqdm

    size = frame_size(scenes, video.height, video.width)
    for index in video.scenes:
        scene = encode_scene(model, scenes, index, view_config)
        frames = render_frames(
            model, scene, video.motion, video.frames, video.fade, size, rays_per_group
        )
        yield RenderedScene(
            index, scene, tqdm(frames, f"scene {index}", video.frames, unit="frame")
        )


def video_frames(
    rendered: Iterable[RenderedScene], with_inputs: bool
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yields the frames of all scenes, laid out."""
    for rendered_scene in rendered:
        inputs = to_uint8(rendered_scene.scene.images)
        for colours, depth in rendered_scene.frames:
            render = to_uint8(colours)
            known = (
                None
                if depth is None
                else depth_map(depth, rendered_scene.scene.near, rendered_scene.scene.far)
            )
            if with_inputs:
                yield side_by_side(inputs, render, known)
            else:
                yield render if known is None else np.hstack((render, known.picture))


def sheet_row(rendered_scene: RenderedScene) -> SheetRow:
    """Returns all frames of a scene as a row of a contact sheet."""
    frames = list(rendered_scene.frames)
    depths = [frame.depth for frame in frames if frame.depth is not None]
    title = f"scene {rendered_scene.number}: {'input' if len(rendered_scene.scene.images) == 1 else 'inputs'}"
    return SheetRow(
        title=title,
        inputs=to_uint8(rendered_scene.scene.images),
        renders=to_uint8(torch.stack([frame.colours for frame in frames])),
        depth=depth_map(torch.stack(depths), rendered_scene.scene.near, rendered_scene.scene.far)
        if depths
        else None,
    )


if __name__ == "__main__":
    run(render)
