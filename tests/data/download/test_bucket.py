"""Many files at once from a server that breaks off, lies, lacks files and sends nonsense."""

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
from support.unreliable_site import Bucket, checksum, served

from srt.config.load import load_dataset
from srt.config.schema import DatasetConfig, SplitRanges, SubsetConfig
from srt.data.download import http as download_module
from srt.data.download import partial
from srt.data.download.bucket import fetch_bucket, https_address, wanted_shards
from srt.data.download.partial import FetchError

LENGTHS = {"train": [20, 20, 20], "val": [5], "test": [16] * 6}
EVERYTHING = SplitRanges(train=(0, 60), val=(0, 5), test=(0, 96))
NO_SUBSET = {"classes": None, "shards": None, "max_scenes": None}


def shard(split: str, number: int) -> str:
    return f"kubric_frames-{split}.tfrecord-{number:05d}-of-{len(LENGTHS[split]):05d}"


SHARDS = {
    shard(split, n): os.urandom(3000) for split in LENGTHS for n in range(len(LENGTHS[split]))
}
INFO = {
    "name": "kubric_frames",
    "splits": [{"name": k, "shardLengths": [str(n) for n in v]} for k, v in LENGTHS.items()],
}
FILES = SHARDS | {"dataset_info.json": json.dumps(INFO).encode(), "features.json": b"{}"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "FIRST_WAIT", 0.0)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with served(Bucket.of(FILES)) as bucket:
        yield bucket


def msn(bucket: Bucket, **changes: object) -> DatasetConfig:
    source = re.sub(r"/data/.*", "/frames/2.3.3", bucket.url)
    config = load_dataset(PARAMS, "msn", "paper")
    values = {"source": source, "ranges": EVERYTHING} | changes
    return dataclasses.replace(config, **values)


def subset(**fields: object) -> SubsetConfig:
    return SubsetConfig(**NO_SUBSET | fields)


def shards_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("kubric*")}


def test_a_bucket_is_fetched_whole_and_only_once(bucket: Bucket, tmp_path: Path) -> None:
    files = fetch_bucket(msn(bucket), tmp_path)
    assert shards_in(tmp_path) == SHARDS
    assert {file.name: file.size for file in files} == {k: len(v) for k, v in FILES.items()}
    assert all(file.checksum == f"md5={checksum('md5', FILES[file.name])}" for file in files)
    asked = len(bucket.heads), len(bucket.gets)
    assert fetch_bucket(msn(bucket), tmp_path) == files
    assert (len(bucket.heads), len(bucket.gets)) == asked


def test_public_buckets_are_asked_over_https() -> None:
    expected = "https://storage.googleapis.com/kubric-public/tfds/x/2.3.3"
    assert https_address("gs://kubric-public/tfds/x/2.3.3/") == expected
    assert https_address(expected) == expected


def test_several_shards_come_at_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.meeting = threading.Barrier(5)  # it breaks where one comes after the other
    fetch_bucket(msn(bucket), tmp_path)
    assert not bucket.meeting.broken


def test_dropped_connections_cost_no_byte_of_any_shard(bucket: Bucket, tmp_path: Path) -> None:
    bucket.busy = 3
    for name in SHARDS:
        bucket.files[name].stop_after = [1000, 0, 1]
    fetch_bucket(msn(bucket), tmp_path)
    assert shards_in(tmp_path) == SHARDS
    assert all(bucket.files[name].sent == 3000 for name in SHARDS)


@pytest.mark.parametrize("kind", ["md5", "crc32c"])
def test_a_corrupted_shard_is_fetched_again_and_then_named(kind: str, tmp_path: Path) -> None:
    name = shard("val", 0)
    with served(Bucket.of(FILES, (kind,))) as bucket:
        bucket.files[name].content = bytes(3000)
        with pytest.raises(
            FetchError, match=f"{name}: 6 tries .* 3000 bytes with {kind}="
        ) as error:
            fetch_bucket(msn(bucket), tmp_path)
        assert checksum(kind, SHARDS[name]) in str(error.value)
        assert name not in shards_in(tmp_path)
        bucket.files[name].content = SHARDS[name]
        fetch_bucket(msn(bucket), tmp_path)
    assert shards_in(tmp_path) == SHARDS


@pytest.mark.parametrize("announced", [2990, 3010])
def test_a_shard_whose_length_is_a_lie_gets_no_name(
    bucket: Bucket, tmp_path: Path, announced: int
) -> None:
    name = shard("val", 0)
    bucket.files[name].announce = announced
    with pytest.raises(FetchError, match=name):
        fetch_bucket(msn(bucket), tmp_path)
    assert name not in shards_in(tmp_path)


def test_without_checksums_the_length_is_checked(tmp_path: Path) -> None:
    with served(Bucket.of(FILES, ())) as bucket:
        files = fetch_bucket(msn(bucket), tmp_path)
    assert files[-1].checksum == f"md5={checksum('md5', FILES[files[-1].name])}"


