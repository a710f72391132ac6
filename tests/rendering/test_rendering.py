"""Videos and sheets of every model; frames agree with the model; nonsense is refused early."""

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
    configured,
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
from srt.rendering.frames import encode_scene, frame_size, render_frames
from srt.rendering.trajectories import MOTIONS
from srt.tracking.tracker import Tracker

RAYS = 10**5  # at once


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch):
    monkeypatch.setattr(workflow.render, "open_run", lambda *run: Tracker())


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Input view 0 has been rolled; view 1 is at the same place and looks at the origin upright."""
    return write_packed(tmp_path_factory.mktemp("packed"), source_view=0)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `workflow.render` needs of an experiment, and its model."""

    experiment: object
    model: object
    arguments: dict


def trained(folder, packed, variant, **model):
    experiment = tiny_experiment(folder, VARIANTS[variant] | model, rays_per_group=RAYS)
    network = build_model(experiment.model, seed=0).eval().requires_grad_(False)
    weights = folder / "model.safetensors"
    save_weights(weights, network.state_dict(), configured(experiment))
    arguments = {"profile": "quick", "experiment": "nmr_srt", "data": packed, "model": weights}
    return Trained(experiment, network, arguments | {"params": folder / "params.yaml"})


@pytest.fixture(scope="module", params=["srt", "isrt", "vsrt"])
def variant(request, tmp_path_factory, packed):
    return trained(tmp_path_factory.mktemp(request.param), packed, request.param)


@pytest.fixture(scope="module")
def srt(tmp_path_factory, packed):
    return trained(tmp_path_factory.mktemp("srt"), packed, "srt")


@pytest.fixture(scope="module", params=["canonical", "world"])
def framed(request, tmp_path_factory, packed):
    """A model in either frame, and the scenes that it is shown."""
    one = trained(tmp_path_factory.mktemp("framed"), packed, "srt", frame=request.param)
    return one.model, Scenes(packed / "test", CPU), make_view_config(one.experiment)


def first_frame(model, scenes, view_config, size):
    scene = encode_scene(model, scenes, 1, view_config)
    return next(render_frames(model, scene, "rotate", 4, False, size, RAYS)).colours


def test_a_path_starts_with_the_view_of_an_upright_camera_at_the_inputs_place(framed):
    model, scenes, view_config = framed
    index = (torch.tensor([1]), torch.tensor([[0]]), torch.tensor([[1]]))
    expected = predict(model, make_full_view_batch(scenes, *index, view_config), RAYS).colours
    frame = first_frame(model, scenes, view_config, (SIZE, SIZE))
    torch.testing.assert_close(frame, expected.view(SIZE, SIZE, 3), atol=1e-4, rtol=0)
    assert frame.std() > 1e-3  # or any frame would do


