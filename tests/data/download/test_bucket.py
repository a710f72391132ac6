"""Shards of a bucket, fetched several at once from a server that fails in many ways."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import PARAMS
from support.unreliable_site import Bucket, checksum, make_bucket, serve

from srt.config.load import load_dataset
from srt.config.schema import DatasetConfig, SplitRanges, SubsetConfig
from srt.data.download import http, partial
from srt.data.download.bucket import fetch_bucket, https_address, required_shards
from srt.data.download.partial import FetchError

# The records in each shard, and ranges that use all of them.
LENGTHS = {"train": [20, 20, 20], "val": [5], "test": [16] * 6}
EVERYTHING = SplitRanges(train=(0, 60), val=(0, 5), test=(0, 96))
NO_SUBSET = {"classes": None, "shards": None, "max_scenes": None}


def shard(split: str, number: int) -> str:
    """Return the name of a shard."""
    return f"kubric_frames-{split}.tfrecord-{number:05d}-of-{len(LENGTHS[split]):05d}"


# The content of the bucket: ten shards of random bytes and their description.
SHARDS = {
    shard(split, number): os.urandom(3000)
    for split, lengths in LENGTHS.items()
    for number in range(len(lengths))
}
INFO = {
    "name": "kubric_frames",
    "splits": [
        {"name": split, "shardLengths": [str(length) for length in lengths]}
        for split, lengths in LENGTHS.items()
    ],
}
FILES = SHARDS | {"dataset_info.json": json.dumps(INFO).encode(), "features.json": b"{}"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.0)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """Serve the files with their checksums."""
    with serve(make_bucket(FILES)) as bucket:
        yield bucket


def msn(bucket: Bucket, **changes: object) -> DatasetConfig:
    """Return a dataset whose source is the bucket and whose ranges use all its scenes."""
    source = re.sub(r"/data/.*", "/frames/2.3.3", bucket.url)
    config = load_dataset(PARAMS, "msn", "paper")
    values = {"source": source, "ranges": EVERYTHING} | changes
    return dataclasses.replace(config, **values)


def subset(**values: object) -> SubsetConfig:
    """Return a subset with these values and no other limits."""
    return SubsetConfig(**NO_SUBSET | values)


def read_shards(folder: Path) -> dict[str, bytes]:
    """Return the content of all shards in a folder, also of partial ones."""
    return {path.name: path.read_bytes() for path in folder.glob("kubric*")}


def test_a_bucket_is_fetched_whole_and_only_once(bucket: Bucket, tmp_path: Path) -> None:
    files = fetch_bucket(msn(bucket), tmp_path)
    assert read_shards(tmp_path) == SHARDS

    # The result says what was fetched.
    sizes = {file.name: file.size for file in files}
    assert sizes == {name: len(content) for name, content in FILES.items()}
    assert all(file.checksum == f"md5={checksum('md5', FILES[file.name])}" for file in files)

    # A second call sends no request.
    requests = len(bucket.head_requests), len(bucket.get_requests)
    assert fetch_bucket(msn(bucket), tmp_path) == files
    assert (len(bucket.head_requests), len(bucket.get_requests)) == requests


def test_public_buckets_have_an_https_address() -> None:
    expected = "https://storage.googleapis.com/kubric-public/tfds/x/2.3.3"
    assert https_address("gs://kubric-public/tfds/x/2.3.3/") == expected
    assert https_address(expected) == expected


def test_several_shards_are_fetched_at_the_same_time(bucket: Bucket, tmp_path: Path) -> None:
    # The barrier breaks unless five requests wait at it together.
    bucket.barrier = threading.Barrier(5)
    fetch_bucket(msn(bucket), tmp_path)
    assert not bucket.barrier.broken


def test_dropped_connections_lose_no_byte_of_any_shard(bucket: Bucket, tmp_path: Path) -> None:
    bucket.busy_answers = 3
    for name in SHARDS:
        bucket.files[name].stop_after = [1000, 0, 1]
    fetch_bucket(msn(bucket), tmp_path)
    assert read_shards(tmp_path) == SHARDS
    assert all(bucket.files[name].sent_bytes == 3000 for name in SHARDS)


@pytest.mark.parametrize("algorithm", ["md5", "crc32c"])
def test_a_corrupted_shard_is_fetched_again_and_then_named(algorithm: str, tmp_path: Path) -> None:
    name = shard("val", 0)
    with serve(make_bucket(FILES, (algorithm,))) as bucket:
        # The server sends zeros, each time.
        bucket.files[name].content = bytes(3000)
        message = f"{name}: 6 tries .* 3000 bytes with {algorithm}="
        with pytest.raises(FetchError, match=message) as error:
            fetch_bucket(msn(bucket), tmp_path)
        assert checksum(algorithm, SHARDS[name]) in str(error.value)
        assert name not in read_shards(tmp_path)

        # When the server is right again, so is the file.
        bucket.files[name].content = SHARDS[name]
        fetch_bucket(msn(bucket), tmp_path)
    assert read_shards(tmp_path) == SHARDS


@pytest.mark.parametrize("announced", [2990, 3010])
def test_a_shard_with_a_wrong_announced_length_gets_no_name(
    bucket: Bucket, tmp_path: Path, announced: int
) -> None:
    name = shard("val", 0)
    bucket.files[name].announced_size = announced
    with pytest.raises(FetchError, match=name):
        fetch_bucket(msn(bucket), tmp_path)
    assert name not in read_shards(tmp_path)


def test_files_without_announced_checksums_are_recorded_with_their_own(tmp_path: Path) -> None:
    with serve(make_bucket(FILES, ())) as bucket:
        files = fetch_bucket(msn(bucket), tmp_path)
    assert files[-1].checksum == f"md5={checksum('md5', FILES[files[-1].name])}"


def test_missing_shards_are_named_before_the_first_byte(bucket: Bucket, tmp_path: Path) -> None:
    for number in (3, 5):
        del bucket.files[shard("test", number)]
    with pytest.raises(FetchError, match="2 of 10 files are not there") as error:
        fetch_bucket(msn(bucket), tmp_path)
    assert f"{shard('test', 3)}, {shard('test', 5)}; check source" in str(error.value)
    assert not read_shards(tmp_path)


def test_room_for_all_shards_is_checked_before_the_first_byte(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(FetchError, match=r"30000 more bytes .* do not fit the 20000"):
        fetch_bucket(msn(bucket), tmp_path)
    assert not read_shards(tmp_path)


def test_a_shard_from_another_program_is_checked_once(bucket: Bucket, tmp_path: Path) -> None:
    good, bad = tmp_path / shard("val", 0), tmp_path / shard("train", 0)
    good.write_bytes(SHARDS[good.name])
    bad.write_bytes(bytes(3000))
    with pytest.raises(FetchError, match=rf"{bad}: .* delete it to fetch it again"):
        fetch_bucket(msn(bucket), tmp_path)
    bad.unlink()
    fetch_bucket(msn(bucket), tmp_path)
    assert good.name not in bucket.get_requests
    assert read_shards(tmp_path) == SHARDS


def test_a_call_that_was_killed_while_it_renamed_a_file_leaves_no_trace(
    bucket: Bucket, tmp_path: Path
) -> None:
    renamed = tmp_path / shard("val", 0)
    renamed.write_bytes(SHARDS[renamed.name])
    renamed.with_name(f"{renamed.name}.part.json").write_text("{}")
    fetch_bucket(msn(bucket), tmp_path)
    assert renamed.name not in bucket.get_requests
    assert read_shards(tmp_path) == SHARDS


# Kills itself after it has fetched three files, when it appends to the next one.
KILLED_AFTER_THREE_FILES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from srt.data.download import partial, remote_files

fetch, append, complete = remote_files._fetch_and_verify, partial.PartialFile.append, []

def count(*arguments):
    complete.append(fetch(*arguments))
    return complete[-1]

def append_then_die(partial_file, data):
    append(partial_file, data)
    if len(complete) > 2:
        partial_file.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

remote_files._fetch_and_verify, partial.PartialFile.append = count, append_then_die
remote_files.fetch_files(sys.argv[2], sys.argv[4:], Path(sys.argv[3]))
"""


