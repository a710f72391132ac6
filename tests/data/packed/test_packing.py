"""Packing that is interrupted: the output is whole or not there, and finished shards are kept."""

import dataclasses
import errno
import json
import os
import select
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.small_nmr import (
    REPOSITORY,
    TINY,
    VIEWS,
    contents,
    delete_lines,
    image,
    pack,
    pack_in_threads,
    truncate,
    use_small_shards,
    write_raw,
)

from srt.common.errors import DataError, UserError
from srt.common.files import lock_folder
from srt.config.schema import SPLITS
from srt.data.packed.reader import Scenes, read_split_header

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("valid") / "raw")


@pytest.fixture
def raw(valid, tmp_path):
    return shutil.copytree(valid, tmp_path / "raw")


@pytest.fixture
def quickly(monkeypatch):
    pack_in_threads(monkeypatch)
    use_small_shards(monkeypatch)


@pytest.mark.usefixtures("quickly")
def test_a_repaired_dataset_is_packed_as_if_it_had_never_been_broken(raw, tmp_path):
    """A scene that is removed from its list moves later scenes to other shards."""
    truncate(image(raw, "02828884/b0"), 0.5)
    with pytest.raises(DataError, match=r"b0/image/0001\.png"):
        pack(raw, tmp_path / "packed")
    assert list((tmp_path / ".packed.partial" / "train").glob("images-*.npy"))

    # Repair the data: remove a scene from its list, and replace the damaged image.
    delete_lines(raw / "04256520" / "softras_train.lst", "s1")
    shutil.copy(image(raw), image(raw, "02828884/b0"))
    packed = contents(pack(raw, tmp_path / "packed"))
    assert packed == contents(pack(raw, tmp_path / "fresh"))
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "packed", "fresh"}


class Stop(BaseException):
    """Stands for a kill: nothing catches it."""


def stop_after(monkeypatch, calls):
    """Let only the first calls that change the disk succeed; return the list of these."""
    changes = []

    def counted(change):
        def call(*args, **keywords):
            if len(changes) >= calls:
                raise Stop
            changes.append(change)
            return change(*args, **keywords)

        return call

    monkeypatch.setattr(os, "getpid", lambda: -1)  # the next call is another process
    for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return changes


@pytest.mark.usefixtures("quickly")
def test_wherever_packing_stops_the_next_call_ends_with_the_same_bytes(
    valid, tmp_path, monkeypatch
):
    """Meanwhile the earlier dataset is there as a whole, or gone, or replaced by the new one."""
    corner = dataclasses.replace(TINY, pixel_grid="corner")
    expected = contents(pack(valid, tmp_path / "expected"))
    earlier = contents(pack(valid, tmp_path / "earlier", corner))

    # Stop after one change of the disk, after two, and so on, until the call is not stopped.
    for calls in range(1000):
        out = shutil.copytree(tmp_path / "earlier", tmp_path / str(calls) / "packed")
        with monkeypatch.context() as context:
            changes = stop_after(context, calls)
            try:
                pack(valid, out)
            except Stop:
                pass
            else:
                break

        # The next call completes the work and leaves nothing else.
        assert not out.exists() or contents(out) in (earlier, expected)
        assert contents(pack(valid, out)) == expected
        assert [path.name for path in out.parent.iterdir()] == ["packed"]
    assert len(changes) > 40


def test_the_bytes_do_not_depend_on_the_number_of_workers(valid, tmp_path, monkeypatch):
    use_small_shards(monkeypatch)
    several = contents(pack(valid, tmp_path / "several", workers=3))
    pack_in_threads(monkeypatch)
    assert contents(pack(valid, tmp_path / "one")) == several


