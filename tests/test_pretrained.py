"""A trained model is loaded from wherever it is, and renders what cameras see of a scene."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from support import tiny_training
from support.paths import REPOSITORY

import srt
from srt.common.errors import UserError
from srt.config.load import load_experiment
from srt.data.batch import make_full_view_batch, make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict
from srt.model.srt import build_model
from srt.model.weights import save_weights
from srt.published.checkpoint import checkpoint_from_training, write_checkpoint
from srt.published.config import published_config
from srt.training.state import TrainingState

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return Scenes(tiny_training.write_packed(tmp_path_factory.mktemp("packed")) / "val", CPU)


@pytest.fixture(scope="module", params=["canonical", "world"])
def run(tmp_path_factory, request):
    """A run's folder, its network and its experiment."""
    folder = tmp_path_factory.mktemp(request.param)
    experiment = tiny_training.tiny_experiment(folder, {"frame": request.param})
    network = build_model(experiment.model, seed=3).eval()
    settings = tiny_training.make_config(experiment)
    save_weights(folder / "model.safetensors", network.state_dict(), settings)
    return folder, network, experiment


@pytest.fixture(scope="module")
def arrays(scenes):
    """The first image of the first scene, and the cameras of its first two views, as arrays."""
    index = torch.tensor([0])
    images, _ = scenes.gather(index, torch.tensor([[0]]), torch.zeros((1, 0)).long(), stride=1)
    intrinsics, poses = scenes.cameras(index)
    return images[0].numpy(), intrinsics[0, :2].numpy(), poses[0, :2].numpy()


def encode(model, arrays):
    """Return the scene of the first view, and the camera of the second one."""
    images, intrinsics, poses = arrays
    size = images.shape[1:3]
    cameras = srt.make_cameras(intrinsics[:1], poses[:1], *size)
    return model.encode(images, cameras), srt.make_cameras(intrinsics[1], poses[1], *size)


def test_a_view_is_what_evaluation_predicts(run, scenes, arrays):
    folder, network, experiment = run
    scene, camera = encode(srt.load(folder, "cpu"), arrays)
    view = scene.render(camera)

    index = (torch.tensor([0]), torch.tensor([[0]]), torch.tensor([[1]]))
    batch = make_full_view_batch(scenes, *index, make_view_config(experiment))
    expected = predict(network, batch, rays_per_group=100).colours.view(view.colours.shape)
    torch.testing.assert_close(view.colours, expected, atol=1e-5, rtol=0)


def test_a_folder_and_its_file_are_one_model(run, arrays):
    folder = run[0]
    views = []
    for source in (folder, str(folder), folder / "model.safetensors"):
        scene, camera = encode(srt.load(source, "cpu"), arrays)
        views.append(scene.render(camera).colours)
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])


def test_images_may_be_bytes_or_floats_and_numpy_or_torch(run, arrays):
    images, intrinsics, poses = arrays
    model = srt.load(run[0], "cpu")
    forms = (images, images / 255, torch.as_tensor(images), torch.as_tensor(images).float() / 255)
    views = []
    for form in forms:
        scene, camera = encode(model, (form, intrinsics, poses))
        views.append(scene.render(camera).colours)
    for view in views[1:]:
        torch.testing.assert_close(view, views[0], atol=1e-5, rtol=0)


def test_a_view_of_another_size_shows_the_same_width_of_the_scene(run, arrays):
    scene, camera = encode(srt.load(run[0], "cpu"), arrays)
    small = scene.render(camera).colours
    large = scene.render(camera, size=(3 * camera.height, 3 * camera.width)).colours
    torch.testing.assert_close(large[1::3, 1::3], small, atol=1e-4, rtol=0)
    assert scene.render(camera, size=(5, 7)).colours.shape == (5, 7, 3)


def test_several_cameras_are_rendered_at_once(run, arrays):
    model = srt.load(run[0], "cpu")
    scene, camera = encode(model, arrays)
    images, intrinsics, poses = arrays
    both = srt.make_cameras(intrinsics, poses, *images.shape[1:3])
    views = scene.render(both).colours
    assert views.shape == (2, *images.shape[1:])
    torch.testing.assert_close(views[1], scene.render(camera).colours, atol=1e-5, rtol=0)


