"""What an evaluation can change in a protocol: input views and their poses; and that it shows."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from support.tiny_training import CPU, VIEWS, configured, one_thread, tiny_experiment, write_packed

from srt.common.errors import UserError
from srt.data.batch import ViewConfig, make_full_view_batch
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import predict_item
from srt.evaluation.protocols import Conditions, Item, add_pose_noise, protocol_items
from srt.model.srt import build_model
from srt.model.weights import save_weights
from workflow import evaluate as stage

SHOWN = ViewConfig(
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
    asked = dataclasses.replace(experiment.evaluate, protocols=("stelzner", "gta"))
    return dataclasses.replace(experiment, evaluate=asked)


@pytest.fixture(scope="module")
def model(experiment):
    return build_model(experiment.model, seed=0).eval().requires_grad_(False)


@pytest.mark.parametrize("protocol", ["stelzner", "gta"])
@pytest.mark.parametrize("given", [1, 2])
def test_fewer_input_views_are_the_first_ones_and_the_targets_stay(
    scenes, packed, model, protocol, given
):
    items = protocol_items(scenes, protocol, 3, None, Conditions(input_views=given))
    images = np.load(packed / "test" / "images-00000.npy") / 255
    assert [item.scene for item in items] == [0, 1, 2]
    views = predict_item(model, scenes, items[1], view_config=SHOWN, rays_per_group=1000)
    np.testing.assert_allclose(views.inputs, images[1, :given], atol=1e-6)
    np.testing.assert_allclose(views.targets, images[1, 3:], atol=1e-6)


def test_as_many_input_views_as_in_training_are_the_plain_protocol(scenes):
    for count in (1, 2, 3):
        plain = protocol_items(scenes, "stelzner", count, None)
        assert protocol_items(scenes, "stelzner", count, None, Conditions(count)) == plain


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


def noisy(scenes, name, sigma, inputs=(0, 1, 2)):
    """Returns a batch and the same with pose noise."""
    index = (torch.tensor([0]), torch.tensor([inputs]), torch.tensor([[3]]))
    batch = make_full_view_batch(scenes, *index, SHOWN)
    return batch, add_pose_noise(batch, name, Item(0, inputs, pose_noise=sigma))


def test_pose_noise_moves_and_turns_the_input_cameras_but_the_first(scenes):
    batch, changed = noisy(scenes, "s", 0.1)
    same = [(changed.image_origins - batch.image_origins).norm(dim=-1)[0] < 1e-6]
    same.append(
        (changed.image_directions - batch.image_directions).flatten(2).norm(dim=2)[0] < 1e-4
    )
    for views in same:
        assert views.tolist() == [True, False, False]
    assert changed.origins is batch.origins
    assert changed.directions is batch.directions


def test_pose_noise_keeps_an_images_rays_rigid(scenes):
    batch, changed = noisy(scenes, "s", 0.3)
    before, after = (part.image_directions[0, 1].flatten(0, 1) for part in (batch, changed))
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-5, rtol=0)


def test_pose_noise_is_the_same_again_and_another_for_each_scene_and_view(scenes):
    (batch, first), (_, again), (_, other) = (noisy(scenes, name, 0.1) for name in "aab")
    assert torch.equal(first.image_origins, again.image_origins)
    assert torch.equal(first.image_directions, again.image_directions)
    moves = [(part.image_origins - batch.image_origins)[0, 1:] for part in (first, other)]
    assert len({tuple(move.tolist()) for part in moves for move in part}) == 4


def test_pose_noise_has_its_deviation(scenes):
    sigma, moves, angles = 0.02, [], []
    for number in range(400):
        batch, changed = noisy(scenes, f"scene {number}", sigma, (0, 1))
        moves.append((changed.image_origins - batch.image_origins)[0, 1])
        before, after = (p.image_directions[0, 1].flatten(0, 1) for p in (batch, changed))
        turn = torch.linalg.lstsq(before.double(), after.double()).solution
        angles.append((((turn.trace() - 1) / 2).clamp(max=1).acos()).item())
    moves = torch.stack(moves)
    assert moves.mean().abs() < 0.1 * sigma
    assert moves.std(dim=0).numpy() == pytest.approx(np.full(3, sigma), rel=0.15)
    assert np.square(angles).mean() == pytest.approx(3 * sigma**2, rel=0.15)


def test_pose_noise_changes_what_the_model_sees(scenes, model):
    plain, noise = (
        predict_item(
            model, scenes, Item(0, (0, 1), (), sigma), view_config=SHOWN, rays_per_group=1000
        )
        for sigma in (0.0, 0.2)
    )
    assert torch.equal(plain.targets, noise.targets)
    assert not torch.allclose(plain.predictions, noise.predictions, atol=1e-5)


class Recorder:
    """Stands for the run in MLflow."""

    def __init__(self):
        self.values, self.files = {}, []

    def log_metrics(self, values, step):
        self.values |= values

    def log_dataset(self, name, **given):
        assert given["context"] == "evaluation"

    def log_artifact(self, path, folder):
        self.files.append(f"{folder}/{path.name}")

    def close(self, status):
        pass


@pytest.fixture
def measured(packed, experiment, model, tmp_path, monkeypatch):
    """Runs the stage and returns what it wrote and logged."""
    save_weights(tmp_path / "model.safetensors", model.state_dict(), configured(experiment))
    (tmp_path / "lpips.json").write_text(json.dumps({"file": None}))
    monkeypatch.setattr(stage, "load_experiment", lambda *_: experiment)

    def measure(**flags):
        recorder, out = Recorder(), tmp_path / "out"
        monkeypatch.setattr(stage, "open_run", lambda *_: recorder)
        stage.evaluate(
            profile="quick", experiment="nmr_srt", data=packed, out=out,
            model=tmp_path / "model.safetensors", lpips=tmp_path / "lpips.json", **flags,
        )  # fmt: skip
        return out, recorder

    return measure


def test_the_stage_writes_the_same_metrics_again_and_times_beside_them(measured):
    first = (measured()[0] / "metrics.json").read_bytes()
    out, recorder = measured()
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


def test_the_stages_flags_show_in_what_it_writes(measured):
    found = []
    for flags in ({}, {"input_views": 2}, {"input_views": 2, "pose_noise": 0.1}, {"max_items": 2}):
        out, recorder = measured(**flags)
        found.append((json.loads((out / "metrics.json").read_text()), recorder))
    assert len({metrics["fingerprint"] for metrics, _ in found}) == 4
    metrics, recorder = found[2]
    assert metrics["conditions"]["input_views"] == 2
    assert metrics["conditions"]["pose_noise"] == 0.1
    assert "test/stelzner/2_views/pose_noise_0.1/psnr" in recorder.values
    assert "test/stelzner/psnr" not in recorder.values
    psnr = [metrics["protocols"]["gta"]["psnr"] for metrics, _ in found]
    assert len(set(psnr[:3])) == 3
    assert found[3][0]["protocols"]["gta"]["items"] == 2


def test_the_rows_name_the_inputs_that_were_given(measured):
    out, _ = measured(input_views=3)
    with (out / "scenes.csv").open() as file:
        assert {row["inputs"] for row in csv.DictReader(file)} == {"0 1 2"}