def test_a_frame_of_any_size_shows_the_same_rays(framed):
    model, scenes, view_config = framed
    small = first_frame(model, scenes, view_config, (SIZE, SIZE))
    large = first_frame(model, scenes, view_config, (3 * SIZE, 3 * SIZE))
    torch.testing.assert_close(large[1::3, 1::3], small, atol=1e-4, rtol=0)
    wide = first_frame(model, scenes, view_config, (SIZE, 3 * SIZE))
    torch.testing.assert_close(wide, large[SIZE : 2 * SIZE], atol=1e-4, rtol=0)
    assert first_frame(model, scenes, view_config, (5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_has_its_number_of_frames_and_moves(framed, motion):
    model, scenes, view_config = framed
    scene = encode_scene(model, scenes, 0, view_config)
    seen = list(render_frames(model, scene, motion, 4, False, (SIZE, SIZE), RAYS))
    assert len(seen) == 4
    assert all((seen[0].colours - frame.colours).abs().max() > 1e-3 for frame in seen[1:])


def test_params_yaml_may_name_every_motion_that_there_is():
    assert Motion.__args__ == tuple(MOTIONS)


def test_depth_is_known_of_a_volumetric_model_and_lies_where_there_is_something_to_see(variant):
    view_config = make_view_config(variant.experiment)
    scene = encode_scene(
        variant.model, Scenes(variant.arguments["data"] / "test", CPU), 0, view_config
    )
    frame = next(render_frames(variant.model, scene, "rotate", 4, False, (6, 8), RAYS))
    if variant.experiment.model.name != "vsrt":
        assert frame.depth is None
    else:
        assert frame.depth.shape == (6, 8)
        assert (frame.depth > view_config.near).all()
        assert (frame.depth < view_config.far).all()


def pictures(path):
    """Returns the frames of a video or picture."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        return [np.asarray((image.seek(i), image.convert("RGB"))[1]) for i in range(count)]


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
def test_every_model_is_written_in_every_layout_and_nothing_else_is(
    tmp_path, variant, name, options
):
    out = tmp_path / "made" / name
    workflow.render.render(
        **variant.arguments, **options, out=out, scenes="0,2", frames=3, height=16
    )
    assert list(out.parent.iterdir()) == [out]
    made = pictures(out)
    assert len(made) == (1 if out.suffix == ".png" else 6)
    height, width = made[0].shape[:2]
    panels = 2 if variant.experiment.model.name == "vsrt" else 1
    if options == {"layout": "small"}:
        assert (height, width) == (16, 16 * panels)
    elif options == {"layout": "sheet"}:
        assert (height > 4 * 128) == (panels == 2)  # two scenes, the depth below
        assert width > 4 * 128
    else:
        assert height > 256
        assert (width > 3 * 256) == (panels == 2)  # beside the input


def test_a_contact_sheet_shows_a_few_frames_unless_it_is_told_how_many(srt):
    config = srt.experiment.render
    assert config.frames > 8
    changed = workflow.render.with_changes(config, {"layout": "sheet"}, (None, None))
    assert changed.frames == 8
    changed = workflow.render.with_changes(config, {"layout": "sheet", "frames": 11}, (None, None))
    assert changed.frames == 11


def test_the_scenes_of_a_range_are_shown_one_after_the_other(tmp_path, srt):
    def frames(scenes):
        out = tmp_path / "video.gif"
        workflow.render.render(
            **srt.arguments, out=out, layout="plot", scenes=scenes, frames=2, height=8
        )
        return pictures(out)

    both = frames("1-2")
    assert len(both) == 4
    for picture, alone in zip(both, frames("1") + frames("2"), strict=True):
        assert np.abs(picture.astype(int) - alone).mean() < 2  # GIF's colours differ


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
def test_what_is_not_given_of_a_size_follows_the_inputs_proportions(
    packed, height, width, expected
):
    scenes = Scenes(packed / "test", CPU)
    scenes.height, scenes.width = 24, 32
    assert frame_size(scenes, height, width) == expected


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
def test_nonsense_is_refused_before_the_model_is_loaded(tmp_path, srt, case):
    options, message = REFUSED[case]
    arguments = srt.arguments | {"out": "video.mp4", "scenes": "0"} | options
    arguments |= {"out": tmp_path / "made" / arguments["out"], "model": tmp_path / "no.safetensors"}
    with pytest.raises(UserError, match=message):
        workflow.render.render(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_camera_at_the_zenith_is_refused_by_the_scene_and_the_motion(tmp_path, srt):
    write_split(tmp_path / "test", 3, np.random.default_rng(0), source_view=1)
    cameras = dict(np.load(tmp_path / "test" / "cameras.npz"))
    cameras["camera_to_world"][2, 1, :3, 3] = [0, 0, 3]
    np.savez(tmp_path / "test" / "cameras.npz", **cameras)
    arguments = srt.arguments | {"data": tmp_path, "out": tmp_path / "video.mp4"}
    arguments |= {"frames": 2, "height": 4}
    with pytest.raises(UserError, match=r"scene 2 \(s2\), motion closeup: .*another scene"):
        workflow.render.render(**arguments, scenes="0-2", motion="closeup")
    assert not arguments["out"].exists()
    workflow.render.render(**arguments, scenes="0-2", motion="eyeroll")  # looks elsewhere
    workflow.render.render(**arguments, scenes="0-1", motion="closeup")


def test_an_interrupted_video_leaves_nothing_behind(tmp_path, srt, monkeypatch):
    def broken(*given):
        yield next(render_frames(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow.render, "render_frames", broken)
    for name, layout in (("v.mp4", "plot"), ("v.gif", "small"), ("s.png", "sheet")):
        with pytest.raises(KeyboardInterrupt):
            workflow.render.render(
                **srt.arguments, out=tmp_path / name, layout=layout, scenes="0", height=4
            )
    assert not list(tmp_path.iterdir())
