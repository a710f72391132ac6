"""Files that are complete or not there."""

import errno
import hashlib
import os

import pytest

from srt.common.files import sha256_of, write_atomically


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_else(
    tmp_path, monkeypatch, step, before
):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def fail(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"after")
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == (
        {} if before is None else {"file": before}
    )


def test_a_write_makes_the_folder_and_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"before", b"after"):
        write_atomically(path, content)
    assert {found.name: found.read_bytes() for found in path.parent.iterdir()} == {"file": b"after"}


def test_the_digest_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