def test_a_call_after_a_kill_continues_with_what_has_arrived(
    bucket: Bucket, tmp_path: Path
) -> None:
    # Every connection breaks once, so that there are partial files when the process dies.
    for name in SHARDS:
        bucket.files[name].stop_after = [1000]
    arguments = [str(PARAMS.parent), msn(bucket).source, str(tmp_path), *SHARDS]
    command = [sys.executable, "-c", KILLED_AFTER_THREE_FILES, *arguments]
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    # Files that have their names are complete.
    complete = {name for name in read_shards(tmp_path) if "part" not in name}
    assert complete
    assert len(complete) < len(SHARDS)
    assert all((tmp_path / name).read_bytes() == SHARDS[name] for name in complete)

    # Complete files are not sent again. Of a partial one only the rest is sent, unless the kill
    # came before its version was written down.
    missing = sum(len(SHARDS[name]) for name in SHARDS.keys() - complete)
    arrived = sum(path.stat().st_size for path in tmp_path.glob("*.part"))
    for site in bucket.files.values():
        site.stop_after, site.sent_bytes = [], 0
    fetch_bucket(msn(bucket), tmp_path)
    assert read_shards(tmp_path) == SHARDS
    assert not any(bucket.files[name].sent_bytes for name in complete)
    assert missing - arrived <= sum(bucket.files[name].sent_bytes for name in SHARDS) <= missing


