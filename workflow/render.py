"""Model and packed scenes -> video.mp4: a camera moves around scenes that were never trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srt.config import RenderConfig
from srt.data.sampling import Presentation, presentation
from srt.data.scenes import Scenes
from srt.distributed import best_device
from srt.errors import UserError
from srt.models import SRT
from srt.params import load_experiment
from srt.pictures import side_by_side, to_uint8
from srt.rendering import encode_scene, render_path
from srt.shapes import UInt8
from srt.video import VideoWriter
from workflow.command import run
from workflow.runs import open_run
from workflow.trained import load_model


def render(
    *,
    profile: str,
    experiment: str,
    data: Path,
    model: Path,
    out: Path,
    split: str = "test",
    motion: str | None = None,
    fade: bool | None = None,
    frames: int | None = None,
    scenes: tuple[int, ...] | None = None,
    height: int | None = None,
    width: int | None = None,
    layout: str | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Renders a video of an experiment's model; what is not given is as params.yaml says.

    Args:
        profile: of params.yaml.
        experiment: its name in params.yaml.
        data: the packed dataset's folder.
        model: the weights that train wrote.
        out: the mp4 file.
        split: which scenes: train, val or test.
        motion: rotate, zoom, closeup, rotate_and_closeup or eyeroll.
        fade: start and stop softly.
        frames: of each scene.
        scenes: their places in the split; the video shows one after the other.
        height: of a rendered frame.
        width: of a rendered frame.
        layout: plot (the input views beside the render) or small (the render alone).
        params: the configuration.
    """
    config = load_experiment(params, experiment, profile)
    given = {
        "motion": motion,
        "fade": fade,
        "frames": frames,
        "scenes": scenes,
        "height": height,
        "width": width,
        "layout": layout,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    video = dataclasses.replace(config.render, **changes)
    device = best_device()
    network, settings = load_model(model, device)
    packed = Scenes(data / split, device)
    shown = presentation(config)
    rays = config.train.rays_per_group
    out.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(out, video.fps) as writer:
        for frame in video_frames(network, packed, video, shown, rays):
            writer.write(frame)
    tracker = open_run(profile, experiment, settings)
    tracker.log_artifact(out, "videos")
    tracker.close("FINISHED")


def video_frames(
    model: SRT, scenes: Scenes, video: RenderConfig, shown: Presentation, rays_per_group: int
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames of all scenes, laid out."""
    from tqdm import tqdm

    size = (video.height or scenes.height, video.width or scenes.width)
    with tqdm(total=len(video.scenes) * video.frames, desc="render", unit="frame") as progress:
        for index in video.scenes:
            if not 0 <= index < len(scenes):
                raise UserError(f"render.scenes: {index} is not one of the {len(scenes)} scenes")
            scene = encode_scene(model, scenes, index, shown)
            inputs = to_uint8(scene.images)
            path = render_path(
                model, scene, video.motion, video.frames, video.fade, size, rays_per_group
            )
            for image in path:
                frame = to_uint8(image)
                yield side_by_side(inputs, frame) if video.layout == "plot" else frame
                progress.update()


if __name__ == "__main__":
    run(render)