def test_a_fault_that_a_worker_process_finds_is_refused_with_the_file(raw, tmp_path):
    image(raw).unlink()
    with pytest.raises(DataError, match=r"s1/image/0001\.png: there is no such file"):
        pack(raw, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


PACK = """
import sys
from pathlib import Path
sys.path.append("tests")
from support import small_nmr
small_nmr.shards.SHARD_BYTES = 2 * small_nmr.SCENE_BYTES
small_nmr.pack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.usefixtures("quickly")
@pytest.mark.timeout(120)  # it waits for the worker to come to the pipe
def test_a_killed_call_leaves_no_worker_and_its_finished_shards_are_not_made_again(
    raw, valid, tmp_path
):
    """The third scene's first image is a pipe: a worker that reads it waits in the second shard."""
    expected = contents(pack(valid, tmp_path / "expected"))

    # Replace the image by a pipe, and pack in another process.
    pipe = image(raw, "04256520/s2", view=0)
    picture = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    out = tmp_path / "packed"
    killed = subprocess.Popen(
        [sys.executable, "-c", PACK, str(raw), str(out)], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )

    # The pipe opens when the worker opens it. Then kill the caller: the worker must die too.
    with pipe.open("wb") as writer:
        killed.kill()
        killed.wait()
        closed = select.poll()
        closed.register(writer, 0)
        assert closed.poll(20_000), "the worker lives on"

    # The next call uses the finished shard: it is the same file, unchanged.
    (shard,) = tmp_path.rglob(".packed.partial/train/images-*.npy")
    finished = shard.stat()
    pipe.unlink()
    pipe.write_bytes(picture)
    assert contents(pack(raw, out)) == expected
    packed = (out / "train" / shard.name).stat()
    assert (packed.st_ino, packed.st_mtime_ns) == (finished.st_ino, finished.st_mtime_ns)


@pytest.mark.usefixtures("quickly")
def test_compressed_scenes_are_the_raw_ones(valid, tmp_path):
    compressed = dataclasses.replace(TINY, storage="compressed")
    raw_files = pack(valid, tmp_path / "raw_files")
    webp = pack(valid, tmp_path / "webp", compressed)
    everything = (torch.arange(VIEWS)[None], torch.zeros(1, 0, dtype=torch.long), 1)
    for split in SPLITS:
        first, second = (Scenes(folder / split, CPU) for folder in (raw_files, webp))
        assert first.names == second.names
        for index in range(len(first)):
            scene = torch.tensor([index])
            images = [scenes.gather(scene, *everything)[0] for scenes in (first, second)]
            assert torch.equal(*images)
            assert all(map(torch.equal, first.cameras(scene), second.cameras(scene)))
        headers = [read_split_header(folder / split) for folder in (raw_files, webp)]
        assert headers[0]["statistics"] == headers[1]["statistics"]


@pytest.mark.usefixtures("quickly")
def test_the_statistics_are_those_of_all_pixels(valid, tmp_path):
    out = pack(valid, tmp_path / "packed")
    shards = [np.load(path) / 255 for path in sorted((out / "train").glob("images-*.npy"))]
    pixels = np.concatenate(shards).reshape(-1, 3)
    statistics = read_split_header(out / "train")["statistics"]
    np.testing.assert_allclose(statistics["mean_colour"], pixels.mean(axis=0))
    np.testing.assert_allclose(statistics["std_colour"], pixels.std(axis=0))
    np.testing.assert_allclose(statistics["minimum"], pixels.min(axis=0))
    np.testing.assert_allclose(statistics["maximum"], pixels.max(axis=0))


@pytest.mark.usefixtures("quickly")
def test_provenance_holds_sources_and_versions(valid, tmp_path):
    manifest = json.loads((pack(valid, tmp_path / "packed") / "manifest.json").read_text())
    assert manifest["provenance"]["source"] == "test"
    assert manifest["provenance"]["versions"]["numpy"] == np.__version__


def failing(code):
    """Return a function that fails with an error of the system."""

    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("fsync", errno.ENOSPC, "No space left on device"),
        ("fsync", errno.EDQUOT, "quota exceeded"),
        ("mkdir", errno.EROFS, "Read-only file system"),
        ("mkdir", errno.EACCES, "Permission denied"),
        ("replace", errno.ENOSPC, "No space left on device"),
    ],
)
@pytest.mark.usefixtures("quickly")
def test_a_disk_that_takes_no_more_is_named_and_what_is_done_is_kept(
    valid, tmp_path, monkeypatch, name, code, expected
):
    out = tmp_path / "packed"
    with monkeypatch.context() as context:
        context.setattr(os, name, failing(code))
        with pytest.raises(DataError, match=f"{out}: .*{expected}; make room or choose another"):
            pack(valid, out)
    assert not out.exists()
    assert contents(pack(valid, out)) == contents(pack(valid, tmp_path / "other"))


@pytest.mark.usefixtures("quickly")
def test_raw_images_that_will_not_fit_are_refused_before_any_is_written(
    valid, tmp_path, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"do not fit .*`storage: compressed`"):
        pack(valid, tmp_path / "packed")
    assert not list(tmp_path.rglob("images-*"))


@pytest.mark.usefixtures("quickly")
def test_a_second_call_is_refused_while_the_first_packs(valid, tmp_path):
    refused = pytest.raises(UserError, match=r"packed is being packed by another process")
    with lock_folder(tmp_path / ".packed.partial", "x"), refused:
        pack(valid, tmp_path / "packed")
    pack(valid, tmp_path / "packed")
