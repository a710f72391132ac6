"""Files of one address, several of them fetched at the same time, and each verified once.

Google Cloud Storage announces a file's length and checksum in a header, before the first byte is
requested. `checksums.json` in the folder has the lengths and checksums of the files that agreed.
A later call then needs neither the server nor the files' bytes.
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
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from srt.common.files import write_atomically
from srt.data.download.http import (
    TIMEOUT,
    Retries,
    fetch_missing_bytes,
    public_address,
    raise_if_busy,
    size_and_start,
    transient_errors,
)
from srt.data.download.partial import (
    Digest,
    FetchError,
    PartialFile,
    Progress,
    check_space,
    digest_so_far,
    open_locked,
    partial_path,
    version_path,
)

# Tests evaluate annotations, so that the name must exist. requests is imported only where it is
# used.
if TYPE_CHECKING:
    from requests import Response
else:
    Response = object

# Files that are fetched at the same time: one connection does not fill a fast line.
THREADS = 8

# Missing files whose names are in the error.
MAX_NAMES = 5

RECORD = "checksums.json"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFile:
    """A file, as a server announces it or as it has arrived."""

    name: str
    size: int
    checksum: str  # `md5=` or `crc32c=` and base64; empty if the server announces none


def fetch_files(base: str, names: Sequence[str], folder: Path) -> list[RemoteFile]:
    """Fetch files into `folder` unless they are there, and return their lengths and checksums.

    A file of the record was verified by the call that fetched it. Only its length is checked again.

    Args:
        base: the address of the remote folder.

    Raises:
        FetchError: the server lacks files, they do not fit the disk, they differ from their
            checksums after several tries, or another process is fetching one of them.
    """
    # Ask the server about the files that were not verified yet.
    folder.mkdir(parents=True, exist_ok=True)
    record = ChecksumRecord(folder / RECORD)
    unverified = [name for name in names if not record.has_verified(folder / name)]
    remote_files = look_up_files(base, unverified)
    if not remote_files:
        return [record.files[name] for name in names]

    # Each thread fetches one file and verifies it.
    with _begin_progress(remote_files, folder) as progress:

        def fetch(remote: RemoteFile) -> None:
            record.add(_fetch_and_verify(base, remote, folder / remote.name, progress))
            verified = [name for name in names if name in record.files]
            progress.note(f"{len(verified)} of {len(names)} files")

        _run_in_threads(fetch, remote_files, progress.stop)
    return [record.files[name] for name in names]


def _begin_progress(remote_files: Sequence[RemoteFile], folder: Path) -> Progress:
    """Return the progress bar of the files. Raise FetchError if they do not fit the disk."""
    missing = [remote for remote in remote_files if not (folder / remote.name).exists()]
    partial_paths = [partial_path(folder / remote.name) for remote in missing]
    arrived = {path: path.stat().st_size for path in partial_paths if path.exists()}
    total = sum(remote.size for remote in missing)
    check_space(folder, total - sum(arrived.values()))
    return Progress(f"fetching into {folder.name}", total, arrived)


def look_up_files(base: str, names: Sequence[str]) -> list[RemoteFile]:
    """Return the lengths and checksums that the server announces.

    Raises:
        FetchError: the server lacks files. The error has the names of some of them.
    """
    answers = _run_in_threads(lambda name: _look_up_file(base, name), names)
    missing = [name for name, remote in zip(names, answers) if remote is None]
    if missing:
        more = f" and {len(missing) - MAX_NAMES} more" if len(missing) > MAX_NAMES else ""
        raise FetchError(
            f"{public_address(base)}: {len(missing)} of {len(names)} files are not there or not"
            f" public: {', '.join(missing[:MAX_NAMES])}{more}; check source"
        )
    return [remote for remote in answers if remote is not None]


def _look_up_file(base: str, name: str) -> RemoteFile | None:
    """Return the length and checksum that the server announces, or None if it lacks the file."""
    # Some buckets answer 403 for a file that is not there.
    url = f"{base}/{quote(name)}"
    answer = _request_header(url)
    if answer.status_code in (403, 404):
        return None
    if answer.status_code != 200:
        raise FetchError(f"{public_address(url)}: status {answer.status_code} {answer.reason}")

    # The header may have both checksums. A file that was composed of others has no md5.
    header = answer.headers.get("x-goog-hash", "")
    checksums = dict(re.findall(r"(crc32c|md5)=([\w+/]+=*)", header))
    algorithm = "md5" if "md5" in checksums else "crc32c"
    size, _ = size_and_start(answer, public_address(url))
    return RemoteFile(name, size, f"{algorithm}={checksums[algorithm]}" if checksums else "")


def _request_header(url: str) -> Response:
    """Return the header of a file, asking again until the server answers or too often."""
    import requests

    transient, retries = transient_errors(), Retries(public_address(url))
    headers = {"Accept-Encoding": "identity"}
    while True:
        try:
            answer = requests.head(url, headers=headers, timeout=TIMEOUT, allow_redirects=True)
            raise_if_busy(answer)
            return answer
        except transient as error:
            reason = f"{type(error).__name__}: {error}"
        retries.wait_after_failure(reason)


def _fetch_and_verify(
    base: str, remote: RemoteFile, target: Path, progress: Progress
) -> RemoteFile:
    """Fetch a file unless it is there, and return its length and the checksum of its bytes.

    Raises:
        FetchError: the file differs from what the server announces.
    """
    # Without a checksum from the server, only the length is compared.
    algorithm = remote.checksum.partition("=")[0] or "md5"
    if target.exists():
        return _verify_existing(remote, target, algorithm)

    # Fetch until the checksum is right, but not for ever.
    url = f"{base}/{quote(remote.name)}"
    path, retries = partial_path(target), Retries(public_address(url))
    with open_locked(path) as file:
        partial_file = PartialFile(path, file, public_address(url), lambda: _new_digest(algorithm))
        while True:
            fetch_missing_bytes(partial_file, url, progress)
            checksum = _format_checksum(algorithm, partial_file.digest)
            local = RemoteFile(remote.name, partial_file.size, checksum)
            if _agree(local, remote):
                partial_file.finish(target)
                return local
            partial_file.restart(None)
            retries.wait_after_failure(f"{_difference(local, remote)}; all bytes were deleted")


def _verify_existing(remote: RemoteFile, target: Path, algorithm: str) -> RemoteFile:
    """Return the length and checksum of a file that exists but is not in the record.

    Another program has brought it, or a call that was killed before it could write the record.
    """
    with target.open("rb") as file:
        digest = digest_so_far(file, target.name, lambda: _new_digest(algorithm))
    local = RemoteFile(remote.name, target.stat().st_size, _format_checksum(algorithm, digest))

    # Never overwrite a file that a person may have put there.
    if not _agree(local, remote):
        raise FetchError(f"{target}: {_difference(local, remote)}; delete it to fetch it again")
    version_path(partial_path(target)).unlink(missing_ok=True)
    return local


def _new_digest(algorithm: str) -> Digest:
    """Return a new digest: md5 or crc32c."""
    if algorithm == "md5":
        return hashlib.md5(usedforsecurity=False)
    import google_crc32c

    checksum: Digest = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    return checksum


def _format_checksum(algorithm: str, digest: Digest) -> str:
    """Return a checksum in the form of `RemoteFile.checksum`."""
    return f"{algorithm}={b64encode(digest.digest()).decode()}"


def _agree(local: RemoteFile, remote: RemoteFile) -> bool:
    """Say whether a local file has the announced length and, if there is one, the checksum."""
    return local.size == remote.size and remote.checksum in ("", local.checksum)


def _difference(local: RemoteFile, remote: RemoteFile) -> str:
    """Return how a local file differs from the server's, for messages."""
    return (
        f"{local.size} bytes with {local.checksum}, the server's file has {remote.size} with"
        f" {remote.checksum or 'no checksum'}"
    )


def _run_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], stop: Callable[[], None] = lambda: None
) -> list[Result]:
    """Return the results in the order of the items. Raise the first error of any thread.

    Args:
        stop: ends the threads that are still at work after an error.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(work, item) for item in items]
        # Look at the results as they come, to notice an error while others are at work.
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


class ChecksumRecord:
    """The files of a folder that were verified. Several threads add to it."""

    def __init__(self, path: Path) -> None:
        """Read the record. If it is missing or damaged, the files are read once more."""
        self.path, self.lock = path, threading.Lock()
        try:
            values = json.loads(path.read_text())
            self.files = {name: RemoteFile(name, *value) for name, value in values.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            self.files = {}

    def has_verified(self, path: Path) -> bool:
        """Say whether the file was verified and still has its length."""
        file = self.files.get(path.name)
        return bool(file and path.is_file() and path.stat().st_size == file.size)

    def add(self, file: RemoteFile) -> None:
        """Add a verified file, and write the record."""
        # A new dictionary: other threads may be reading the old one.
        with self.lock:
            self.files = {**self.files, file.name: file}
            values = {name: [f.size, f.checksum] for name, f in sorted(self.files.items())}
            write_atomically(self.path, json.dumps(values, indent=0).encode())
