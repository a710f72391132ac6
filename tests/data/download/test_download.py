"""Downloads from a server that breaks off, lies, changes its file and sends nonsense.

`site.requested_ranges` has the Range header of each request, and `site.sent_bytes` counts the bytes
of all answers.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import REPOSITORY
from support.unreliable_site import Site, serve

from srt.data.download import http, partial
from srt.data.download.http import download
from srt.data.download.partial import FetchError

CONTENT = os.urandom(1_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve one file, and try again at once after failures."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.0)
    with serve(Site(CONTENT)) as site:
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "raw" / "file.zip"


def nonempty_files(target: Path) -> list[str]:
    """Return the names of the files beside the target that have any content."""
    return sorted(path.name for path in target.parent.iterdir() if path.stat().st_size)


def fetch_less_than_half(site: Site, target: Path) -> None:
    """Fetch 400 000 bytes from a server that then fails until all tries are used."""
    site.stop_after, site.statuses = [400_000], [200, *[503] * 6]
    with pytest.raises(FetchError, match=r"503 .* Run again to go on: .* 400000 of 1000000"):
        download(site.url, target, sha256=DIGEST)
    assert nonempty_files(target) == ["file.zip.part", "file.zip.part.json"]
    site.statuses, site.requested_ranges, site.sent_bytes = [], [], 0


def test_a_download_returns_its_digest_and_makes_one_file(site: Site, target: Path) -> None:
    assert download(site.url, target, sha256=None) == DIGEST
    assert target.read_bytes() == CONTENT
    assert nonempty_files(target) == ["file.zip"]


DIGESTS = {"whole": DIGEST, "start": DIGEST[:8], "capitals": DIGEST[:8].upper(), "none": None}


@pytest.mark.parametrize("digest", DIGESTS.values(), ids=DIGESTS)
def test_an_existing_file_is_accepted_without_the_network(
    site: Site, target: Path, digest: str | None
) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)

    # A program that was killed just after it had renamed the file has left this.
    target.with_name(f"{target.name}.part.json").write_text("{}")
    assert download(site.url, target, sha256=digest) == DIGEST
    assert site.requested_ranges == []
    assert list(target.parent.iterdir()) == [target]


def test_an_existing_file_with_another_digest_is_refused_with_both_digests(
    site: Site, target: Path
) -> None:
    target.parent.mkdir()
    target.write_bytes(b"something else")
    with pytest.raises(FetchError) as error:
        download(site.url, target, sha256=DIGEST)
    assert DIGEST in str(error.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(error.value)
    assert target.read_bytes() == b"something else"


def test_broken_connections_lose_no_byte(site: Site, target: Path) -> None:
    site.stop_after = [100_000, 1, 0, 300_000]
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requested_ranges == [None, "bytes=100000-", *["bytes=100001-"] * 2, "bytes=400001-"]
    assert site.sent_bytes == len(CONTENT)


def test_many_broken_connections_are_no_failure_while_bytes_arrive(
    site: Site, target: Path
) -> None:
    site.stop_after = [20_000] * 30
    assert download(site.url, target, sha256=DIGEST) == DIGEST


def test_a_later_call_requests_only_the_missing_bytes(site: Site, target: Path) -> None:
    fetch_less_than_half(site, target)
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requested_ranges == ["bytes=400000-"]
    assert site.sent_bytes == len(CONTENT) - 400_000
    assert nonempty_files(target) == ["file.zip"]


KILLED_AFTER_300_000_BYTES = """
import os, pathlib, signal, sys
from srt.data.download import http

append = http.PartialFile.append

def append_then_die(partial_file, data):
    append(partial_file, data)
    if partial_file.size >= 300_000:
        os.kill(os.getpid(), signal.SIGKILL)

