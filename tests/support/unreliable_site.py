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
    supports_ranges: bool = True
    obeys_if_range: bool = True
    announced_size: int | None = None  # where it differs from the content's
    statuses: list[int] = field(default_factory=list)  # of the first answers
    stop_after: list[int] = field(default_factory=list)  # bytes that the first answers send
    stall: threading.Event | None = None  # the first answer waits for this before it ends
    headers: dict[str, str] = field(default_factory=dict)
    answered: threading.Event = field(default_factory=threading.Event)  # the first answer is sent
    requested_ranges: list[str | None] = field(default_factory=list)  # the header Range
    sent_bytes: int = 0  # of all answers

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request for the file, or for its end from some byte on."""
        # A range is only for a client whose beginning is of the same file, by its ETag.
        requested_range = handler.headers["Range"]
        self.requested_ranges.append(requested_range)
        size = len(self.content) if self.announced_size is None else self.announced_size
        is_same_file = handler.headers["If-Range"] == self.etag or not self.obeys_if_range
        start = 0
        if requested_range and self.supports_ranges and is_same_file:
            start = int(re.fullmatch(r"bytes=(\d+)-", requested_range)[1])

        # Status 206 is a range of the file, 416 a range outside of it.
        status = self.statuses.pop(0) if self.statuses else 206 if start else 200
        if start >= len(self.content) > 0:
            status = 416
        self.send_headers(handler, status, start, size)

        # Send the content, or less than it.
        body = self.content[start:] if status < 300 else b""
        if self.stop_after and body:
            body = body[: self.stop_after.pop(0)]
        self.sent_bytes += len(body)
        with suppress(ConnectionError):  # the client was killed
            handler.wfile.write(body)
        self.answered.set()
        if self.stall and len(self.requested_ranges) == 1:
            self.stall.wait()

    def send_headers(
        self, handler: BaseHTTPRequestHandler, status: int, start: int, size: int
    ) -> None:
        """Send the status and the headers of an answer that begins at byte `start` of `size`."""
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

    def answer_head(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request for the headers alone."""
        handler.send_response(200)
        for name, value in ({"Content-Length": str(len(self.content))} | self.headers).items():
            handler.send_header(name, value)
        handler.end_headers()


@dataclass
class Bucket:
    """Files on a server like Google Cloud Storage; each may fail in its own way."""

    files: dict[str, Site]
    url: str = ""
    busy_answers: int = 0  # so many requests get status 503 at first

    # The files of all requests for headers (HEAD) and for contents (GET).
    head_requests: list[str] = field(default_factory=list)
    get_requests: list[str] = field(default_factory=list)

    barrier: threading.Barrier | None = None  # requests for shards wait for each other here
    stall: None = None  # a bucket never stalls

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request for one of the files."""
        name = handler.path.rpartition("/")[2]
        is_head = handler.command == "HEAD"
        requests = self.head_requests if is_head else self.get_requests
        requests.append(name)

        # A busy server answers 503, and a file that it does not have is 404.
        self.busy_answers -= 1
        if self.busy_answers >= 0 or name not in self.files:
            handler.send_response(503 if self.busy_answers >= 0 else 404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif is_head:
            self.files[name].answer_head(handler)
        else:
            if self.barrier and "tfrecord" in name:
                self.barrier.wait(5)
            self.files[name].answer(handler)


def make_bucket(
    contents: dict[str, bytes], algorithms: tuple[str, ...] = ("crc32c", "md5")
) -> Bucket:
    """Return a bucket that announces the checksums of its files by these algorithms."""
    files = {name: Site(content, etag=f'"{name}"') for name, content in contents.items()}
    for site in files.values():
        sums = [f"{algorithm}={checksum(algorithm, site.content)}" for algorithm in algorithms]
        site.headers = {"x-goog-hash": ",".join(sums)} if sums else {}
    return Bucket(files)


def checksum(algorithm: str, content: bytes) -> str:
    """Return a checksum in the form of Google Cloud Storage."""
    if algorithm == "md5":
        return b64encode(hashlib.md5(content).digest()).decode()
    return b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@contextmanager
def serve(site: Site | Bucket) -> Iterator[Site | Bucket]:
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
