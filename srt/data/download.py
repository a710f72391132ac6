"""Downloads that go on where they stopped.

A download grows in `<target>.part`, and `<target>.part.json` tells which version of the remote file
it is a part of (`srt.data.partial`). The name `<target>` appears only when length and checksum are
right. `requests` does the HTTP, because it shows status, extent and version of the very answer that
the bytes come from, and hands over the bytes of an answer that breaks off.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from srt.data.partial import (
    CHUNK,
    FetchError,
    Part,
    Version,
    byte_bar,
    check_space,
    locked,
    sha256_so_far,
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
        raise FetchError(f"{_public(url)}: not an http or https address")
    if target.exists():
        with target.open("rb") as file:
            found = sha256_so_far(file, target.name).hexdigest()
        if not found.startswith(expected):
            raise FetchError(
                f"{target}: sha256 is {found}, expected {expected}; delete it to fetch it again"
            )
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(target.name + ".part")
    with locked(path) as file:
        part = Part(path, file, _public(url))
        _fill(part, url)
        found = part.digest.hexdigest()
        if not found.startswith(expected):
            part.restart(None)
            raise FetchError(
                f"{_public(url)}: sha256 is {found}, expected {expected}; what arrived was thrown"
                " away: run again, and if the digest stays, compare it with the publisher's"
            )
        part.finish(target)
    return found


def _fill(part: Part, url: str) -> None:
    """Repeats requests until the part is complete."""
    import requests
    import urllib3

    passing = (ConnectionError, requests.RequestException, urllib3.exceptions.HTTPError)
    most, failures = part.size, 0
    with requests.Session() as session:
        while not part.complete:
            try:
                _request_rest(session, url, part)
                continue
            except passing as error:
                reason = _without_secrets(f"{type(error).__name__}: {error}")
            failures = 0 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures == TRIES:
                raise FetchError(
                    f"{part.url}: {TRIES} tries brought nothing new; the last: {reason}. Run again"
                    f" to go on: {part.path} keeps what came, {part.progress}"
                )
            wait = FIRST_WAIT * 2**failures
            log.warning("%s: %s; next try in %.0f s", part.url, reason, wait)
            time.sleep(wait)


def _request_rest(session: Session, url: str, part: Part) -> None:
    """Asks once for the bytes that are missing and appends what comes."""
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the file's own bytes
    if part.size and part.version and part.version.validator:
        # If-Range: a server whose file has changed sends the new one from its start.
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version.validator}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        version = _line_up(answer, part)
        check_space(part.path.parent, version.size - part.size)
        with byte_bar(part.path.stem, version.size, part.size) as bar:
            # read1 hands over what is there, so that a connection that breaks costs no byte.
            while data := answer.raw.read1(CHUNK, decode_content=False):
                if part.size + len(data) > version.size:
                    raise part.length_changed("sent more than it announced")
                part.append(data)
                bar.update(len(data))
    if not part.complete:
        raise ConnectionError(f"the answer ended, at {part.progress}")


def _line_up(answer: Response, part: Part) -> Version:
    """Returns the answer's version, once the answer's first byte is the part's next one."""
    status = answer.status_code
    if status >= 500 or status in (408, 425, 429):
        raise ConnectionError(f"status {status} {answer.reason}")
    if status == 416 and part.size:
        raise part.length_changed("has no more")
    if status not in (200, 206):
        raise FetchError(f"{part.url}: status {status} {answer.reason}; check the address")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{part.url}: sent compressed, though the plain file was asked for")
    size, start = _extent(answer, part.url)
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


def _extent(answer: Response, url: str) -> tuple[int, int]:
    """Returns the whole file's size and the position in it of the answer's first byte."""
    size, start = answer.headers.get("Content-Length", ""), "0"
    if answer.status_code == 206:
        content_range = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
        start, size = match.groups() if match else ("", "")
    if not size.isdecimal():
        raise FetchError(f"{url}: the server does not say how long the file is")
    return int(size), int(start)


def _public(url: str) -> str:
    """Returns the address without user, password and query (which may carry a signature)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _without_secrets(text: str) -> str:
    """Returns a library's error text without them."""
    return re.sub(r"\?[^\s'\")]+", "?...", re.sub(r"//[^/\s]*@", "//", text))
