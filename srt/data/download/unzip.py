"""Extracts zip archives. A second call continues where the first one has stopped.

A member is extracted to a temporary file, and gets its name when it is complete and its checksum is
right. A file of the right size is therefore a member that is done.

A member with a harmful name, or one that is no regular file, is refused.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from srt.data.download.partial import CHUNK, ByteBar, FetchError, byte_bar, check_space

# The least that a file takes on the disk, in bytes.
DISK_BLOCK = 4096

# What zipfile raises for a damaged archive.
DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError)


def extract_zip(
    archive: Path, folder: Path, *, strip: str | None, only: Collection[str] | None = None
) -> None:
    """Extract `archive` into `folder`, except what an earlier call has extracted.

    The memory holds the archive's directory and one chunk of a file.

    Args:
        strip: the folder in the archive whose content is extracted; None: everything.
        only: the names of files and folders directly in that folder; None: all.

    Raises:
        FetchError: the archive is damaged or does not fit the disk, or a member is a link or would
            be written outside `folder`. All names are checked before anything is extracted.
    """
    top = PurePosixPath(strip or "").parts
    temporary = prepare_folder(folder)
    try:
        with _open_archive(archive) as file:
            missing, done = _find_missing_members(file, folder, top, only)
            check_space(folder, _size_on_disk(missing))

            # Extract each member to the temporary file and then rename it.
            total = done + sum(info.file_size for info in missing)
            with byte_bar(f"extracting {archive.name}", total, done) as bar:
                for info in missing:
                    _extract_member(file, info, temporary, bar)
                    path = folder.joinpath(*PurePosixPath(info.filename).parts[len(top) :])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

    # Once for all files: an fsync for each of a million would take hours.
    if missing:
        os.sync()


def _size_on_disk(members: Collection[zipfile.ZipInfo]) -> int:
    """Return the bytes that members take on the disk when they are extracted."""
    # Files take whole blocks of the disk, which counts where there are a million.
    blocks = [-(-info.file_size // DISK_BLOCK) for info in members]
    return sum(count * DISK_BLOCK for count in blocks)


def _open_archive(archive: Path) -> zipfile.ZipFile:
    """Return the open archive. Raise FetchError if its directory is damaged."""
    try:
        return zipfile.ZipFile(archive)
    except DAMAGE_ERRORS as error:
        raise _damage_error(archive, "its directory", error) from error


def _damage_error(archive: str | Path | None, what: str, error: Exception) -> FetchError:
    """Return the error for an archive of which something is damaged."""
    return FetchError(
        f"{archive}: {what} is damaged ({error}); delete the archive and fetch it again"
    )


def prepare_folder(folder: Path) -> Path:
    """Make a folder, delete temporary files of killed calls, and return this call's temporary."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".extracting-*"):
        leftover.unlink()
    return folder / f".extracting-{os.getpid()}"


def find_folder_of(archive: Path, name: str) -> str | None:
    """Return the folder of a zip archive that holds the file `name`; None: the archive's top.

    Raises:
        FetchError: the archive is damaged, or holds no file of that name or several.
    """
    with _open_archive(archive) as file:
        paths = [PurePosixPath(member) for member in file.namelist()]

    # The name may be in any folder, but only once.
    matches = [path for path in paths if path.name == name]
    if len(matches) != 1:
        raise FetchError(
            f"{archive}: holds {len(matches)} files called {name}, expected one; is it the"
            " dataset's archive?"
        )
    return str(matches[0].parent) if matches[0].parent.parts else None


def _find_missing_members(
    file: zipfile.ZipFile, folder: Path, top: tuple[str, ...], only: Collection[str] | None
) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the members that must still be extracted, and the bytes of those that are done."""
    missing, done_bytes, done_files = [], 0, 0
    for info in file.infolist():
        # Every name is checked, also those of members that are not extracted.
        names = _safe_path(info, file.filename)
        if info.is_dir() or names[: len(top)] != top:
            continue
        if only is not None and names[len(top)] not in only:
            continue

        # A file of the right size is complete: it was renamed when it was.
        path = folder.joinpath(*names[len(top) :])
        if path.is_file() and path.stat().st_size == info.file_size:
            done_bytes += info.file_size
            done_files += 1
        else:
            missing.append(info)

    if not missing and not done_files:
        raise _nothing_error(file.filename, top, only)
    return missing, done_bytes


def _nothing_error(
    archive: str | None, top: tuple[str, ...], only: Collection[str] | None
) -> FetchError:
    """Return the error for an archive that has none of the requested members."""
    condition = f", called {' or '.join(sorted(only))}" if only is not None else ""
    return FetchError(
        f"{archive}: holds no file under {'/'.join(top)!r}{condition}; is it the dataset's archive?"
    )


def _safe_path(info: zipfile.ZipInfo, archive: str | None) -> tuple[str, ...]:
    """Return the names of a member's folders and file. Raise FetchError if it could do harm."""
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
        problem = "would be written outside the folder"
    elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is a link or a special file"
    else:
        return path.parts
    raise FetchError(
        f"{archive}: member {info.filename!r} {problem}; nothing was extracted: get the archive"
        " from a source that you trust"
    )


def _extract_member(
    file: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, bar: ByteBar
) -> None:
    """Write a member to `target`. Raise FetchError if it is damaged."""
    # The last read checks the CRC.
    try:
        with file.open(info) as source, target.open("wb") as copy:
            while data := source.read(CHUNK):
                copy.write(data)
                bar.update(len(data))
    except DAMAGE_ERRORS as error:
        raise _damage_error(file.filename, info.filename, error) from error
