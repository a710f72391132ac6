"""Files that have arrived in part: their bytes, their digest and version, and the room for them.

A download to `<target>` writes two files until it is complete:

    <target>.part          the bytes that have arrived
    <target>.part.json     which version of the remote file they are from (`Version`)

The next call continues with these bytes if the server still has that version.
"""

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

# Tests evaluate annotations, so that the name must exist. tqdm is imported only where it is used.
if TYPE_CHECKING:
    from typing import NoReturn

    from tqdm import tqdm

    ByteBar = tqdm[NoReturn]
else:
    ByteBar = object

# Bytes that are read at once.
CHUNK = 1 << 20

# After so many bytes, the file is brought to the disk: a power cut can lose no more than these. A
# killed process loses only the 8 KiB of a buffer.
SYNC_EVERY = 64 << 20

log = logging.getLogger(__name__)


class FetchError(UserError):
    """Data cannot be fetched or extracted. The message says what to do."""


@runtime_checkable  # for the tests, which check the types of arguments
class Digest(Protocol):
    """The methods that the checksums of hashlib and google_crc32c both have."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a remote file from another."""

    url: str
    size: int
    validator: str | None  # ETag, or else Last-Modified; without either, nothing is continued


def partial_path(target: Path) -> Path:
    """Return the file in which a download to `target` grows."""
    return target.with_name(target.name + ".part")


def version_path(path: Path) -> Path:
    """Return the file that has the version of a partial file.

    It can exist without the partial file: a program may be killed just after it has renamed that.
    """
    return path.with_name(path.name + ".json")


@contextmanager
def open_locked(path: Path) -> Iterator[BinaryIO]:
    """Open a partial file for appending, and lock it against all other processes.

    Raises:
        FetchError: another process has locked it.
    """
    with path.open("ab+") as file:
        # Another process may have renamed the file after we opened it and before we locked it.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            locked = False
        if not locked:
            raise FetchError(f"{path}: another process is fetching it; wait, then run again")
        yield file


class PartialFile:
    """The bytes that have arrived: their file, number, digest and version."""

    def __init__(
        self, path: Path, file: BinaryIO, url: str, new_digest: Callable[[], Digest]
    ) -> None:
        """Take over what an earlier call has left, if it can be continued.

        Args:
            file: `path`, as `open_locked` has opened it.
            url: the public address, without any password.
            new_digest: returns a new digest.
        """
        self.path, self.file, self.url, self.new_digest = path, file, url, new_digest
        self.size = os.fstat(file.fileno()).st_size
        self.unsynced = 0

        # Without a validator, nobody can say whether the server's file is still the same.
        self.version = self._read_version()
        if self.version and self.version.validator and self.size <= self.version.size:
            self.digest = digest_so_far(file, path.name, new_digest)
            return
        if self.size:
            log.warning("%s: cannot be continued from %s; starting again", path, self.url)
        self.restart(None)

    def _read_version(self) -> Version | None:
        """Return the version of the bytes, or None if it is unknown or of another address."""
        try:
            version = Version(**json.loads(version_path(self.path).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if version.url == self.url else None

    @property
    def complete(self) -> bool:
        """True if all bytes have arrived."""
        return self.version is not None and self.size == self.version.size

    @property
    def progress(self) -> str:
        """How many bytes have arrived and how many there are, for messages."""
        return f"{self.size} of {self.version.size if self.version else 'unknown'} bytes"

    def restart(self, version: Version | None) -> None:
        """Delete all bytes and begin with those of `version`; None: of whatever comes next."""
        self.file.truncate(0)
        self.size = self.unsynced = 0
        self.digest = self.new_digest()

        # The version must be on the disk before the first byte is.
        self.version = version
        path = version_path(self.path)
        if version is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, json.dumps(asdict(version)).encode())

    def append(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        # The digest grows with the file, so that the complete file need not be read again.
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        self.unsynced += len(data)
        if self.unsynced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        """Bring all bytes to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.unsynced = 0

    def finish(self, target: Path) -> None:
        """Give the complete file its name."""
        # Without the sync, a power cut could leave the name without the bytes.
        self._sync()
        os.replace(self.path, target)
        version_path(self.path).unlink(missing_ok=True)

    def discard_for_length(self, problem: str) -> FetchError:
        """Delete all bytes; return the error for a server that contradicts itself on the length.

        Args:
            problem: a verb and its object, of which the server is the subject.
        """
        progress = self.progress
        self.restart(None)
        return FetchError(
            f"{self.url}: after {progress} the server {problem}; all bytes were deleted: run again,"
            " and if the error comes back, the server is at fault"
        )


def check_space(folder: Path, needed: int) -> None:
    """Raise FetchError if the disk has no room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder}: {needed} more bytes ({needed / 1e9:.1f} GB) do not fit the {free} that are"
            " free; make room and run again"
        )


class Progress:
    """One progress bar for the bytes of all files that threads fetch at the same time."""

    def __init__(self, label: str, total: int | None, arrived: Mapping[Path, int]) -> None:
        """Show a bar.

        Args:
            total: the bytes of all files; None: those that the first answer announces.
            arrived: for each partial file, the bytes that earlier calls have fetched.
        """
        self.sizes = dict(arrived)
        self.bar = byte_bar(label, total, sum(arrived.values()))
        self.lock = threading.Lock()
        self.stopped = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, partial_file: PartialFile) -> None:
        """Show how many bytes of a file have arrived.

        Raises:
            FetchError: `stop` was called, which ends the thread that fetches this file.
        """
        with self.lock:
            if self.stopped:
                raise FetchError(f"{partial_file.path}: stopped")
            if self.bar.total is None and partial_file.version:
                self.bar.total = partial_file.version.size

            # After a restart the difference is negative, and the bar goes back.
            self.bar.update(partial_file.size - self.sizes.get(partial_file.path, 0))
            self.sizes[partial_file.path] = partial_file.size

    def stop(self) -> None:
        """End every thread that fetches, when its next bytes arrive."""
        self.stopped = True

    def note(self, text: str) -> None:
        """Show a text after the rate."""
        with self.lock:
            self.bar.set_postfix_str(text, refresh=False)


def byte_bar(label: str, total: int | None, done: int = 0, delay: int = 0) -> ByteBar:
    """Return a progress bar with rate and remaining time, which appears after `delay` seconds."""
    from tqdm import tqdm

    return tqdm(
        desc=label, total=total, initial=done, unit="B", unit_scale=True, mininterval=1, delay=delay
    )


def digest_so_far(file: BinaryIO, label: str, new_digest: Callable[[], Digest]) -> Digest:
    """Return the digest of a whole open file. More bytes can be added to it."""
    digest = new_digest()
    file.seek(0)
    with byte_bar(f"checking {label}", os.fstat(file.fileno()).st_size, delay=1) as bar:
        while data := file.read(CHUNK):
            digest.update(data)
            bar.update(len(data))
    return digest


def cached_sha256(path: Path, record: Path, computed: str | None = None) -> str:
    """Return a file's sha256. Read the file only if it has changed since `record` was written.

    Args:
        computed: the sha256, if the caller has just read the file.
    """
    # A file with the same path, size and time of change is the same file.
    status = path.stat()
    state = {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if computed is None:
        try:
            recorded = json.loads(record.read_text())
            if recorded == state | {"sha256": recorded["sha256"]}:
                return str(recorded["sha256"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            pass

        # There is no valid record: read the file.
        with path.open("rb") as file:
            computed = digest_so_far(file, path.name, hashlib.sha256).digest().hex()
    write_atomically(record, json.dumps(state | {"sha256": computed}).encode())
    return computed
