"""TFDS datasets in a public bucket: which shards are wanted, and many files fetched at once.

A bucket says each file's length and checksum in `x-goog-hash` (Google Cloud Storage) before the
first byte is asked for. `checksums.json` in the folder keeps those of the files that were found to
agree, so that a later call needs neither the server nor another look at the bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from srt.common.files import write_atomically
from srt.config.schema import SPLITS, DatasetConfig, shard_numbers
from srt.data.download.http import (
    TIMEOUT,
    Tries,
    extent,
    fill,
    part_of,
    passing_errors,
    public,
    refuse_busy,
)
from srt.data.download.partial import (
    Digest,
    FetchError,
    Part,
    Progress,
    check_space,
    digest_so_far,
    locked,
    record_of,
)

AT_ONCE = 8  # files: one connection does not fill a fast line
NAMED = 5  # missing files that an error names
INFO = ("dataset_info.json", "features.json")
RECORD = "checksums.json"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Remote:
    """What a server says of a file; `checksum` is `md5=` or `crc32c=` and base64, or empty."""

    name: str
    size: int
    checksum: str


def https_address(source: str) -> str:
    """Returns where a public bucket's `gs://` address is served; any other one as it is."""
    return re.sub(r"^gs://", "https://storage.googleapis.com/", source).rstrip("/")


def fetch_bucket(config: DatasetConfig, folder: Path) -> list[Remote]:
    """Returns the files that hold the wanted scenes, fetched into `folder` unless they are there.

    Raises FetchError as `fetch_files` does, and for a subset or a dataset_info.json without shards.
    """
    base = https_address(config.source)
    described = fetch_files(base, INFO, folder)
    return described + fetch_files(base, wanted_shards(folder / INFO[0], config), folder)


def wanted_shards(info: Path, config: DatasetConfig) -> list[str]:
    """Returns the names of the shards that the ranges and the subset of `config` need."""
    from srt.data.raw.msn import shards_needed  # not above: it brings torch along

    try:
        described = json.loads(info.read_text())
        name, entries = described["name"], {entry["name"]: entry for entry in described["splits"]}
        splits = {s: [int(n) for n in entries[s]["shardLengths"]] for s in SPLITS if s in entries}
        if not re.fullmatch(r"\w[\w.-]*", name) or not any(splits.values()):
            raise ValueError("its name or its splits")
    except (ValueError, TypeError, KeyError) as error:
        raise FetchError(
            f"{info}: not TFDS' description of a dataset ({error!r}); delete it, and check source"
        ) from error
    text = config.subset.shards if config.subset else None
    names = []
    for split, lengths in splits.items():
        files = [
            f"{name}-{split}.tfrecord-{n:05d}-of-{len(lengths):05d}" for n in range(len(lengths))
        ]
        if text == "present":
            chosen = [n for n, file in enumerate(files) if info.with_name(file).is_file()]
        else:
            numbers = range(len(files)) if text is None else shard_numbers(text)
            chosen = [n for n in numbers if n < len(files)]
        needed = shards_needed([lengths[n] for n in chosen], _end(split, sum(lengths), config))
        names += [files[n] for n in chosen[:needed]]
    if not names:
        counts = ", ".join(f"{split} has {len(lengths)}" for split, lengths in splits.items())
        raise FetchError(f"subset.shards {text}: no split has such a shard ({counts})")
    return names


def _end(split: str, scenes: int, config: DatasetConfig) -> int:
    """Returns the number of a split's first scenes, in TFDS' order, that hold the wanted ones."""
    start, end = getattr(config.ranges, split) if config.ranges else (0, scenes)
    most = config.subset.max_scenes if config.subset else None
    return min(end, start + most) if most else end


