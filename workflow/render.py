"""Model and packed scenes -> video.mp4: a camera moves around scenes that were never trained on.

The ending of `out` says what is written: a video, a GIF, or a contact sheet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from srt.common.devices import best_device
from srt.common.errors import UserError
from srt.common.shapes import UInt8
from srt.config.load import load_experiment
from srt.config.schema import Layout, Motion, RenderConfig, shard_numbers
from srt.config.strict import ConfigError, read
from srt.data.batch import ViewConfig, make_view_config
from srt.data.packed.reader import Scenes
from srt.model.scene import View
from srt.model.srt import SRT
from srt.model.weights import load_model
from srt.rendering.frames import (
    StartingPoint,
    check_scenes,
    frame_size,
    render_frames,
    start_from,
)
from srt.rendering.video import WRITERS, prefetch_frames
from srt.visualization.pictures import (
    DepthMap,
    SheetRow,
    compose_frame,
    contact_sheet,
    depth_map,
    to_uint8,
    write_picture,
)
from workflow.common.cli import run
from workflow.common.default_paths import DefaultPaths, choose_output
from workflow.common.gpus import claim_gpus
from workflow.common.stage_files import VIDEO
from workflow.common.tracked_run import open_run

SHEET_FRAMES = 8  # of each scene at most, unless the command line says how many


def render(
    *,
    experiment: str,
    profile: str | None = None,
    data: Path | None = None,
    model: Path | None = None,
    out: Path | None = None,
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
    """Render a video of an experiment's model. The defaults are what params.yaml says.

        python -m workflow.render --experiment nmr_srt

    Args:
        experiment: its name in params.yaml.
        profile: of params.yaml; by default the one that the file names.
        data: the packed dataset's folder, by default data/<profile>/packed/<dataset>.
        model: the weights, by default outputs/<profile>/<experiment>/model.safetensors.
        out: the video, .mp4 or .gif, or the contact sheet, .png, by default video.mp4 beside the
            model; needed where one of the next options replaces what params.yaml says.
        split: which scenes.
        motion: of the camera.
        fade: start and stop softly.
        frames: of each scene; a contact sheet has eight at most by default.
        scenes: their numbers in the split, like 0-5,9; a video shows one after the other.
        height: of a rendered frame; where only one of height and width is given, the other follows
            from the proportions of the input images.
        width: of a rendered frame.
        layout: plot (inputs, render, and depth if the model has it), small (without the inputs)
            or sheet (a few frames of each scene, all in one picture).
        params: the configuration.
    """
    config = load_experiment(params, experiment, profile)
    paths = DefaultPaths(config.profile)
    data, model = data or paths.packed(config.dataset_name), model or paths.model(experiment)
    claim_gpus()

    # What the command line says replaces what params.yaml says.
    flags: dict[str, Any] = {"motion": motion, "fade": fade, "frames": frames, "layout": layout}
    if scenes is not None:
        flags["scenes"] = scene_numbers(scenes)
    video = with_changes(config.render, flags, (height, width))
    departs = video != config.render or split != "test"
    out = choose_output(out, model.with_name(VIDEO), departs)

    # Refuse a wrong request before the model is loaded. Only a few scenes are read, so the dataset
    # is not copied to the GPU.
    check_suffix(out, video.layout)
    device = best_device()
    packed = Scenes(data / split, device, resident=False)
    check_scenes(packed, video)

    # Render and write frame by frame.
    network, settings = load_model(model, device)
    view_config = make_view_config(config)
    rendered = render_scenes(network, packed, video, view_config, config.train.rays_per_group)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rendering(out, rendered, video)
    log_video(config.profile, experiment, settings, out)


def log_video(profile: str, experiment: str, settings: dict[str, Any], video: Path) -> None:
    """Add the file to the experiment's run in MLflow."""
    tracker = open_run("render", profile, experiment, settings)
    tracker.log_artifact(video, "videos")
    tracker.close("FINISHED")


def scene_numbers(text: str) -> list[int]:
    """Return the numbers that a text like `0-5,9` lists; raise UserError for any other form."""
    try:
        return shard_numbers(text)
    except ConfigError:
        raise UserError(f"--scenes {text!r} is not like `0-5,9`") from None


