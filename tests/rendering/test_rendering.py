"""The stage render: videos and contact sheets of every model.

Frames agree with the model's predictions, and wrong options are refused early.
"""

import dataclasses

import av
import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny_training import (
    CPU,
    SIZE,
    VARIANTS,
    make_config,
    one_thread,
    tiny_experiment,
    write_packed,
    write_split,
)

import workflow.render
from srt.common.errors import UserError
from srt.config.schema import Motion
from srt.data.batch import make_full_view_batch, make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict
from srt.model.srt import build_model
from srt.model.weights import save_weights
from srt.rendering.frames import frame_size, render_frames, start_from
from srt.rendering.trajectories import MOTIONS
from srt.tracking.tracker import Tracker

RAYS_PER_GROUP = 10**5  # more than a frame has


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch):
    monkeypatch.setattr(workflow.render, "open_run", lambda *run: Tracker())


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Return a dataset. Views 0 and 1 of a scene differ only by the roll of view 0."""
    return write_packed(tmp_path_factory.mktemp("packed"), source_view=0)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """An experiment, its model, and the arguments with which `workflow.render` finds both."""

    experiment: object
    model: object
    arguments: dict


def save_model(folder, packed, variant, **model):
    """Write a model's weights and its configuration, and return it."""
    experiment = tiny_experiment(folder, VARIANTS[variant] | model, rays_per_group=RAYS_PER_GROUP)
    network = build_model(experiment.model, seed=0).eval().requires_grad_(False)
    weights = folder / "model.safetensors"
    save_weights(weights, network.state_dict(), make_config(experiment))
    arguments = {"profile": "quick", "experiment": "nmr_srt", "data": packed, "model": weights}
    return SavedModel(experiment, network, arguments | {"params": folder / "params.yaml"})


@pytest.fixture(scope="module", params=["srt", "isrt", "vsrt"])
def variant(request, tmp_path_factory, packed):
    return save_model(tmp_path_factory.mktemp(request.param), packed, request.param)


@pytest.fixture(scope="module")
def srt(tmp_path_factory, packed):
    return save_model(tmp_path_factory.mktemp("srt"), packed, "srt")


@pytest.fixture(scope="module", params=["canonical", "world"])
def model_and_scenes(request, tmp_path_factory, packed):
    """Return a model in either coordinate frame, scenes and the model's view configuration."""
    saved = save_model(tmp_path_factory.mktemp("frame"), packed, "srt", frame=request.param)
    return saved.model, Scenes(packed / "test", CPU), make_view_config(saved.experiment)


def first_frame(model, scenes, view_config, size):
    """Return the colours of the first frame of a motion around scene 1."""
    start = start_from(model, scenes, 1, view_config, RAYS_PER_GROUP)
    return next(render_frames(start, "rotate", 4, False, size)).colours


def test_a_path_starts_with_the_view_of_an_upright_camera_at_the_inputs_position(model_and_scenes):
    model, scenes, view_config = model_and_scenes

    # View 1 is what a camera sees at the position of view 0 without its roll.
    index = (torch.tensor([1]), torch.tensor([[0]]), torch.tensor([[1]]))
    batch = make_full_view_batch(scenes, *index, view_config)
    expected = predict(model, batch, RAYS_PER_GROUP).colours
    frame = first_frame(model, scenes, view_config, (SIZE, SIZE))
    torch.testing.assert_close(frame, expected.view(SIZE, SIZE, 3), atol=1e-4, rtol=0)
    assert frame.std() > 1e-3  # a frame of one colour would prove nothing