def test_the_canonical_frame_makes_the_world_irrelevant(run, arrays):
    folder, _, experiment = run
    images, intrinsics, poses = arrays
    moved = poses.copy()
    moved[:, :3, 3] += (3.0, -1.0, 2.0)
    model = srt.load(folder, "cpu")
    views = []
    for some in (poses, moved):
        scene, camera = encode(model, (images, intrinsics, some))
        views.append(scene.render(camera).colours)
    equal = torch.allclose(*views, atol=1e-4)
    assert equal == (experiment.model.frame == "canonical")


IDENTITY = np.eye(4)[None]
K = np.array([[[10.0, 0, 4], [0, 10, 4], [0, 0, 1]]])
MIRRORED = np.diag([-1.0, 1, 1, 1])[None]
MISTAKES = {
    "one image without a leading dimension": (np.zeros((8, 8, 3), np.uint8), K, IDENTITY, "images"),
    "transparency": (np.zeros((1, 8, 8, 4), np.uint8), K, IDENTITY, "drops transparency"),
    "floats of 0 to 255": (np.full((1, 8, 8, 3), 255.0), K, IDENTITY, "divide by 255"),
    "integers": (np.zeros((1, 8, 8, 3), np.int64), K, IDENTITY, "must be uint8"),
    "missing pose": (np.zeros((2, 8, 8, 3), np.uint8), K, IDENTITY, "2 images and 1 cameras"),
    "poses of 3 x 4": (np.zeros((1, 8, 8, 3), np.uint8), K, IDENTITY[:, :3], "must be 4 x 4"),
    "mirrored": (np.zeros((1, 8, 8, 3), np.uint8), K, MIRRORED, "scales, shears or mirrors"),
    "scaled": (np.zeros((1, 8, 8, 3), np.uint8), K, 2 * IDENTITY, "scales, shears or mirrors"),
    "nan": (np.zeros((1, 8, 8, 3), np.uint8), K * np.nan, IDENTITY, "not finite"),
    "normalised intrinsics": (np.zeros((1, 8, 8, 3), np.uint8), -K, IDENTITY, "not positive"),
    "one camera of two": (np.zeros((1, 8, 8, 3), np.uint8), K[[0, 0]], IDENTITY, "needs both"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_what_to_do(run, mistake):
    images, intrinsics, poses, message = MISTAKES[mistake]
    model = srt.load(run[0], "cpu")
    with pytest.raises(UserError, match=message):
        model.encode(images, srt.make_cameras(intrinsics, poses, 8, 8))


def test_cameras_of_another_image_size_are_refused(run):
    model = srt.load(run[0], "cpu")
    with pytest.raises(UserError, match=r"resize\(8, 8\)"):
        model.encode(np.zeros((1, 8, 8, 3), np.uint8), srt.make_cameras(K, IDENTITY, 16, 16))


def test_where_no_model_is_the_error_says_what_one_is(tmp_path):
    with pytest.raises(UserError, match=r"no model is here: .*model\.safetensors"):
        srt.load(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"neither of model_best\.pt, model\.pt"):
        srt.load(tmp_path)


@pytest.mark.parametrize("name", ["nmr_isrt", "msn_srt"])
def test_a_published_run_is_loaded(tmp_path, name):
    experiment = load_experiment(REPOSITORY / "params.yaml", name, "paper")
    training = TrainingState(experiment, CPU)
    training.best_psnr = 20.0
    write_checkpoint(tmp_path / "model.pt", checkpoint_from_training(training, 0, None))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(published_config(experiment)))
    model = srt.load(tmp_path, "cpu")
    for key, value in training.model.state_dict().items():
        assert torch.equal(model.network.state_dict()[key], value)
    assert model.view_config == make_view_config(experiment)


def test_the_public_names_are_imported_when_they_are_used():
    program = (
        "import sys, srt; assert 'torch' not in sys.modules; srt.load; assert 'Camera' in dir(srt)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)
    for name in srt.__all__:
        assert getattr(srt, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        srt.lod  # noqa: B018
