"""Files on their way: the bytes that have arrived, their digest and version, and the room left."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from srt.files import write_atomically

if TYPE_CHECKING:
    from hashlib import _Hash
    from typing import NoReturn

    from tqdm import tqdm

    ByteBar = tqdm[NoReturn]
else:  # the tests evaluate annotations, and tqdm is imported only where it is used
    _Hash = ByteBar = object

CHUNK = 1 << 20
SYNC_EVERY = 64 << 20  # bytes that a power cut can cost; a killed process loses a buffer's 8 KiB

log = logging.getLogger(__name__)


class FetchError(RuntimeError):
    """Data that cannot be fetched or extracted; the message says what to do."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a remote file from another."""

    url: str
    size: int
    validator: str | None  # ETag, else Last-Modified; without either nothing is continued


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """Yields the open file, which nobody else writes meanwhile."""
    with path.open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have renamed the file between our opening and our locking it.
            ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise FetchError(f"{path}: another process is fetching it; wait, then run again")
        yield file


class Part:
    """The bytes that have arrived: their file, number, digest and version."""

    def __init__(self, path: Path, file: BinaryIO, url: str) -> None:
        self.path, self.file, self.url = path, file, url
        self.record = path.with_name(path.name + ".json")
        self.size = os.fstat(file.fileno()).st_size
        self.unsynced = 0
        self.version = self._recorded()
        if self.version and self.version.validator and self.size <= self.version.size:
            self.digest = sha256_so_far(file, path.name)
            return
        if self.size:
            log.warning("%s: not known to be a part of %s; starting again", path, self.url)
        self.restart(None)

    def _recorded(self) -> Version | None:
        try:
            version = Version(**json.loads(self.record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if version.url == self.url else None

    @property
    def complete(self) -> bool:
        return self.version is not None and self.size == self.version.size

    @property
    def progress(self) -> str:
        return f"{self.size} of {self.version.size if self.version else 'unknown'} bytes"

    def restart(self, version: Version | None) -> None:
        """Throws the bytes away; None leaves the version to the next answer."""
        self.file.truncate(0)
        self.size = self.unsynced = 0
        self.digest = hashlib.sha256()
        self.version = version
        if version is None:
            self.record.unlink(missing_ok=True)
        else:
            write_atomically(self.record, json.dumps(asdict(version)).encode())

    def append(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        self.unsynced += len(data)
        if self.unsynced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.unsynced = 0

    def finish(self, target: Path) -> None:
        """Gives the file its name."""
        self._sync()
        os.replace(self.path, target)
        self.record.unlink(missing_ok=True)

    def length_changed(self, now: str) -> FetchError:
        """Throws the bytes away, and returns the error for a server that contradicts itself."""
        had = self.progress
        self.restart(None)
        return FetchError(
            f"{self.url}: after {had} the server {now}; what came was thrown away: run again, and"
            " if it stays so, the server is at fault"
        )


def check_space(folder: Path, needed: int) -> None:
    """Raises FetchError where `needed` bytes do not fit the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder}: {needed} more bytes ({needed / 1e9:.1f} GB) do not fit the {free} that are"
            " free; make room and run again"
        )


def byte_bar(label: str, total: int, done: int = 0) -> ByteBar:
    """Returns a progress bar with rate and time left."""
    from tqdm import tqdm

    return tqdm(desc=label, total=total, initial=done, unit="B", unit_scale=True, mininterval=1)


def sha256_so_far(file: BinaryIO, label: str) -> _Hash:
    """Returns the sha256 of a whole open file, ready for more bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    with byte_bar(f"checking {label}", os.fstat(file.fileno()).st_size) as bar:
        while data := file.read(CHUNK):
            digest.update(data)
            bar.update(len(data))
    return digest