def fetch_files(base: str, names: Sequence[str], folder: Path) -> list[Remote]:
    """Returns what is known of the files, each in `folder`, complete and as the server has it.

    A file that has its name was checked when it got it; of it, only the length is looked at.

    Raises:
        FetchError: files are not there, do not fit the disk, differ from their checksums after
            several tries, or another process is fetching one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = _Record(folder / RECORD)
    remotes = look_up(base, [name for name in names if not record.vouches_for(folder / name)])
    if not remotes:
        return [record.known[name] for name in names]
    rest = [remote for remote in remotes if not (folder / remote.name).exists()]
    parts = [part_of(folder / remote.name) for remote in rest]
    arrived = {path: path.stat().st_size for path in parts if path.exists()}
    total = sum(remote.size for remote in rest)
    check_space(folder, total - sum(arrived.values()))
    with Progress(f"fetching into {folder.name}", total, arrived) as progress:

        def finish(remote: Remote) -> None:
            record.add(_fetch(base, remote, folder / remote.name, progress))
            progress.note(f"{sum(name in record.known for name in names)} of {len(names)} files")

        _at_once(finish, remotes, progress.stop)
    return [record.known[name] for name in names]


def look_up(base: str, names: Sequence[str]) -> list[Remote]:
    """Returns what the server says of the files; raises FetchError that names those it lacks."""
    found = _at_once(lambda name: _head(base, name), names)
    missing = [name for name, remote in zip(names, found) if remote is None]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise FetchError(
            f"{public(base)}: {len(missing)} of {len(names)} files are not there or not public:"
            f" {', '.join(missing[:NAMED])}{more}; check source"
        )
    return [remote for remote in found if remote is not None]


def _head(base: str, name: str) -> Remote | None:
    """Returns what the server says of a file, None if it has none of that name."""
    import requests

    url = f"{base}/{quote(name)}"
    passing, tries = passing_errors(), Tries(public(url))
    headers = {"Accept-Encoding": "identity"}
    while True:
        try:
            answer = requests.head(url, headers=headers, timeout=TIMEOUT, allow_redirects=True)
            refuse_busy(answer)
            break
        except passing as error:
            reason = f"{type(error).__name__}: {error}"
        tries.failed(reason)
    if answer.status_code in (403, 404):
        return None
    if answer.status_code != 200:
        raise FetchError(f"{public(url)}: status {answer.status_code} {answer.reason}")
    text = answer.headers.get("x-goog-hash", "")
    sums = dict(re.findall(r"(crc32c|md5)=([\w+/]+=*)", text))  # composed objects have no md5
    kind = "md5" if "md5" in sums else "crc32c"
    size, _ = extent(answer, public(url))
    return Remote(name, size, f"{kind}={sums[kind]}" if sums else "")


def _fetch(base: str, remote: Remote, target: Path, progress: Progress) -> Remote:
    """Returns what a file's bytes, all of them here and checked, add up to."""
    url = f"{base}/{quote(remote.name)}"
    kind = remote.checksum.partition("=")[0] or "md5"
    if target.exists():  # brought by another program, or by one that was killed since
        with target.open("rb") as file:
            digest = digest_so_far(file, target.name, lambda: _new_digest(kind))
        found = _summed(remote, target.stat().st_size, kind, digest)
        if not _agree(found, remote):
            raise FetchError(f"{target}: {_differ(found, remote)}; delete it to fetch it again")
        record_of(part_of(target)).unlink(missing_ok=True)
        return found
    path, tries = part_of(target), Tries(public(url))
    with locked(path) as file:
        part = Part(path, file, public(url), lambda: _new_digest(kind))
        while True:
            fill(part, url, progress)
            found = _summed(remote, part.size, kind, part.digest)
            if _agree(found, remote):
                part.finish(target)
                return found
            part.restart(None)
            tries.failed(f"{_differ(found, remote)}; what came was thrown away")


def _new_digest(kind: str) -> Digest:
    if kind == "md5":
        return hashlib.md5(usedforsecurity=False)
    import google_crc32c

    checksum: Digest = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    return checksum


def _summed(remote: Remote, size: int, kind: str, digest: Digest) -> Remote:
    return Remote(remote.name, size, f"{kind}={b64encode(digest.digest()).decode()}")


def _agree(found: Remote, said: Remote) -> bool:
    return found.size == said.size and said.checksum in ("", found.checksum)


def _differ(found: Remote, said: Remote) -> str:
    return (
        f"{found.size} bytes with {found.checksum}, the server's file has {said.size} with"
        f" {said.checksum or 'no checksum'}"
    )


def _at_once(
    work: Callable[[T], R], items: Sequence[T], stop: Callable[[], None] = lambda: None
) -> list[R]:
    """Returns the results in order; the first error stops the other threads and is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


class _Record:
    """The files of a folder that agreed with their checksums; several threads add to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        try:
            values = json.loads(path.read_text())
            self.known = {name: Remote(name, *value) for name, value in values.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            self.known = {}  # then the files are read once more

    def vouches_for(self, path: Path) -> bool:
        known = self.known.get(path.name)
        return bool(known and path.is_file() and path.stat().st_size == known.size)

    def add(self, file: Remote) -> None:
        with self.lock:
            self.known = {**self.known, file.name: file}
            values = {name: [f.size, f.checksum] for name, f in sorted(self.known.items())}
            write_atomically(self.path, json.dumps(values, indent=0).encode())
