"""A web server for tests of downloads: it fails in many ways, and counts what it sends."""

from __future__ import annotations

import hashlib
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c


@dataclass
class Site:
    """One file on a server, how the server fails, and a record of the requests."""

    content: bytes
    url: str = ""
    etag: str | None = '"first"'
    ranges: bool = True
    obeys_if_range: bool = True
    announce: int | None = None  # a length that differs from the content's
    statuses: list[int] = field(default_factory=list)  # of the first answers
    stop_after: list[int] = field(default_factory=list)  # bytes that the first answers send
    stall: threading.Event | None = None  # the first answer waits for this before it ends
    headers: dict[str, str] = field(default_factory=dict)
    begun: threading.Event = field(default_factory=threading.Event)  # an answer has been sent
    asked: list[str | None] = field(default_factory=list)  # the header Range of each request
    sent: int = 0  # bytes of all answers

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request for the file, or for its end from some byte on."""
        # A range is only for a client whose beginning is of the same file, by its ETag.
        requested = handler.headers["Range"]
        condition = handler.headers["If-Range"]
        self.asked.append(requested)
        size = len(self.content) if self.announce is None else self.announce
        start = 0
        if requested and self.ranges and (condition == self.etag or not self.obeys_if_range):
            start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1])

        # Status 206 is a range of the file, 416 a range outside of it.
        status = self.statuses.pop(0) if self.statuses else 206 if start else 200
        if start >= len(self.content) > 0:
            status = 416
        self.send_headers(handler, status, start, size)

        # Send the content, or less than it.
        body = self.content[start:] if status < 300 else b""
        if self.stop_after and body:
            body = body[: self.stop_after.pop(0)]
        self.sent += len(body)
        with suppress(ConnectionError):  # the client was killed
            handler.wfile.write(body)
        self.begun.set()
        if self.stall and len(self.asked) == 1:
            self.stall.wait()

    def send_headers(
        self, handler: BaseHTTPRequestHandler, status: int, start: int, size: int
    ) -> None:
        handler.send_response(status)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if status < 300:
            headers = {"Content-Length": str(size - start)} | self.headers
        else:
            headers = {"Content-Length": "0"}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    def head(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in ({"Content-Length": str(len(self.content))} | self.headers).items():
            handler.send_header(name, value)
        handler.end_headers()


@dataclass
class Bucket:
    """Files on a server like Google Cloud Storage; each may fail in its own way."""

    files: dict[str, Site]
    url: str = ""
    busy: int = 0  # so many requests get status 503 at first
    heads: list[str] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)
    meeting: threading.Barrier | None = None  # requests for shards wait for each other
    stall: None = None

    @classmethod
    def of(cls, contents: dict[str, bytes], kinds: tuple[str, ...] = ("crc32c", "md5")) -> Bucket:
        """Return a bucket that sends these kinds of checksums in its headers."""
        files = {name: Site(content, etag=f'"{name}"') for name, content in contents.items()}
        for site in files.values():
            sums = [f"{kind}={checksum(kind, site.content)}" for kind in kinds]
            site.headers = {"x-goog-hash": ",".join(sums)} if sums else {}
        return cls(files)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request for one of the files."""
        name = handler.path.rpartition("/")[2]
        is_head = handler.command == "HEAD"
        requests = self.heads if is_head else self.gets
        requests.append(name)

        # A busy server answers 503, and a file that it does not have is 404.
        self.busy -= 1
        if self.busy >= 0 or name not in self.files:
            handler.send_response(503 if self.busy >= 0 else 404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif is_head:
            self.files[name].head(handler)
        else:
            if self.meeting and "tfrecord" in name:
                self.meeting.wait(5)
            self.files[name].answer(handler)


def checksum(kind: str, content: bytes) -> str:
    """Return a checksum in the form of Google Cloud Storage."""
    if kind == "md5":
        return b64encode(hashlib.md5(content).digest()).decode()
    return b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@contextmanager
def served(site: Site | Bucket) -> Iterator[Site | Bucket]:
    """Run a server for the site on a free port of this machine, and set the site's url."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    # The server looks every 10 ms whether it has to end.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}/data/file.zip"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        if site.stall:
            site.stall.set()
        server.shutdown()
        thread.join()
        server.server_close()