http.PartialFile.append = append_then_die
http.CHUNK = 50_000
http.download(sys.argv[1], pathlib.Path(sys.argv[2]), sha256=None)
"""


def test_a_call_after_a_kill_continues_with_what_has_arrived(site: Site, target: Path) -> None:
    command = [sys.executable, "-c", KILLED_AFTER_300_000_BYTES, site.url, str(target)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run(command, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    # The next call requests only what is missing.
    size = target.with_name("file.zip.part").stat().st_size
    assert size > 250_000  # at most a chunk was lost
    site.sent_bytes = 0
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requested_ranges == [None, f"bytes={size}-"]
    assert site.sent_bytes == len(CONTENT) - size


def test_a_complete_partial_file_is_renamed_without_the_network(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Stop a first call just before it renames the file.
    with monkeypatch.context() as patch:
        patch.setattr(partial.PartialFile, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            download(site.url, target, sha256=None)

    # The second call needs no request.
    site.requested_ranges.clear()
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requested_ranges == []


@pytest.mark.parametrize(
    ("size", "obeys_if_range"),
    [(300_000, True), (1_000_000, True), (1_000_000, False), (1_500_000, False)],
)
def test_bytes_of_another_version_are_deleted(
    site: Site, target: Path, size: int, obeys_if_range: bool
) -> None:
    fetch_less_than_half(site, target)
    site.content, site.etag, site.obeys_if_range = os.urandom(size), '"second"', obeys_if_range
    assert download(site.url, target, sha256=None) == hashlib.sha256(site.content).hexdigest()
    assert target.read_bytes() == site.content


def test_a_remote_file_that_became_shorter_than_what_has_arrived_is_reported(
    site: Site, target: Path
) -> None:
    fetch_less_than_half(site, target)
    site.content, site.etag, site.obeys_if_range = os.urandom(300_000), '"second"', False
    with pytest.raises(FetchError, match="after 400000 of 1000000 bytes the server has no more"):
        download(site.url, target, sha256=None)
    download(site.url, target, sha256=None)
    assert target.read_bytes() == site.content


def test_bytes_of_another_address_are_deleted(site: Site, target: Path) -> None:
    fetch_less_than_half(site, target)
    download(site.url + "2", target, sha256=DIGEST)
    assert site.requested_ranges == [None]


def test_bytes_without_version_or_validator_are_deleted(site: Site, target: Path) -> None:
    fetch_less_than_half(site, target)
    target.with_name("file.zip.part.json").write_text("{")
    site.etag, site.stop_after = None, [10]
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requested_ranges == [None, None]


def test_a_server_without_ranges_sends_the_file_from_its_start(site: Site, target: Path) -> None:
    site.supports_ranges, site.stop_after = False, [200_000, 100_000]
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.sent_bytes == len(CONTENT) + 300_000


@pytest.mark.parametrize(
    ("ranges", "message"),
    [(True, "the server has no more"), (False, "6 tries brought nothing new")],
)
def test_a_server_that_announces_too_many_bytes_is_reported(
    site: Site, target: Path, ranges: bool, message: str
) -> None:
    site.announced_size, site.supports_ranges = len(CONTENT) + 5, ranges
    with pytest.raises(FetchError, match=message) as error:
        download(site.url, target, sha256=None)
    assert "1000000 of 1000005 bytes" in str(error.value)
    assert not target.exists()


def test_a_server_that_announces_too_few_bytes_fails_the_checksum(site: Site, target: Path) -> None:
    site.announced_size = len(CONTENT) - 5
    with pytest.raises(FetchError, match=DIGEST):
        download(site.url, target, sha256=DIGEST)
    assert nonempty_files(target) == []


def test_a_server_with_two_lengths_for_one_version_is_reported(site: Site, target: Path) -> None:
    fetch_less_than_half(site, target)
    site.announced_size = 2_000_000
    with pytest.raises(FetchError, match="400000 of 1000000 bytes the server announces 2000000"):
        download(site.url, target, sha256=DIGEST)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Length": "many"}, "does not say how long"),
        ({"Content-Encoding": "gzip"}, "sent compressed"),
    ],
)
def test_answers_that_cannot_be_checked_are_refused(
    site: Site, target: Path, headers: dict[str, str], message: str
) -> None:
    site.headers = headers
    with pytest.raises(FetchError, match=message):
        download(site.url, target, sha256=None)
    assert not target.exists()


def test_corrupted_bytes_are_deleted_and_fetched_again(site: Site, target: Path) -> None:
    site.content = CONTENT[:500] + b"\0" * 8 + CONTENT[508:]
    with pytest.raises(FetchError, match=f"expected {DIGEST}"):
        download(site.url, target, sha256=DIGEST)
    assert nonempty_files(target) == []

    # When the server is right again, so is the file.
    site.content = CONTENT
    assert download(site.url, target, sha256=DIGEST) == DIGEST


def test_a_request_is_repeated_if_the_server_is_busy_but_not_if_it_refuses(
    site: Site, target: Path
) -> None:
    site.statuses = [503, 429, 500]
    assert download(site.url, target, sha256=DIGEST) == DIGEST

    # A refusal ends the call.
    site.statuses, site.requested_ranges = [404], []
    with pytest.raises(FetchError, match="404 Not Found; check the address"):
        download(site.url, target.with_name("other"), sha256=DIGEST)
    assert len(site.requested_ranges) == 1


def test_the_connection_to_a_silent_server_is_closed(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", (5.0, 0.2))
    site.stop_after, site.stall = [250_000], threading.Event()
    assert download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requested_ranges[:2] == [None, "bytes=250000-"]


def test_errors_and_version_files_have_no_credentials(
    site: Site, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.url = site.url.replace("http://", "http://me:hunter2@") + "?X-Signature=hunter2"
    fetch_less_than_half(site, target)
    version = target.with_name("file.zip.part.json").read_text()

    # On port 9 nothing answers.
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/data/file\.zip: 6 tries") as error:
        download(re.sub(r":\d+/", ":9/", site.url), target, sha256=None)
    error_text = "".join(traceback.format_exception(error.value))
    assert "hunter2" not in error_text + caplog.text + version


def test_a_full_disk_is_reported_before_the_first_byte(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(FetchError, match=r"1000000 more bytes .* do not fit the 9 that are free"):
        download(site.url, target, sha256=DIGEST)
    assert target.with_name("file.zip.part").stat().st_size == 0


def test_two_downloads_of_one_target_do_not_mix(site: Site, target: Path) -> None:
    site.stop_after, site.stall = [250_000], threading.Event()
    with ThreadPoolExecutor() as pool:
        # The first call waits for a stalled server while the second one begins.
        first = pool.submit(download, site.url, target, sha256=DIGEST)
        assert site.answered.wait(5)
        with pytest.raises(FetchError, match="another process is fetching it"):
            download(site.url, target, sha256=DIGEST)
        site.stall.set()
        assert first.result() == DIGEST


def test_several_files_can_be_fetched_at_the_same_time(site: Site, target: Path) -> None:
    targets = [target.with_name(f"shard-{i}") for i in range(8)]
    site.stop_after = [100_000] * 8
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(lambda path: download(site.url, path, sha256=DIGEST), targets)
    assert set(digests) == {DIGEST}


@pytest.mark.parametrize("digest", ["397923a", "not hexadecimal", "", "0" * 65])
def test_text_that_is_no_digest_is_refused(target: Path, digest: str) -> None:
    with pytest.raises(FetchError, match="not 8 to 64 hexadecimal digits"):
        download("http://127.0.0.1:9/file", target, sha256=digest)


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/passwd", "data/file", "http://"])
def test_other_addresses_are_refused(target: Path, url: str) -> None:
    with pytest.raises(FetchError, match="not an http or https address"):
        download(url, target, sha256=None)
