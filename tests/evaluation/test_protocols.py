"""The items of each protocol: which scenes, and which input views."""

import numpy as np
import pytest
from support.tiny_training import CPU, VIEWS, write_packed

from srt.common.errors import DataError
from srt.data.packed.reader import Scenes
from srt.evaluation.protocols import Item, protocol_items


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return Scenes(write_packed(tmp_path_factory.mktemp("packed"), source_view=2) / "test", CPU)


class CountedScenes(Scenes):
    """Scenes without data, for code that reads only their number and that of their views."""

    def __init__(self, count, views):
        self.count, self.views = count, views

    def __len__(self):
        return self.count


def test_stelzner_has_every_view_of_every_scene_as_input_once(scenes):
    items = protocol_items(scenes, "stelzner", 1, None)
    expected = [(scene, view) for scene in range(3) for view in range(VIEWS)]
    assert sorted((item.scene, *item.inputs) for item in items) == expected


def test_several_input_views_are_the_first_ones_of_each_scene(scenes):
    items = protocol_items(scenes, "stelzner", 2, None)
    assert items == [Item(scene, (0, 1)) for scene in range(len(scenes))]


@pytest.mark.parametrize("limit", [8, 12, 16, 32, 64, 256])
@pytest.mark.parametrize("count", [32, 64, 256])
def test_a_limited_stelzner_has_as_many_scenes_as_possible_and_many_views(count, limit):
    items = protocol_items(CountedScenes(count, 24), "stelzner", 1, limit)
    assert len(set(items)) == limit
    assert len({item.scene for item in items}) == min(limit, count)
    assert len({item.inputs for item in items}) >= min(limit, 24) / 2


def test_pixelnerf_has_the_source_view_that_the_dataset_names(scenes):
    assert protocol_items(scenes, "pixelnerf", 1, None) == [Item(scene, (2,)) for scene in range(3)]


def test_pixelnerf_without_source_views_is_refused_by_the_scene(tmp_path):
    scenes = Scenes(write_packed(tmp_path) / "test", CPU)
    with pytest.raises(DataError, match=r"^s0 has no source view.*view_list.*params\.yaml"):
        protocol_items(scenes, "pixelnerf", 1, None)


@pytest.mark.parametrize("protocol", ["stelzner", "pixelnerf", "gta"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 11, 12, 100])
def test_a_limit_spreads_the_items_evenly(scenes, protocol, limit):
    all_items = protocol_items(scenes, protocol, 1, None)
    items = protocol_items(scenes, protocol, 1, limit)
    assert len(items) == min(limit, len(all_items))

    # The first item is always there, and the gaps differ by one at most.
    indices = [all_items.index(item) for item in items]
    gaps = np.diff([*indices, len(all_items)])
    smallest_gap = len(all_items) // len(items)
    largest_gap = -(-len(all_items) // len(items))
    assert indices[0] == 0
    assert set(gaps) <= {smallest_gap, largest_gap}