def test_a_frame_of_any_size_shows_the_same_rays(model_and_scenes):
    model, scenes, view_config = model_and_scenes

    # Every third pixel of an image three times as large has the same centre.
    small = first_frame(model, scenes, view_config, (SIZE, SIZE))
    large = first_frame(model, scenes, view_config, (3 * SIZE, 3 * SIZE))
    torch.testing.assert_close(large[1::3, 1::3], small, atol=1e-4, rtol=0)

    # A wide frame is the middle of a square one.
    wide = first_frame(model, scenes, view_config, (SIZE, 3 * SIZE))
    torch.testing.assert_close(wide, large[SIZE : 2 * SIZE], atol=1e-4, rtol=0)
    assert first_frame(model, scenes, view_config, (5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_has_its_number_of_frames_and_moves(model_and_scenes, motion):
    model, scenes, view_config = model_and_scenes
    start = start_from(model, scenes, 0, view_config, RAYS_PER_GROUP)
    frames = list(render_frames(start, motion, 4, False, (SIZE, SIZE)))
    assert len(frames) == 4
    for frame in frames[1:]:
        assert (frames[0].colours - frame.colours).abs().max() > 1e-3


def test_params_yaml_can_name_every_motion():
    assert Motion.__args__ == tuple(MOTIONS)


def test_only_a_volumetric_model_predicts_depth_and_it_is_between_near_and_far(variant):
    view_config = make_view_config(variant.experiment)
    scenes = Scenes(variant.arguments["data"] / "test", CPU)
    start = start_from(variant.model, scenes, 0, view_config, RAYS_PER_GROUP)
    frame = next(render_frames(start, "rotate", 4, False, (6, 8)))
    if variant.experiment.model.name != "vsrt":
        assert frame.depth is None
    else:
        assert frame.depth.shape == (6, 8)
        assert (frame.depth > view_config.near).all()
        assert (frame.depth < view_config.far).all()


def read_frames(path):
    """Return the frames of a video, or a picture as the only frame."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    frames = []
    with Image.open(path) as image:
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
    return frames


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("video.mp4", {}),
        ("video.gif", {}),
        ("small.mp4", {"layout": "small"}),
        ("small.gif", {"layout": "small"}),
        ("sheet.png", {"layout": "sheet"}),
    ],
)
def test_every_model_is_written_in_every_layout_and_no_other_file_is(
    tmp_path, variant, name, options
):
    out = tmp_path / "new" / name
    workflow.render.render(
        **variant.arguments, **options, out=out, scenes="0,2", frames=3, height=16
    )
    assert list(out.parent.iterdir()) == [out]
    frames = read_frames(out)
    assert len(frames) == (1 if out.suffix == ".png" else 6)

    # A model that predicts depth has a second panel for it.
    height, width = frames[0].shape[:2]
    panels = 2 if variant.experiment.model.name == "vsrt" else 1
    if options == {"layout": "small"}:
        assert (height, width) == (16, 16 * panels)
    elif options == {"layout": "sheet"}:
        assert (height > 4 * 128) == (panels == 2)  # two scenes, each with depth below
        assert width > 4 * 128
    else:
        assert height > 256
        assert (width > 3 * 256) == (panels == 2)  # to the right of the input


def test_a_contact_sheet_has_eight_frames_unless_an_option_says_how_many(srt):
    config = srt.experiment.render
    assert config.frames > 8
    changed = workflow.render.with_changes(config, {"layout": "sheet"}, (None, None))
    assert changed.frames == 8
    changed = workflow.render.with_changes(config, {"layout": "sheet", "frames": 11}, (None, None))
    assert changed.frames == 11


def test_a_video_shows_the_scenes_of_a_range_one_after_the_other(tmp_path, srt):
    def render_scenes(scenes):
        out = tmp_path / "video.gif"
        workflow.render.render(
            **srt.arguments, out=out, layout="plot", scenes=scenes, frames=2, height=8
        )
        return read_frames(out)

    both = render_scenes("1-2")
    assert len(both) == 4
    for frame, single in zip(both, render_scenes("1") + render_scenes("2"), strict=True):
        assert np.abs(frame.astype(int) - single).mean() < 2  # the palettes of the GIFs differ


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (None, None, (24, 32)),
        (240, None, (240, 320)),
        (None, 64, (48, 64)),
        (7, 9, (7, 9)),
        (1, None, (1, 1)),
    ],
)
def test_a_missing_height_or_width_follows_from_the_proportions_of_the_views(
    packed, height, width, expected
):
    scenes = Scenes(packed / "test", CPU)
    scenes.height, scenes.width = 24, 32
    assert frame_size(scenes, height, width) == expected


# Wrong options, and the message that each of them causes.
REFUSED = {
    "a video's suffix": ({"out": "video.avi"}, r"video\.avi.*plot.*\.mp4 or \.gif"),
    "a sheet's suffix": ({"out": "s.mp4", "layout": "sheet"}, r"s\.mp4.*sheet.*\.png"),
    "a scene that is not there": ({"scenes": "0-3"}, r"3 is none of the 3 scenes.*0 to 2"),
    "scenes that are no numbers": ({"scenes": "first"}, r"--scenes 'first'.*0-5,9"),
    "a motion": ({"motion": "spin"}, r"render\.motion: 'spin'.*rotate_and_closeup"),
    "a layout": ({"layout": "wide"}, r"render\.layout: 'wide'.*sheet"),
    "no frames": ({"frames": 0}, r"render: frames 0 is not positive"),
    "no height": ({"height": 0}, r"render: height 0 is not positive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options_are_refused_before_the_model_is_loaded(tmp_path, srt, case):
    options, message = REFUSED[case]
    arguments = srt.arguments | {"out": "video.mp4", "scenes": "0"} | options
    arguments |= {"out": tmp_path / "new" / arguments["out"], "model": tmp_path / "no.safetensors"}
    with pytest.raises(UserError, match=message):
        workflow.render.render(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_camera_at_the_zenith_is_refused_by_the_scene_and_the_motion(tmp_path, srt):
    write_split(tmp_path / "test", 3, np.random.default_rng(0), source_view=1)

    # Move the input camera of scene 2 straight above the origin.
    cameras = dict(np.load(tmp_path / "test" / "cameras.npz"))
    cameras["camera_to_world"][2, 1, :3, 3] = [0, 0, 3]
    np.savez(tmp_path / "test" / "cameras.npz", **cameras)

    # A motion that looks at the origin fails for this scene only.
    arguments = srt.arguments | {"data": tmp_path, "out": tmp_path / "video.mp4"}
    arguments |= {"frames": 2, "height": 4}
    with pytest.raises(UserError, match=r"scene 2 \(s2\), motion closeup: .*another scene"):
        workflow.render.render(**arguments, scenes="0-2", motion="closeup")
    assert not arguments["out"].exists()
    workflow.render.render(**arguments, scenes="0-2", motion="eyeroll")  # looks at a circle
    workflow.render.render(**arguments, scenes="0-1", motion="closeup")


def test_an_interrupted_rendering_leaves_no_file(tmp_path, srt, monkeypatch):
    def interrupted_frames(*arguments):
        yield next(render_frames(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow.render, "render_frames", interrupted_frames)
    for name, layout in (("v.mp4", "plot"), ("v.gif", "small"), ("s.png", "sheet")):
        with pytest.raises(KeyboardInterrupt):
            workflow.render.render(
                **srt.arguments, out=tmp_path / name, layout=layout, scenes="0", height=4
            )
    assert not list(tmp_path.iterdir())
