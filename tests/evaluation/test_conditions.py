"""The conditions that an evaluation can change, and their traces in what the stage writes.

The conditions are the number of input views and the noise of their poses.
"""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from support.tiny_training import CPU, VIEWS, make_config, one_thread, tiny_experiment, write_packed

from srt.common.errors import UserError
from srt.data.batch import ViewConfig, make_full_view_batch
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict_item
from srt.evaluation.protocols import Conditions, Item, add_pose_noise, protocol_items
from srt.model.srt import build_model
from srt.model.weights import save_weights
from workflow import evaluate as stage

VIEW_CONFIG = ViewConfig(
    canonical=True, input_views=3, input_stride=1, all_targets=False, near=0.5, far=4.0
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write_packed(tmp_path_factory.mktemp("packed"), source_view=2)


@pytest.fixture(scope="module")
def scenes(packed):
    return Scenes(packed / "test", CPU)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    experiment = tiny_experiment(tmp_path_factory.mktemp("params"))
    config = dataclasses.replace(experiment.evaluate, protocols=("stelzner", "gta"))
    return dataclasses.replace(experiment, evaluate=config)


@pytest.fixture(scope="module")
def model(experiment):
    return build_model(experiment.model, seed=0).eval().requires_grad_(False)


@pytest.mark.parametrize("protocol", ["stelzner", "gta"])
@pytest.mark.parametrize("count", [1, 2])
def test_fewer_input_views_are_the_first_ones_and_the_targets_stay(
    scenes, packed, model, protocol, count
):
    items = protocol_items(scenes, protocol, 3, None, Conditions(input_views=count))
    assert [item.scene for item in items] == [0, 1, 2]

    # With three input views in training, the targets begin with view 3.
    images = np.load(packed / "test" / "images-00000.npy") / 255
    views = predict_item(model, scenes, items[1], view_config=VIEW_CONFIG, rays_per_group=1000)
    np.testing.assert_allclose(views.inputs, images[1, :count], atol=1e-6)
    np.testing.assert_allclose(views.targets, images[1, 3:], atol=1e-6)


def test_as_many_input_views_as_in_training_change_nothing(scenes):
    for count in (1, 2, 3):
        unchanged = protocol_items(scenes, "stelzner", count, None)
        assert protocol_items(scenes, "stelzner", count, None, Conditions(count)) == unchanged


def test_more_input_views_than_in_training_are_the_first_ones(scenes):
    items = protocol_items(scenes, "stelzner", 1, None, Conditions(input_views=3))
    assert items == [Item(scene, (0, 1, 2)) for scene in range(3)]


@pytest.mark.parametrize(
    ("protocol", "conditions", "message"),
    [
        ("stelzner", Conditions(VIEWS), r"input_views 4: no target is left.* 4 views"),
        ("pixelnerf", Conditions(2), r"input_views 2: protocol pixelnerf has one source view"),
        (
            "stelzner",
            Conditions(1, 0.1),
            r"pose_noise 0\.1: the pose of the first.*pose_noise to 0\.0",
        ),
        ("pixelnerf", Conditions(None, 0.1), r"pose_noise 0\.1: .*protocol pixelnerf has no other"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(scenes, protocol, conditions, message):
    with pytest.raises(UserError, match=rf"evaluate\.{message}"):
        protocol_items(scenes, protocol, 2, None, conditions)


def make_noisy_batch(scenes, name, sigma, inputs=(0, 1, 2)):
    """Return a batch without and with pose noise of deviation sigma.

    Args:
        name: of the scene, from which the noise is computed.
    """
    index = (torch.tensor([0]), torch.tensor([inputs]), torch.tensor([[3]]))
    batch = make_full_view_batch(scenes, *index, VIEW_CONFIG)
    return batch, add_pose_noise(batch, name, Item(0, inputs, pose_noise=sigma))


def test_pose_noise_moves_and_rotates_all_input_cameras_but_the_first(scenes):
    batch, noisy = make_noisy_batch(scenes, "s", 0.1)
    moves = (noisy.image_origins - batch.image_origins)[0].norm(dim=-1)
    rotations = (noisy.image_directions - batch.image_directions)[0].flatten(1).norm(dim=1)
    assert (moves < 1e-6).tolist() == [True, False, False]
    assert (rotations < 1e-4).tolist() == [True, False, False]

    # The target rays have no noise.
    assert noisy.origins is batch.origins
    assert noisy.directions is batch.directions


def test_pose_noise_does_not_change_the_angles_between_rays_of_an_image(scenes):
    batch, noisy = make_noisy_batch(scenes, "s", 0.3)
    exact_rays = batch.image_directions[0, 1].flatten(0, 1)
    noisy_rays = noisy.image_directions[0, 1].flatten(0, 1)
    expected = exact_rays @ exact_rays.T
    torch.testing.assert_close(noisy_rays @ noisy_rays.T, expected, atol=1e-5, rtol=0)


def test_pose_noise_is_always_the_same_but_differs_between_scenes_and_views(scenes):
    batch, first = make_noisy_batch(scenes, "a", 0.1)
    _, repeated = make_noisy_batch(scenes, "a", 0.1)
    assert torch.equal(first.image_origins, repeated.image_origins)
    assert torch.equal(first.image_directions, repeated.image_directions)

    # Two scenes with two noisy views each make four different moves.
    _, second = make_noisy_batch(scenes, "b", 0.1)
    moves = set()
    for noisy in (first, second):
        moves |= {
            tuple(move) for move in (noisy.image_origins - batch.image_origins)[0, 1:].tolist()
        }
    assert len(moves) == 4


def test_pose_noise_has_its_deviation(scenes):
    sigma, moves, angles = 0.02, [], []
    for number in range(400):
        batch, noisy = make_noisy_batch(scenes, f"scene {number}", sigma, (0, 1))
        moves.append((noisy.image_origins - batch.image_origins)[0, 1])

        # The rotation that maps the exact rays to the noisy ones; its trace is 1 + 2 cos(angle).
        exact_rays = batch.image_directions[0, 1].flatten(0, 1)
        noisy_rays = noisy.image_directions[0, 1].flatten(0, 1)
        rotation = torch.linalg.lstsq(exact_rays.double(), noisy_rays.double()).solution
        angles.append((((rotation.trace() - 1) / 2).clamp(max=1).acos()).item())

    # A rotation vector has three components, whose squares add up to that of the angle.
    moves = torch.stack(moves)
    assert moves.mean().abs() < 0.1 * sigma
    assert moves.std(dim=0).numpy() == pytest.approx(np.full(3, sigma), rel=0.15)
    assert np.square(angles).mean() == pytest.approx(3 * sigma**2, rel=0.15)


def test_pose_noise_changes_the_predictions_but_not_the_targets(scenes, model):
    options = {"view_config": VIEW_CONFIG, "rays_per_group": 1000}
    exact = predict_item(model, scenes, Item(0, (0, 1), (), 0.0), **options)
    noisy = predict_item(model, scenes, Item(0, (0, 1), (), 0.2), **options)
    assert torch.equal(exact.targets, noisy.targets)
    assert not torch.allclose(exact.predictions, noisy.predictions, atol=1e-5)


class Recorder:
    """Replaces the run in MLflow and keeps what is logged."""

    def __init__(self):
        self.values, self.files = {}, []

    def log_metrics(self, values, step):
        self.values |= values

    def log_dataset(self, name, **description):
        assert description["context"] == "evaluation"

    def log_artifact(self, path, folder):
        self.files.append(f"{folder}/{path.name}")

    def close(self, status):
        pass


@pytest.fixture
def run_stage(packed, experiment, model, tmp_path, monkeypatch):
    """Return a function that runs the stage and returns its folder and what it logged."""
    save_weights(tmp_path / "model.safetensors", model.state_dict(), make_config(experiment))
    (tmp_path / "lpips.json").write_text(json.dumps({"file": None}))
    monkeypatch.setattr(stage, "load_experiment", lambda *_: experiment)
    monkeypatch.chdir(tmp_path)  # where nothing was fetched

    def run(**flags):
        recorder, out = Recorder(), tmp_path / "out"
        monkeypatch.setattr(stage, "open_run", lambda *_: recorder)
        stage.evaluate(
            profile="quick", experiment="nmr_srt", data=packed, out=out,
            model=tmp_path / "model.safetensors",
            **{"lpips": tmp_path / "lpips.json", **flags},
        )  # fmt: skip
        return out, recorder

    return run


def test_a_second_run_writes_equal_metrics_and_times_are_in_another_file(run_stage):
    first = (run_stage()[0] / "metrics.json").read_bytes()
    out, recorder = run_stage()
    assert (out / "metrics.json").read_bytes() == first
    metrics = json.loads(first)
    assert metrics["conditions"] == {
        "input_views": 1, "trained_input_views": 1, "pose_noise": 0.0,
    }  # fmt: skip
    assert set(metrics["costs"]) == {"parameters", "encode_flops", "frame_flops"}
    assert json.loads((out / "costs.json").read_text())["frame_seconds"] > 0
    assert len(metrics["fingerprint"]) == 12
    psnr = metrics["protocols"]["stelzner"]["psnr"]
    assert recorder.values["test/stelzner/psnr"] == psnr
    assert "evaluation/costs.json" in recorder.files


def test_the_flags_of_the_stage_change_what_it_writes_and_logs(run_stage):
    results = []
    for flags in ({}, {"input_views": 2}, {"input_views": 2, "pose_noise": 0.1}, {"max_items": 2}):
        out, recorder = run_stage(**flags)
        results.append((json.loads((out / "metrics.json").read_text()), recorder))
    assert len({metrics["fingerprint"] for metrics, _ in results}) == 4

    # Other conditions are logged under other names.
    metrics, recorder = results[2]
    assert metrics["conditions"]["input_views"] == 2
    assert metrics["conditions"]["pose_noise"] == 0.1
    assert "test/stelzner/2_views/pose_noise_0.1/psnr" in recorder.values
    assert "test/stelzner/psnr" not in recorder.values

    # The conditions change the figures, and max_items their number.
    psnr = [metrics["protocols"]["gta"]["psnr"] for metrics, _ in results]
    assert len(set(psnr[:3])) == 3
    assert results[3][0]["protocols"]["gta"]["items"] == 2


def test_the_rows_name_the_input_views(run_stage):
    out, _ = run_stage(input_views=3)
    with (out / "scenes.csv").open() as file:
        assert {row["inputs"] for row in csv.DictReader(file)} == {"0 1 2"}


def test_without_weights_of_lpips_all_else_is_measured_and_one_line_says_so(run_stage, caplog):
    with caplog.at_level("INFO"):
        out, _ = run_stage(lpips=None)
    lines = [record.message for record in caplog.records if "not measured" in record.message]
    assert lines == ["not measured, because there are no weights: lpips, lpips_alex"]
    figures = json.loads((out / "metrics.json").read_text())["protocols"]["gta"]
    assert figures["psnr"] > 0
    assert figures["lpips"] is figures["lpips_alex"] is None


def test_a_manifest_that_is_named_must_exist(run_stage, tmp_path):
    with pytest.raises(UserError, match=r"absent\.json: there is no such file"):
        run_stage(lpips=tmp_path / "absent.json")
