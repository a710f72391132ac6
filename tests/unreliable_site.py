"""A web server that breaks off, lies, changes its file, and counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """One file on a server, what is wrong with it, and what was asked of it."""

    content: bytes
    url: str = ""
    etag: str | None = '"first"'
    ranges: bool = True
    obeys_if_range: bool = True
    announce: int | None = None  # a length other than the content's
    statuses: list[int] = field(default_factory=list)  # of the first answers
    stop_after: list[int] = field(default_factory=list)  # bytes that the first answers carry
    stall: threading.Event | None = None  # the first answer stops there, without a word
    headers: dict[str, str] = field(default_factory=dict)
    begun: threading.Event = field(default_factory=threading.Event)
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked, condition = handler.headers["Range"], handler.headers["If-Range"]
        self.asked.append(asked)
        size = len(self.content) if self.announce is None else self.announce
        start = 0
        if asked and self.ranges and (condition == self.etag or not self.obeys_if_range):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        status = self.statuses.pop(0) if self.statuses else 206 if start else 200
        if start >= len(self.content) > 0:
            status = 416
        handler.send_response(status)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if status < 300:
            headers = {"Content-Length": str(size - start)} | self.headers
        else:
            headers, start = {"Content-Length": "0"}, len(self.content)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        body = self.content[start:]
        if self.stop_after and body:
            body = body[: self.stop_after.pop(0)]
        self.sent += len(body)
        with suppress(ConnectionError):  # the client was killed
            handler.wfile.write(body)
        self.begun.set()
        if self.stall and len(self.asked) == 1:
            self.stall.wait()


@contextmanager
def served(site: Site) -> Iterator[Site]:
    """Serves a site on a free port of this machine, and sets its url."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: object) -> None:
            pass

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
