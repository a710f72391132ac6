"""Files and locks that survive kills and full disks.

A file that `write_atomically` writes is complete or not there. A lock belongs to a process and not
to a file's existence: the system lifts it when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from srt.common.errors import UserError

# Errors that end when a person makes room or chooses another folder.
CANNOT_WRITE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, and its folder if there is none; a kill or a full disk leaves it as it was.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with name_file_in_errors(path):
            # The content must be on the disk before the name is. Otherwise a power cut could leave
            # a file that has its name but not its content.
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError that has none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sha256_of(path: Path) -> str:
    """Return a file's sha256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait first while another process holds it.

    The lock ends with the context or with the process. The file stays, and is empty.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def lock_folder(folder: Path, what: str) -> Iterator[None]:
    """Make a folder and hold its lock.

    Args:
        what: what a process that holds the lock does, for the error: "/data/x is being packed".

    Raises:
        UserError: another process holds the lock. This function does not wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

        # The folder that was locked may have been renamed meanwhile, when its work was complete.
        if not os.path.samestat(os.fstat(handle), folder.stat()):
            raise BlockingIOError
        yield
    except BlockingIOError:
        raise UserError(f"{folder}: {what} by another process; wait for it or stop it") from None
    finally:
        os.close(handle)
