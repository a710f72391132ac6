"""Downloads that continue where an earlier call has stopped.

A download grows in a partial file (srt/data/download/partial.py). The file gets its name only when
its length and checksum are right.

The library `requests` does the HTTP. It gives the status, the length and the version of the same
answer that the bytes come from. It also gives the bytes of an answer that breaks off.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from srt.data.download.partial import (
    CHUNK,
    FetchError,
    PartialFile,
    Progress,
    Version,
    check_space,
    digest_so_far,
    open_locked,
    partial_path,
    version_path,
)

# Tests evaluate annotations, so that the names must exist. requests is imported only where it is
# used.
if TYPE_CHECKING:
    from requests import Response, Session
else:
    Response = Session = object

# After so many failures in a row without a new byte, a download is given up. The wait after the
# first failure is in seconds, and it doubles with each further one.
TRIES = 6
FIRST_WAIT = 1.0

# Seconds to wait for a connection, and for the next byte.
TIMEOUT = (10.0, 60.0)

log = logging.getLogger(__name__)


class UnavailableError(FetchError):
    """The source cannot be reached, or it does not have what was asked for."""


def download(url: str, target: Path, *, sha256: str | None) -> str:
    """Fetch `target` from `url` unless it exists, and return its sha256.

    Args:
        sha256: the expected digest or its first digits, at least 8. The names of torchvision's
            files contain 8. None accepts any file.

    Raises:
        FetchError: the address, the server, the length, the checksum or the free space is wrong,
            too many tries failed, or another process is fetching the same target.
    """
    # Fail on wrong arguments before anything is fetched.
    expected = (sha256 or "").lower()
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", expected):
        raise FetchError(f"{target}: sha256 {sha256!r} is not 8 to 64 hexadecimal digits")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise FetchError(f"{public_address(url)}: not an http or https address")
    if target.exists():
        return _check_existing(target, expected)
    return _fetch_and_check(url, target, expected)


def _fetch_and_check(url: str, target: Path, expected: str) -> str:
    """Fetch a file and return its sha256. Raise FetchError if it is not the expected one."""
    # Fetch what is missing, in as many requests as are needed.
    target.parent.mkdir(parents=True, exist_ok=True)
    path = partial_path(target)
    with open_locked(path) as file:
        partial_file = PartialFile(path, file, public_address(url), hashlib.sha256)
        with Progress(target.name, None, {path: partial_file.size}) as progress:
            fetch_missing_bytes(partial_file, url, progress)

        # Only a file with the right checksum gets its name.
        digest = partial_file.digest.digest().hex()
        if not digest.startswith(expected):
            partial_file.restart(None)
            raise FetchError(
                f"{public_address(url)}: sha256 is {digest}, expected {expected}; all bytes were"
                " deleted: run again, and if the digest stays, compare it with the publisher's"
            )
        partial_file.finish(target)
    return digest


def _check_existing(target: Path, expected: str) -> str:
    """Return the sha256 of a file that exists. Raise FetchError if it is not the expected one."""
    with target.open("rb") as file:
        digest = digest_so_far(file, target.name, hashlib.sha256).digest().hex()
    if not digest.startswith(expected):
        raise FetchError(
            f"{target}: sha256 is {digest}, expected {expected}; delete it to fetch it again"
        )

    # A call that was killed just after it gave the file its name has left this.
    version_path(partial_path(target)).unlink(missing_ok=True)
    return digest


class Retries:
    """The tries for one address. The waits between them grow, and after TRIES failures they end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures = 0

    def wait_after_failure(
        self, reason: str, *, progressed: bool = False, advice: str = "Run again"
    ) -> None:
        """Wait before the next try, or raise FetchError after too many failures in a row.

        Args:
            progressed: the try has fetched new bytes, so the count of failures begins again.
            advice: what the error says to do.
        """
        self.failures = 0 if progressed else self.failures + 1
        reason = hide_secrets(reason)
        if self.failures == TRIES:
            raise UnavailableError(
                f"{self.url}: {TRIES} tries brought nothing new; the last: {reason}. {advice}"
            )
        wait = FIRST_WAIT * 2**self.failures
        log.warning("%s: %s; next try in %.0f s", self.url, reason, wait)
        time.sleep(wait)


def transient_errors() -> tuple[type[Exception], ...]:
    """Return the errors after which another try may succeed."""
    import requests
    import urllib3

    return (ConnectionError, requests.RequestException, urllib3.exceptions.HTTPError)