def test_a_range_requires_the_shards_that_hold_its_scenes(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_bytes(FILES[info.name])
    config = load_dataset(PARAMS, "msn", "paper")

    # TFDS reads 16 scenes of each test shard in turn, so that 40 scenes are in three of them.
    ranges = SplitRanges(train=(0, 1), val=(0, 5), test=(0, 40))
    names = required_shards(info, dataclasses.replace(config, ranges=ranges))
    assert names == [shard("train", 0), shard("val", 0), *(shard("test", n) for n in range(3))]

    # A limit on the scenes makes the range shorter.
    limited = dataclasses.replace(config, ranges=EVERYTHING, subset=subset(max_scenes=17))
    train_names = [name for name in required_shards(info, limited) if "train" in name]
    assert train_names == [shard("train", 0), shard("train", 1)]


def test_a_subset_of_shards_is_fetched(bucket: Bucket, tmp_path: Path) -> None:
    fetch_bucket(msn(bucket, subset=subset(shards="1-2,5")), tmp_path)
    expected = [("train", 1), ("train", 2), ("test", 1), ("test", 2), ("test", 5)]
    assert read_shards(tmp_path).keys() == {shard(split, number) for split, number in expected}
    with pytest.raises(FetchError, match=r"subset\.shards 20-30: no split .*test has 6"):
        fetch_bucket(msn(bucket, subset=subset(shards="20-30")), tmp_path)


def test_shards_that_are_present_are_not_fetched(bucket: Bucket, tmp_path: Path) -> None:
    fetch_bucket(msn(bucket, subset=subset(shards="0")), tmp_path)
    bucket.get_requests.clear()
    files = fetch_bucket(msn(bucket, subset=subset(shards="present")), tmp_path)
    assert len(files) == 5
    assert not bucket.get_requests


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "../x", "splits": []}', '{"name": "x"}'])
def test_a_file_that_describes_no_dataset_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(FetchError, match=r"dataset_info\.json: not TFDS' description"):
        required_shards(tmp_path / "dataset_info.json", load_dataset(PARAMS, "msn", "paper"))