def with_changes(
    configured: RenderConfig, flags: dict[str, Any], size: tuple[int | None, int | None]
) -> RenderConfig:
    """Return the settings of params.yaml with those of the command line in their place.

    Args:
        flags: values by their key in params.yaml; None for a flag that was not used.
        size: height and width. Where one is given, neither comes from params.yaml.

    Raises:
        ConfigError: a value is impossible.
    """
    changes = {key: value for key, value in flags.items() if value is not None}
    if size != (None, None):
        changes |= {"height": size[0], "width": size[1]}
    values = vars(configured) | {"scenes": list(configured.scenes)} | changes

    # A video's frames would be too many for one picture.
    if values["layout"] == "sheet" and "frames" not in changes:
        values["frames"] = min(configured.frames, SHEET_FRAMES)

    # The values are checked as those of params.yaml are.
    video: RenderConfig = read(RenderConfig, values, "render")
    return video


def check_suffix(out: Path, layout: Layout) -> None:
    """Raise UserError where a file with this ending cannot hold this layout."""
    # A contact sheet is a picture, everything else is a video.
    suffixes = [".png"] if layout == "sheet" else list(WRITERS)
    if out.suffix not in suffixes:
        raise UserError(f"--out {out}: layout {layout} is written as {' or '.join(suffixes)}")


class RenderedScene(NamedTuple):
    """A scene, and what the camera sees on its way around it."""

    number: int
    start: StartingPoint
    frames: Iterable[View]


def render_scenes(
    model: SRT,
    scenes: Scenes,
    video: RenderConfig,
    view_config: ViewConfig,
    rays_per_group: int | None,
) -> Iterator[RenderedScene]:
    """Yield the scenes of a video one after the other. A frame is rendered when it is read."""
    from tqdm import tqdm

    size = frame_size(scenes, video.height, video.width)
    for index in video.scenes:
        # A scene is encoded once; its frames only decode.
        start = start_from(model, scenes, index, view_config, rays_per_group)
        frames = render_frames(start, video.motion, video.frames, video.fade, size)
        progress = tqdm(frames, f"scene {index}", video.frames, unit="frame")
        yield RenderedScene(index, start, progress)


def write_rendering(out: Path, rendered: Iterable[RenderedScene], video: RenderConfig) -> None:
    """Write the scenes as a contact sheet or a video."""
    if video.layout == "sheet":
        write_picture(out, contact_sheet([sheet_row(scene) for scene in rendered]))
        return

    # The GPU renders the next frame while this one is encoded.
    with WRITERS[out.suffix](out, video.fps) as writer:
        for frame in prefetch_frames(video_frames(rendered, with_inputs=video.layout == "plot")):
            writer.write(frame)


def video_frames(
    rendered: Iterable[RenderedScene], with_inputs: bool
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the frames of all scenes as the video shows them: inputs, render and depth in a row."""
    for rendered_scene in rendered:
        start = rendered_scene.start
        # The inputs are the same beside every frame.
        inputs = to_uint8(start.images)
        for colours, depth in rendered_scene.frames:
            render = to_uint8(colours)
            depth_picture = (
                None
                if depth is None
                else depth_map(depth, start.scene.frame.near, start.scene.frame.far)
            )
            if with_inputs:
                yield compose_frame(inputs, render, depth_picture)
            elif depth_picture is None:
                yield render
            else:
                yield np.hstack((render, depth_picture.picture))


def draw_depth(depth: Tensor, start: StartingPoint) -> DepthMap:
    """Return depths as a picture whose scale is from the scene's near to its far distance."""
    return depth_map(depth, start.scene.frame.near, start.scene.frame.far)


def sheet_row(rendered_scene: RenderedScene) -> SheetRow:
    """Return all frames of a scene as a row of a contact sheet."""
    start = rendered_scene.start
    frames = list(rendered_scene.frames)

    # Only volume rendering (VSRT) gives a depth. One scale holds for all frames of the row.
    depths = [frame.depth for frame in frames if frame.depth is not None]
    depth = (
        depth_map(torch.stack(depths), start.scene.frame.near, start.scene.frame.far)
        if depths
        else None
    )

    # A row has its inputs on the left, and its frames in the order of the motion.
    inputs = "input" if len(start.images) == 1 else "inputs"
    return SheetRow(
        title=f"scene {rendered_scene.number}: {inputs}",
        inputs=to_uint8(start.images),
        renders=to_uint8(torch.stack([frame.colours for frame in frames])),
        depth=depth,
    )


if __name__ == "__main__":
    run(render)
