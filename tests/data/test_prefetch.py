"""Batches are the same, however their images are stored and loaded; damaged ones are refused."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from support.numbered_pixels import (
    CPU,
    SAMPLER,
    SCENES,
    equal_tensors,
    sampler,
    tensors,
    write_packed,
)

from srt.common.errors import DataError
from srt.data.packed.reader import Scenes
from srt.data.prefetch import iterate_batches, read_ahead


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return Scenes(write_packed(tmp_path_factory.mktemp("packed") / "train", SCENES), CPU)


@pytest.mark.parametrize("storage", ["raw", "compressed"])
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("scenes_per_shard", [1, 2, 3, SCENES])
def test_all_ways_to_store_and_load_give_the_same_batches(
    scenes, tmp_path, scenes_per_shard, resident, storage
):
    shards = Scenes(write_packed(tmp_path / "train", scenes_per_shard, storage), CPU, resident)
    source = sampler({"input_stride": 2, "input_views": 2})
    for step in range(3):
        assert all(equal_tensors(source.batch(scenes, step), source.batch(shards, step)))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("steps", [(0, 1), (3, 9)])
def test_batches_that_are_read_ahead_are_the_same(scenes, steps, threads):
    ahead = [clone(batch) for batch in read_ahead(SAMPLER, scenes, *steps, threads)]
    assert len(ahead) == steps[1] - steps[0]
    for batch, expected in zip(ahead, iterate_batches(SAMPLER, scenes, *steps), strict=True):
        assert all(equal_tensors(batch, expected))


def clone(batch):
    """Return a copy of a batch that shares no memory with the reader's buffers."""
    clones = {name: value.clone() for name, value in tensors(batch).items()}
    return dataclasses.replace(batch, **clones)


def test_reading_ahead_stops_with_its_reader(scenes):
    reader = read_ahead(SAMPLER, scenes, 0, 1000, threads=2)
    next(reader)
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


@pytest.mark.parametrize("storage", ["raw", "compressed"])
def test_a_shard_of_another_length_is_refused_before_it_is_read(tmp_path, storage):
    folder = write_packed(tmp_path / "train", 2, storage)
    (shard,) = folder.glob("images-00001.*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{shard}: \d+ bytes, \d+ are expected; pack again"):
        Scenes(folder, CPU)


def test_a_damaged_scene_is_refused_by_its_number(tmp_path):
    folder = write_packed(tmp_path / "train", SCENES, "compressed")

    # Overwrite the file of scene 2 with zeros.
    ends = np.load(folder / "ends.npy")
    (shard,) = folder.glob("images-00000.webp")
    content = bytearray(shard.read_bytes())
    content[int(ends[1]) : int(ends[2])] = bytes(int(ends[2] - ends[1]))
    shard.write_bytes(content)

    # Other scenes can still be read.
    scenes = Scenes(folder, CPU)
    no_pixels = torch.zeros(1, 0, dtype=torch.long)
    scenes.gather(torch.tensor([1]), torch.tensor([[2]]), no_pixels, 1)
    with pytest.raises(DataError, match=r"images-00000\.webp: scene 2 is damaged"):
        scenes.gather(torch.tensor([2]), torch.tensor([[3]]), no_pixels, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no such file; run `python -m workflow.pack`"), ('{"format": 0}', "format 0.*again")],
)
def test_a_folder_that_is_not_packed_is_refused_by_its_header(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "scenes.json").write_text(content)
    with pytest.raises(DataError, match=rf"{tmp_path / 'scenes.json'}: .*{expected}"):
        Scenes(tmp_path, CPU)
