"""Files on their way: the bytes that have arrived, their digest and version, and the room left."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from srt.common.errors import UserError
from srt.common.files import write_atomically

if TYPE_CHECKING:
    from typing import NoReturn

    from tqdm import tqdm

    ByteBar = tqdm[NoReturn]
else:  # the tests evaluate annotations, and tqdm is imported only where it is used
    ByteBar = object

CHUNK = 1 << 20
SYNC_EVERY = 64 << 20  # bytes that a power cut can cost; a killed process loses a buffer's 8 KiB

log = logging.getLogger(__name__)


class FetchError(UserError):
    """Data that cannot be fetched or extracted; the message says what to do."""


@runtime_checkable  # for the tests
class Digest(Protocol):
    """What hashlib's and google_crc32c's checksums have in common."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


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

    def __init__(
        self, path: Path, file: BinaryIO, url: str, new_digest: Callable[[], Digest]
    ) -> None:
        self.path, self.file, self.url, self.new_digest = path, file, url, new_digest
        self.record = record_of(path)
        self.size = os.fstat(file.fileno()).st_size
        self.unsynced = 0
        self.version = self._recorded()
        if self.version and self.version.validator and self.size <= self.version.size:
            self.digest = digest_so_far(file, path.name, new_digest)
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
        self.digest = self.new_digest()
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


def record_of(path: Path) -> Path:
    """Returns the file that says of which version a part is.

    A program that is killed as it names the file leaves it behind.
    """
    return path.with_name(path.name + ".json")


def check_space(folder: Path, needed: int) -> None:
    """Raises FetchError where `needed` bytes do not fit the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder}: {needed} more bytes ({needed / 1e9:.1f} GB) do not fit the {free} that are"
            " free; make room and run again"
        )


class Progress:
    """One bar for the bytes of one file or of several that threads fetch at once."""

    def __init__(self, label: str, total: int | None, arrived: Mapping[Path, int]) -> None:
        """Shows a bar.

        Args:
            total: bytes of all files; None: the first answer tells.
            arrived: bytes that earlier calls fetched, of each part.
        """
        self.seen = dict(arrived)
        self.bar = byte_bar(label, total, sum(arrived.values()))
        self.lock = threading.Lock()
        self.stopped = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, part: Part) -> None:
        """Shows what a part has now; raises FetchError in a thread that is to end."""
        with self.lock:
            if self.stopped:
                raise FetchError(f"{part.path}: stopped")
            if self.bar.total is None and part.version:
                self.bar.total = part.version.size
            self.bar.update(part.size - self.seen.get(part.path, 0))  # less after a restart
            self.seen[part.path] = part.size

    def stop(self) -> None:
        """Ends the threads that fetch, each at its next bytes."""
        self.stopped = True

    def note(self, text: str) -> None:
        """Shows a text behind the rate."""
        with self.lock:
            self.bar.set_postfix_str(text, refresh=False)


def byte_bar(label: str, total: int | None, done: int = 0, delay: int = 0) -> ByteBar:
    """Returns a progress bar with rate and time left, which appears after `delay` seconds."""
    from tqdm import tqdm

    return tqdm(
        desc=label,
        total=total,
        initial=done,
        unit="B",
        unit_scale=True,
        mininterval=1,
        delay=delay,
    )


def digest_so_far(file: BinaryIO, label: str, new_digest: Callable[[], Digest]) -> Digest:
    """Returns the checksum of a whole open file, ready for more bytes."""
    digest = new_digest()
    file.seek(0)
    with byte_bar(f"checking {label}", os.fstat(file.fileno()).st_size, delay=1) as bar:
        while data := file.read(CHUNK):
            digest.update(data)
            bar.update(len(data))
    return digest


def remembered_sha256(path: Path, record: Path, computed: str | None = None) -> str:
    """Returns a file's sha256, taken from `record` as long as the file stays as it was.

    Args:
        computed: the sha256, where the caller has just read the file.
    """
    state = path.stat()
    now = {"path": str(path.resolve()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    if computed is None:
        try:
            known = json.loads(record.read_text())
            if known == now | {"sha256": known["sha256"]}:
                return str(known["sha256"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            pass
        with path.open("rb") as file:
            computed = digest_so_far(file, path.name, hashlib.sha256).digest().hex()
    write_atomically(record, json.dumps(now | {"sha256": computed}).encode())
    return computed
