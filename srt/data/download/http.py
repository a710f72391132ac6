"""Downloads that go on where they stopped.

A download grows in `<target>.part`, and `<target>.part.json` tells which version of the remote file
it is a part of (`srt.data.download.partial`). The name `<target>` appears only when length and checksum are
right. `requests` does the HTTP, because it shows status, extent and version of the very answer that
the bytes come from, and hands over the bytes of an answer that breaks off.
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
    Part,
    Progress,
    Version,
    check_space,
    digest_so_far,
    locked,
    record_of,
)

if TYPE_CHECKING:
    from requests import Response, Session
else:  # the tests evaluate annotations, and requests is imported only where it is used
    Response = Session = object

TRIES = 6  # in a row, without a new byte
FIRST_WAIT = 1.0  # seconds; doubles with each try
TIMEOUT = (10.0, 60.0)  # seconds to connect, and of silence

log = logging.getLogger(__name__)


def download(url: str, target: Path, *, sha256: str | None) -> str:
    """Returns the sha256 of `target`, fetched from `url` unless it is there already.

    Args:
        sha256: the digest, or its first digits, 8 at least: torchvision's file names carry 8.

    Raises:
        FetchError: the address, server, length, checksum or free space is wrong, the tries are
            used up, or another process is fetching the same target.
    """
    expected = (sha256 or "").lower()
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", expected):
        raise FetchError(f"{target}: sha256 {sha256!r} is not 8 to 64 hexadecimal digits")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise FetchError(f"{public(url)}: not an http or https address")
    if target.exists():
        with target.open("rb") as file:
            found = digest_so_far(file, target.name, hashlib.sha256).digest().hex()
        if not found.startswith(expected):
            raise FetchError(
                f"{target}: sha256 is {found}, expected {expected}; delete it to fetch it again"
            )
        record_of(part_of(target)).unlink(missing_ok=True)
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    path = part_of(target)
    with locked(path) as file:
        part = Part(path, file, public(url), hashlib.sha256)
        with Progress(target.name, None, {path: part.size}) as progress:
            fill(part, url, progress)
        found = part.digest.digest().hex()
        if not found.startswith(expected):
            part.restart(None)
            raise FetchError(
                f"{public(url)}: sha256 is {found}, expected {expected}; what arrived was thrown"
                " away: run again, and if the digest stays, compare it with the publisher's"
            )
        part.finish(target)
    return found


def part_of(target: Path) -> Path:
    """Returns the file in which a download grows."""
    return target.with_name(target.name + ".part")


class Tries:
    """The tries for an address: after each failure a longer wait, after TRIES in a row an error."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures = 0

    def failed(self, reason: str, *, gained: bool = False, kept: str = "") -> None:
        """Waits before the next try; raises FetchError where there is to be none.

        Args:
            gained: the try brought something new, so it begins a new row.
            kept: what an error says about what came.
        """
        self.failures = 0 if gained else self.failures + 1
        reason = _without_secrets(reason)
        if self.failures == TRIES:
            raise FetchError(
                f"{self.url}: {TRIES} tries brought nothing new; the last: {reason}."
                f" Run again{kept}"
            )
        wait = FIRST_WAIT * 2**self.failures
        log.warning("%s: %s; next try in %.0f s", self.url, reason, wait)
        time.sleep(wait)


def passing_errors() -> tuple[type[Exception], ...]:
    """Returns the errors after which another try may succeed."""
    import requests
    import urllib3

    return (ConnectionError, requests.RequestException, urllib3.exceptions.HTTPError)


def fill(part: Part, url: str, progress: Progress) -> None:
    """Repeats requests until the part is complete."""
    import requests

    passing, tries, most = passing_errors(), Tries(part.url), part.size
    with requests.Session() as session:
        while not part.complete:
            try:
                _request_rest(session, url, part, progress)
                continue
            except passing as error:
                reason = f"{type(error).__name__}: {error}"
            kept = f" to go on: {part.path} keeps what came, {part.progress}"
            tries.failed(reason, gained=part.size > most, kept=kept)
            most = max(most, part.size)


def _request_rest(session: Session, url: str, part: Part, progress: Progress) -> None:
    """Asks once for the bytes that are missing and appends what comes."""
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the file's own bytes
    if part.size and part.version and part.version.validator:
        # If-Range: a server whose file has changed sends the new one from its start.
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version.validator}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        version = _line_up(answer, part)
        check_space(part.path.parent, version.size - part.size)
        # read1 hands over what is there, so that a connection that breaks costs no byte.
        while data := answer.raw.read1(CHUNK, decode_content=False):
            if part.size + len(data) > version.size:
                raise part.length_changed("sent more than it announced")
            part.append(data)
            progress.update(part)
    if not part.complete:
        raise ConnectionError(f"the answer ended, at {part.progress}")


def _line_up(answer: Response, part: Part) -> Version:
    """Returns the answer's version, once the answer's first byte is the part's next one."""
    status = answer.status_code
    refuse_busy(answer)
    if status == 416 and part.size:
        raise part.length_changed("has no more")
    if status not in (200, 206):
        raise FetchError(f"{part.url}: status {status} {answer.reason}; check the address")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{part.url}: sent compressed, though the plain file was asked for")
    size, start = extent(answer, part.url)
    validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    version = Version(part.url, size, validator)
    if part.version and validator == part.version.validator and size != part.version.size:
        raise part.length_changed(f"announces {size} for the same version")
    if status == 200:
        if part.size:
            log.warning("%s: sent from its start; %d bytes thrown away", part.url, part.size)
        part.restart(version)
    elif version != part.version:
        part.restart(None)
        raise ConnectionError("the file changed on the server; starting again")
    elif start != part.size:
        raise FetchError(f"{part.url}: asked for bytes from {part.size} on, got them from {start}")
    return version


def refuse_busy(answer: Response) -> None:
    """Raises ConnectionError for an answer that another try may better."""
    if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
        raise ConnectionError(f"status {answer.status_code} {answer.reason}")


def extent(answer: Response, url: str) -> tuple[int, int]:
    """Returns the whole file's size and the position in it of the answer's first byte."""
    size, start = answer.headers.get("Content-Length", ""), "0"
    if answer.status_code == 206:
        content_range = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
        start, size = match.groups() if match else ("", "")
    if not size.isdecimal():
        raise FetchError(f"{url}: the server does not say how long the file is")
    return int(size), int(start)


def public(url: str) -> str:
    """Returns the address without user, password and query (which may carry a signature)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _without_secrets(text: str) -> str:
    """Returns a library's error text without them."""
    return re.sub(r"\?[^\s'\")]+", "?...", re.sub(r"//[^/\s]*@", "//", text))
