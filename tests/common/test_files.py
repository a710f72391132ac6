"""Atomic writes, checksums, and the lock that processes wait for."""

import errno
import hashlib
import os
import select
import signal
import subprocess
import sys

import pytest
from support.paths import REPOSITORY

from srt.common.files import sha256_of, wait_for_lock, write_atomically

# Takes the lock of the file that is its argument, says so, and holds it until its input ends.
HOLDER = """
import sys
from pathlib import Path
from srt.common.files import wait_for_lock
print("started", flush=True)
with wait_for_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def read_folder(folder):
    """Return the content of each file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start_holder(path):
    """Start a process that takes the lock of `path`; it has not taken it yet."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=REPOSITORY,
        bufsize=0,  # so that `select` sees all output that no test has read yet
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"started\n"
    return holder


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("old_content", [None, b"before"])
def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_else(
    tmp_path, monkeypatch, step, old_content
):
    path = tmp_path / "file"
    if old_content is not None:
        path.write_bytes(old_content)

    def fail(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"after")
    assert read_folder(tmp_path) == ({} if old_content is None else {"file": old_content})


def test_a_write_makes_the_folder_and_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"before", b"after"):
        write_atomically(path, content)
    assert read_folder(path.parent) == {"file": b"after"}


def test_the_digest_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("killed", [False, True])
def test_a_process_waits_for_the_lock_until_its_holder_leaves_or_is_killed(tmp_path, killed):
    path = tmp_path / "lock"
    with start_holder(path) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with start_holder(path) as waiting:
            # The second process does not get the lock while the first one holds it.
            readable, _, _ = select.select([waiting.stdout], [], [], 0.3)
            assert not readable

            # It gets the lock when the first one has gone.
            if killed:
                holder.send_signal(signal.SIGKILL)
            else:
                holder.stdin.close()
            holder.wait()
            assert waiting.stdout.readline() == b"locked\n"
            waiting.stdin.close()


def test_a_lock_can_be_taken_again_after_its_context_and_after_an_error_in_it(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(KeyError), wait_for_lock(path):
        raise KeyError
    for _ in range(2):
        with wait_for_lock(path):
            assert path.exists()
    assert path.read_bytes() == b""
