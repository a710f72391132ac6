"""Zip archives, extracted inside their folder; a second call goes on where a first one stopped."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from srt.data.download.partial import CHUNK, ByteBar, FetchError, byte_bar, check_space

DISK_BLOCK = 4096  # the least that a file takes on the disk


def extract_zip(
    archive: Path, folder: Path, *, strip: str | None, only: Collection[str] | None = None
) -> None:
    """Extracts `archive` into `folder`, except what an earlier call has extracted already.

    A member gets its name when it is complete and its CRC is right, so a file of the right size is
    done. Memory holds the archive's directory and one chunk.

    Args:
        strip: the folder in the archive whose contents are wanted; None: everything.
        only: the names directly in that folder that are wanted; None: all.

    Raises:
        FetchError: the archive is damaged or does not fit the disk, or a member is a link or would
            land outside `folder`. All names are checked before anything is extracted.
    """
    top = PurePosixPath(strip or "").parts
    temporary = fresh_temporary(folder)
    reading = "its directory"
    try:
        with zipfile.ZipFile(archive) as file:
            missing, done = _missing(file, folder, top, only)
            check_space(folder, sum(-(-i.file_size // DISK_BLOCK) * DISK_BLOCK for i in missing))
            total = done + sum(info.file_size for info in missing)
            with byte_bar(f"extracting {archive.name}", total, done) as bar:
                for info in missing:
                    reading = info.filename
                    _extract_member(file, info, temporary, bar)
                    path = folder.joinpath(*PurePosixPath(info.filename).parts[len(top) :])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(temporary, path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise FetchError(
            f"{archive}: {reading} is damaged ({error}); delete the archive and fetch it again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    if missing:
        os.sync()  # once: an fsync for each of a million files would take hours


def fresh_temporary(folder: Path) -> Path:
    """Returns where members grow, in a folder that is made and rid of what killed calls left."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".extracting-*"):  # of a call that was killed
        leftover.unlink()
    return folder / f".extracting-{os.getpid()}"


def folder_with(archive: Path, name: str) -> str | None:
    """Returns the folder of a zip archive in which a file lies, None if that is the archive's top.

    Raises FetchError where the archive is damaged, or holds no or several files of that name.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            paths = [PurePosixPath(member) for member in file.namelist()]
    except (zipfile.BadZipFile, EOFError) as error:
        raise FetchError(
            f"{archive}: its directory is damaged ({error}); delete the archive and fetch it again"
        ) from error
    found = [path for path in paths if path.name == name]
    if len(found) != 1:
        raise FetchError(f"{archive}: holds {len(found)} files called {name}, expected is one")
    return str(found[0].parent) if found[0].parent.parts else None


def _missing(
    file: zipfile.ZipFile, folder: Path, top: tuple[str, ...], only: Collection[str] | None
) -> tuple[list[zipfile.ZipInfo], int]:
    """Returns the members yet to be extracted, and the bytes of those that are there."""
    missing, done, there = [], 0, 0
    for info in file.infolist():
        parts = _safe_parts(info, file.filename)
        if info.is_dir() or parts[: len(top)] != top:
            continue
        if only is not None and parts[len(top)] not in only:
            continue
        path = folder.joinpath(*parts[len(top) :])
        if path.is_file() and path.stat().st_size == info.file_size:
            done += info.file_size
            there += 1
        else:
            missing.append(info)
    if not missing and not there:
        names = f", called {' or '.join(sorted(only))}" if only is not None else ""
        raise FetchError(f"{file.filename}: holds no file under {'/'.join(top)!r}{names}")
    return missing, done


def _safe_parts(info: zipfile.ZipInfo, archive: str | None) -> tuple[str, ...]:
    """Returns the parts of a member's name; a member that could do harm is refused."""
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
        problem = "would land outside the folder"
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
    with file.open(info) as source, target.open("wb") as copy:
        while data := source.read(CHUNK):  # the last read checks the CRC
            copy.write(data)
            bar.update(len(data))