def test_missing_shards_are_named_before_the_first_byte(bucket: Bucket, tmp_path: Path) -> None:
    for number in (3, 5):
        del bucket.files[shard("test", number)]
    with pytest.raises(FetchError, match="2 of 10 files are not there") as error:
        fetch_bucket(msn(bucket), tmp_path)
    assert f"{shard('test', 3)}, {shard('test', 5)}; check source" in str(error.value)
    assert not shards_in(tmp_path)


def test_room_for_all_shards_is_checked_before_the_first_byte(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(FetchError, match=r"30000 more bytes .* do not fit the 20000"):
        fetch_bucket(msn(bucket), tmp_path)
    assert not shards_in(tmp_path)


def test_a_shard_brought_by_another_program_is_checked_once(bucket: Bucket, tmp_path: Path) -> None:
    good, bad = tmp_path / shard("val", 0), tmp_path / shard("train", 0)
    good.write_bytes(SHARDS[good.name])
    bad.write_bytes(bytes(3000))
    with pytest.raises(FetchError, match=rf"{bad}: .* delete it to fetch it again"):
        fetch_bucket(msn(bucket), tmp_path)
    bad.unlink()
    fetch_bucket(msn(bucket), tmp_path)
    assert good.name not in bucket.gets
    assert shards_in(tmp_path) == SHARDS


def test_a_fetch_that_was_killed_as_it_named_a_file_leaves_nothing(
    bucket: Bucket, tmp_path: Path
) -> None:
    named = tmp_path / shard("val", 0)
    named.write_bytes(SHARDS[named.name])
    named.with_name(f"{named.name}.part.json").write_text("{}")
    fetch_bucket(msn(bucket), tmp_path)
    assert named.name not in bucket.gets
    assert shards_in(tmp_path) == SHARDS


def test_a_killed_fetch_goes_on_with_what_it_had(bucket: Bucket, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from srt.data.download import bucket, partial
fetch, append, named = bucket._fetch, partial.Part.append, []
def counted(*given):
    named.append(fetch(*given))
    return named[-1]
def append_then_die(part, data):
    append(part, data)
    if len(named) > 2:
        part.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
bucket._fetch, partial.Part.append = counted, append_then_die
bucket.fetch_files(sys.argv[2], sys.argv[4:], Path(sys.argv[3]))
"""
    for name in SHARDS:
        bucket.files[name].stop_after = [1000]
    given = [str(PARAMS.parent), msn(bucket).source, str(tmp_path), *SHARDS]
    killed = subprocess.run([sys.executable, "-c", code, *given], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    named = {name for name in shards_in(tmp_path) if "part" not in name}
    assert named
    assert len(named) < len(SHARDS)
    assert all((tmp_path / name).read_bytes() == SHARDS[name] for name in named)
    for site in bucket.files.values():
        site.stop_after, site.sent = [], 0
    fetch_bucket(msn(bucket), tmp_path)
    assert shards_in(tmp_path) == SHARDS
    sent = sum(site.sent for site in bucket.files.values())
    assert sent < 3000 * (len(SHARDS) - len(named))  # of some, only the rest


def test_a_range_needs_the_shards_that_its_scenes_lie_in(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_bytes(FILES[info.name])
    config = load_dataset(PARAMS, "msn", "paper")
    ranges = SplitRanges(train=(0, 1), val=(0, 5), test=(0, 40))  # 16 of each test shard in turn
    names = wanted_shards(info, dataclasses.replace(config, ranges=ranges))
    assert names == [shard("train", 0), shard("val", 0), *(shard("test", n) for n in range(3))]
    few = dataclasses.replace(config, ranges=EVERYTHING, subset=subset(max_scenes=17))
    assert [name for name in wanted_shards(info, few) if "train" in name] == [
        shard("train", 0),
        shard("train", 1),
    ]


def test_a_subset_of_shards_is_fetched(bucket: Bucket, tmp_path: Path) -> None:
    fetch_bucket(msn(bucket, subset=subset(shards="1-2,5")), tmp_path)
    wanted = [("train", 1), ("train", 2), ("test", 1), ("test", 2), ("test", 5)]
    assert shards_in(tmp_path).keys() == {shard(*place) for place in wanted}
    with pytest.raises(FetchError, match=r"subset\.shards 20-30: no split .*test has 6"):
        fetch_bucket(msn(bucket, subset=subset(shards="20-30")), tmp_path)


def test_of_present_shards_none_is_fetched(bucket: Bucket, tmp_path: Path) -> None:
    fetch_bucket(msn(bucket, subset=subset(shards="0")), tmp_path)
    bucket.gets.clear()
    files = fetch_bucket(msn(bucket, subset=subset(shards="present")), tmp_path)
    assert len(files) == 5
    assert not bucket.gets


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "../x", "splits": []}', '{"name": "x"}'])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(FetchError, match=r"dataset_info\.json: not TFDS' description"):
        wanted_shards(tmp_path / "dataset_info.json", load_dataset(PARAMS, "msn", "paper"))