def fetch_missing_bytes(partial_file: PartialFile, url: str, progress: Progress) -> None:
    """Repeat requests until the file is complete. Raise FetchError after too many failures."""
    import requests

    transient, retries = transient_errors(), Retries(partial_file.url)
    largest = partial_file.size
    with requests.Session() as session:
        while not partial_file.complete:
            try:
                _request_missing_bytes(session, url, partial_file, progress)
                continue
            except transient as error:
                reason = f"{type(error).__name__}: {error}"

            # A try that has brought the file beyond its largest size so far was worth it.
            arrived = f"{partial_file.path} keeps what has arrived, {partial_file.progress}"
            retries.wait_after_failure(
                reason,
                progressed=partial_file.size > largest,
                advice=f"Run again to go on: {arrived}",
            )
            largest = max(largest, partial_file.size)


def _request_missing_bytes(
    session: Session, url: str, partial_file: PartialFile, progress: Progress
) -> None:
    """Request the missing bytes once, and append those that arrive."""
    # read1 returns the bytes that are there, so that a connection that breaks loses none.
    headers = _range_headers(partial_file)
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        version = _prepare_for_answer(answer, partial_file)
        check_space(partial_file.path.parent, version.size - partial_file.size)
        while data := answer.raw.read1(CHUNK, decode_content=False):
            if partial_file.size + len(data) > version.size:
                raise partial_file.discard_for_length("sent more than it announced")
            partial_file.append(data)
            progress.update(partial_file)
    if not partial_file.complete:
        raise ConnectionError(f"the answer ended, at {partial_file.progress}")


def _range_headers(partial_file: PartialFile) -> dict[str, str]:
    """Return the headers of a request for the missing bytes, or for all if it cannot go on."""
    # Without compression, lengths and ranges count the bytes of the file itself. If-Range: a server
    # whose file has changed sends the new one from its start.
    headers = {"Accept-Encoding": "identity"}
    version = partial_file.version
    if partial_file.size and version and version.validator:
        headers |= {"Range": f"bytes={partial_file.size}-", "If-Range": version.validator}
    return headers


def _prepare_for_answer(answer: Response, partial_file: PartialFile) -> Version:
    """Return the version that the answer is from. Its first byte is then the file's next one.

    Raises:
        ConnectionError: another try may get a better answer.
        FetchError: no other try would.
    """
    _refuse_unusable_answer(answer, partial_file)
    status, url = answer.status_code, partial_file.url

    # One version of a file has one length.
    size, start = size_and_start(answer, url)
    validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    version, expected = Version(url, size, validator), partial_file.version
    if expected and validator == expected.validator and size != expected.size:
        raise partial_file.discard_for_length(f"announces {size} for the same version")

    # Status 200 is the whole file, and 206 the requested range.
    if status == 200:
        if partial_file.size:
            log.warning("%s: sent from its start; %d bytes deleted", url, partial_file.size)
        partial_file.restart(version)
    elif version != expected:
        partial_file.restart(None)
        raise ConnectionError("the file changed on the server; starting again")
    elif start != partial_file.size:
        raise FetchError(
            f"{url}: requested the bytes from {partial_file.size} on, got those from {start} on"
        )
    return version


def _refuse_unusable_answer(answer: Response, partial_file: PartialFile) -> None:
    """Raise the error for an answer that has no bytes of the file, or has them compressed."""
    # Status 416: the file ends where the requested range begins, or earlier.
    raise_if_busy(answer)
    status, url = answer.status_code, partial_file.url
    if status == 416 and partial_file.size:
        raise partial_file.discard_for_length("has no more")
    if status not in (200, 206):
        raise UnavailableError(f"{url}: status {status} {answer.reason}; check the address")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{url}: sent compressed, though the plain file was requested")


def raise_if_busy(answer: Response) -> None:
    """Raise ConnectionError for a status with which servers ask for another try later."""
    if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
        raise ConnectionError(f"status {answer.status_code} {answer.reason}")


def size_and_start(answer: Response, url: str) -> tuple[int, int]:
    """Return the size of the whole file, and the position in it of the answer's first byte."""
    # The answer with a range says both in one header.
    size, start = answer.headers.get("Content-Length", ""), "0"
    if answer.status_code == 206:
        content_range = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
        start, size = match.groups() if match else ("", "")
    if not size.isdecimal():
        raise FetchError(f"{url}: the server does not say how long the file is")
    return int(size), int(start)


def public_address(url: str) -> str:
    """Return the address without user, password and query, which may carry a signature."""
    address = urlsplit(url)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def hide_secrets(text: str) -> str:
    """Return the text of an error without users, passwords and queries of addresses."""
    without_users = re.sub(r"//[^/\s]*@", "//", text)
    return re.sub(r"\?[^\s'\")]+", "?...", without_users)
