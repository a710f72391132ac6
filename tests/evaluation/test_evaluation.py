"""Protocols, measures and baselines on full images; and rendered frames that agree with them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_training import ALONE, CPU, VIEWS, one_thread, tiny_experiment, write_packed

from srt.common.distributed import Processes
from srt.common.errors import DataError
from srt.data.batch import ViewConfig, make_full_view_batch
from srt.data.packed.reader import Scenes
from srt.evaluation.comparison import compare_views
from srt.evaluation.evaluator import evaluate_items, predict_item
from srt.evaluation.protocols import Item, protocol_items
from srt.model.decoder import Prediction
from srt.model.srt import build_model
from srt.visualization.pictures import to_uint8

MEAN = (0.25, 0.5, 0.75)
WORLD = ViewConfig(
    canonical=False, input_views=1, input_stride=1, all_targets=False, near=0.5, far=4.0
)
CANONICAL = dataclasses.replace(WORLD, canonical=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write_packed(tmp_path_factory.mktemp("packed"), source_view=2) / "test"


@pytest.fixture(scope="module")
def scenes(packed):
    return Scenes(packed, CPU)


@pytest.fixture(scope="module")
def images(packed):
    return np.load(packed / "images-00000.npy") / 255


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny_experiment(tmp_path_factory.mktemp("params")).model
    return build_model(config, seed=0).eval().requires_grad_(False)


def evaluate(model, scenes, items, protocol, processes=ALONE, view_config=WORLD, rays=100):
    return evaluate_items(
        model,
        scenes,
        items,
        protocol,
        mean_colour=MEAN,
        lpips=None,
        view_config=view_config,
        rays_per_group=rays,
        processes=processes,
    )


def decibels(error):
    return -10 * np.log10(error)


def test_stelzner_takes_every_view_of_every_scene_as_input_once(scenes):
    items = protocol_items(scenes, "stelzner", 1, None)
    assert sorted((item.scene, *item.inputs) for item in items) == [
        (scene, view) for scene in range(3) for view in range(VIEWS)
    ]


class Numbered(Scenes):
    """Scenes of which only their number and that of their views are asked for."""

    def __init__(self, count, views):
        self.count, self.views = count, views

    def __len__(self):
        return self.count


@pytest.mark.parametrize("limit", [8, 12, 16, 32, 64, 256])
@pytest.mark.parametrize("count", [32, 64, 256])
def test_some_of_stelzners_items_are_of_as_many_scenes_and_of_many_views(count, limit):
    items = protocol_items(Numbered(count, 24), "stelzner", 1, limit)
    assert len(set(items)) == limit
    assert len({item.scene for item in items}) == min(limit, count)
    assert len({item.inputs for item in items}) >= min(limit, 24) / 2


def test_pixelnerf_takes_the_source_view_that_is_written_down(scenes):
    assert protocol_items(scenes, "pixelnerf", 1, None) == [Item(scene, (2,)) for scene in range(3)]


def test_pixelnerf_without_source_views_is_refused_by_the_scene(tmp_path):
    scenes = Scenes(write_packed(tmp_path) / "test", CPU)
    with pytest.raises(DataError, match=r"^s0 has no source view.*view_list.*params\.yaml"):
        protocol_items(scenes, "pixelnerf", 1, None)


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 11, 12, 100])
def test_a_limit_spreads_the_items_evenly(scenes, protocol, limit):
    every = protocol_items(scenes, protocol, 1, None)
    items = protocol_items(scenes, protocol, 1, limit)
    places = [every.index(item) for item in items]
    assert len(items) == min(limit, len(every))
    gaps = np.diff([*places, len(every)])
    assert places[0] == 0
    assert set(gaps) <= {len(every) // len(items), -(-len(every) // len(items))}


@dataclasses.dataclass(frozen=True)
class Share(Processes):
    """One of several processes; the last to gather sees what the others gathered before."""

    shares: dict[int, Any]

    def gather(self, value):
        self.shares[self.rank] = value
        return list(self.shares.values())


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_any_number_of_processes_gives_the_rows_of_one(scenes, model, protocol, count):
    items = protocol_items(scenes, protocol, 1, 4)
    alone, shares = evaluate(model, scenes, items, protocol), {}
    for rank in reversed(range(count)):  # so that the shares come in another order
        processes = Share(rank, count, CPU, None, shares)
        rows = evaluate(model, scenes, items, protocol, processes)
    assert rows == alone
    assert len(alone) == len(items)
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rays", [1, 768, 10**6])
def test_the_figures_do_not_depend_on_the_groups_of_rays(scenes, model, rays):
    items = protocol_items(scenes, "stelzner", 1, 1)
    (row,), (grouped,) = (
        evaluate(model, scenes, items, "stelzner", rays=size) for size in (100, rays)
    )
    assert grouped["psnr"] == pytest.approx(row["psnr"], abs=1e-5)


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_the_baselines_are_the_mean_colour_and_the_nearest_input(
    scenes, packed, images, model, protocol
):
    items = [Item(0, (0, 2)), Item(2, (3,))]
    positions = np.load(packed / "cameras.npz")["camera_to_world"][..., :3, 3]
    rows = evaluate(model, scenes, items, protocol)
    for item, row in zip(items, rows):
        targets = [view for view in range(VIEWS) if view not in item.inputs]
        nearest = []
        for view in targets:
            offsets = positions[item.scene, list(item.inputs)] - positions[item.scene, view]
            nearest.append(item.inputs[np.linalg.norm(offsets, axis=1).argmin()])
        mean = np.array(MEAN)
        if protocol == "pixelnerf":
            mean = np.round(mean * 255) / 255
        for name, guess in (
            ("mean_colour", mean),
            ("input_view", images[item.scene, nearest]),
        ):
            error = ((images[item.scene, targets] - guess) ** 2).mean(axis=(1, 2, 3))
            expected = decibels(error.mean()) if protocol == "stelzner" else decibels(error).mean()
            assert row[f"{name}_psnr"] == pytest.approx(expected, abs=1e-4)
        assert row["scene"] == f"s{item.scene}"
        assert row["class"] == "cube"
        assert row["inputs"] == " ".join(map(str, item.inputs))
    assert nearest == [3, 3, 3]


def with_errors(monkeypatch, errors):
    """Has the model miss every colour of target view i by errors[i], towards grey."""

    def predict(model, batch, rays_per_group, mixed_precision):
        views = batch.colours.unflatten(1, (VIEWS - 1, -1))
        offset = torch.tensor(errors)[None, :, None, None] * (views < 0.5).float().mul(2).sub(1)
        return Prediction((views + offset).flatten(1, 2))

    monkeypatch.setattr("srt.evaluation.evaluator.predict", predict)


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
def test_a_perfect_model_has_100_db(scenes, model, protocol, monkeypatch):
    with_errors(monkeypatch, [0.0, 0.0, 0.0])
    (row,) = evaluate(model, scenes, [Item(1, (0,))], protocol)
    assert row["psnr"] == 100
    assert row["ssim"] == (None if protocol == "stelzner" else pytest.approx(1))
    assert row["lpips"] is None  # not measured, never a number


def test_stelzner_pools_the_error_of_all_views_before_the_logarithm(scenes, model, monkeypatch):
    with_errors(monkeypatch, [0.01, 0.1, 0.3])
    (row,) = evaluate(model, scenes, [Item(1, (0,))], "stelzner")
    assert row["psnr"] == pytest.approx(decibels(np.mean([0.01**2, 0.1**2, 0.3**2])), abs=1e-4)


def test_pixelnerf_takes_the_mean_of_the_views_own_figures(scenes, model, monkeypatch):
    levels = np.array([3, 25, 75]) / 255  # whole levels of an 8-bit image
    with_errors(monkeypatch, levels.tolist())
    (row,) = evaluate(model, scenes, [Item(1, (0,))], "pixelnerf")
    assert row["psnr"] == pytest.approx(decibels(levels**2).mean(), abs=1e-4)


def test_targets_are_all_other_views_in_order_and_inputs_are_the_inputs(scenes, images, model):
    views = predict_item(model, scenes, Item(1, (2,)), view_config=CANONICAL, rays_per_group=100)
    np.testing.assert_allclose(views.targets, images[1, [0, 1, 3]], atol=1e-6)
    np.testing.assert_allclose(views.inputs, images[1, [2]], atol=1e-6)
    assert views.predictions.shape == views.targets.shape


def test_with_all_views_as_targets_the_inputs_are_measured_too(scenes, images, model):
    everything = dataclasses.replace(CANONICAL, all_targets=True)
    views = predict_item(model, scenes, Item(1, (2,)), view_config=everything, rays_per_group=100)
    np.testing.assert_allclose(views.targets, images[1], atol=1e-6)


def test_a_picture_never_shows_an_input_as_its_target(scenes, images, model, monkeypatch):
    columns = []
    monkeypatch.setattr(
        "srt.evaluation.comparison.grid", lambda given, labels: np.zeros((1, 1, 3), np.uint8)
    )
    monkeypatch.setattr(
        "srt.evaluation.comparison.comparison_columns", lambda *given: columns.append(given)
    )
    everything = dataclasses.replace(CANONICAL, all_targets=True)
    items = [Item(1, (view,)) for view in range(4)]
    compare_views(model, scenes, items, view_config=everything, rays_per_group=100)
    ((inputs, targets, _),) = columns
    for view in range(4):
        given = to_uint8(torch.from_numpy(images[1, view]))
        assert (inputs[view, 0] == given).all()
        assert (targets[view] != given).any()


def test_a_picture_decodes_only_the_view_that_it_shows_the_same_as_among_all(
    scenes, model, monkeypatch
):
    columns, decoded = [], []
    monkeypatch.setattr(
        "srt.evaluation.comparison.grid", lambda given, labels: np.zeros((1, 1, 3), np.uint8)
    )
    monkeypatch.setattr(
        "srt.evaluation.comparison.comparison_columns", lambda *given: columns.append(given)
    )
    item = Item(1, (2,))
    everything = predict_item(model, scenes, item, view_config=CANONICAL, rays_per_group=100)
    decode = model.decode
    monkeypatch.setattr(
        model, "decode", lambda pair, rays: decoded.append(rays) or decode(pair, rays)
    )
    compare_views(model, scenes, [item], view_config=CANONICAL, rays_per_group=100)
    ((_, targets, predictions),) = columns
    assert sum(rays.directions.shape[1] for rays in decoded) == scenes.height * scenes.width
    (angle,) = (i for i, t in enumerate(everything.targets) if (to_uint8(t) == targets[0]).all())
    levels = to_uint8(everything.predictions[angle]).astype(int) - predictions[0]
    assert abs(levels).max() <= 1  # groups of other sizes may round a value to the next level


def test_strided_inputs_are_shown_whole_but_seen_strided(scenes, images, model, monkeypatch):
    seen = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *given: seen.append(given) or encode(*given))
    strided = dataclasses.replace(CANONICAL, input_stride=2)
    views = predict_item(model, scenes, Item(1, (2,)), view_config=strided, rays_per_group=100)
    np.testing.assert_allclose(views.inputs, images[1, [2]], atol=1e-6)
    np.testing.assert_allclose(seen[0][0][0], images[1, [2], 1::2, 1::2], atol=1e-6)


def test_several_input_views_are_the_first_ones_of_each_scene(scenes):
    items = protocol_items(scenes, "stelzner", 2, None)
    assert items == [Item(scene, (0, 1)) for scene in range(len(scenes))]


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_products_may_be_as_in_training_but_cameras_are_exact(
    scenes, model, monkeypatch, mixed_precision
):
    monkeypatch.setattr(
        "srt.evaluation.evaluator.training_precision",
        lambda device: torch.autocast(device.type, torch.bfloat16),
    )
    seen, (encode, decode) = {}, (model.encode, model.decode)

    def encoding(images, *rays):
        seen["inputs"] = rays
        return encode(images, *rays)

    def decoding(pairs, rays):
        seen["targets"] = rays.origins, rays.directions
        seen["reduced"] = torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32
        return decode(pairs, rays)

    monkeypatch.setattr(model, "encode", encoding)
    monkeypatch.setattr(model, "decode", decoding)
    (row,) = evaluate_items(
        model,
        scenes,
        [Item(1, (2,))],
        "stelzner",
        mean_colour=None,
        lpips=None,
        view_config=CANONICAL,
        rays_per_group=10**6,
        processes=ALONE,
        mixed_precision=mixed_precision,
    )
    assert np.isfinite(row["psnr"])
    assert seen["reduced"] == (mixed_precision, mixed_precision)
    assert torch.backends.cudnn.allow_tf32
    scene, inputs, targets = (torch.tensor(index) for index in ([1], [[2]], [[0, 1, 3]]))
    exact = make_full_view_batch(scenes, scene, inputs, targets, CANONICAL)
    found = [*seen["inputs"], *seen["targets"]]
    wanted = [exact.image_origins, exact.image_directions, exact.origins, exact.directions]
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))
