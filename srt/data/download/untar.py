"""ObSuRF's tar archives, unpacked inside a folder; a second call goes on where one stopped."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath

from srt.data.download.partial import CHUNK, ByteBar, FetchError, byte_bar, check_space
from srt.data.download.unzip import fresh_temporary

INDEX, IMAGES = "metadata.npz", "images"


def extract_tar(archive: Path, folder: Path) -> None:
    """Unpacks metadata.npz and images/ of the archive, wherever in it they lie, into `folder`.

    A member gets its name when it is complete, so one of the right size is done. The archive is
    read once, from front to back; of members that are not wanted, masks and depths, only the
    headers. Memory holds one chunk.

    Raises:
        FetchError: the archive is no plain tar, damaged, cut off or does not fit the disk, or a
            wanted member is a link or a special file, or has a name that leads elsewhere.
    """
    temporary = fresh_temporary(folder)
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size = archive.stat().st_size
    check_space(folder, size - there)
    try:
        with (
            tarfile.open(archive, "r:") as tar,
            byte_bar(f"unpacking {archive.name}", size) as bar,
        ):
            _extract_members(tar, archive, folder, temporary, bar)
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(
            f"{archive}: damaged, cut off or no plain tar ({error}); get it again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    os.sync()  # once: an fsync for each of 300000 files would take hours


def _extract_members(
    tar: tarfile.TarFile, archive: Path, folder: Path, temporary: Path, bar: ByteBar
) -> None:
    tops = set()
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or it keeps all: a gigabyte of headers
        bar.update(tar.offset - bar.n)
        place = _place(member, archive)
        if place is None:
            continue
        top, target = place[0], folder.joinpath(*place[1])
        tops.add(top)
        if len(tops) > 1:
            names = ", ".join(repr(str(name)) for name in sorted(tops))
            raise FetchError(f"{archive}: holds several datasets ({names}); one is expected")
        if not (target.is_file() and target.stat().st_size == member.size):
            _extract_member(tar, member, temporary)
            target.parent.mkdir(exist_ok=True)
            os.replace(temporary, target)
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)  # tarfile takes a damaged header, and the file's end, for the end
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end of the archive at byte {tar.offset}")
    if not (folder / INDEX).is_file():
        raise FetchError(f"{archive}: holds no {INDEX}; is it the dataset's archive?")


def _place(member: tarfile.TarInfo, archive: Path) -> tuple[PurePosixPath, tuple[str, ...]] | None:
    """Returns the dataset's folder in the archive and the member's place in it, None if unwanted.

    Raises FetchError for a wanted member that could do harm.
    """
    path = PurePosixPath(member.name)
    if member.isdir() or path.name.startswith("."):  # macOS adds ._files
        return None
    place: tuple[str, ...]
    if path.name == INDEX:
        top, place = path.parent, (INDEX,)
    elif path.parent.name == IMAGES:
        top, place = path.parent.parent, (IMAGES, path.name)
    else:
        return None
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        problem = "has a name that leads out of the archive's folder"
    elif not member.isfile():
        problem = "is a link or a special file"
    else:
        return top, place
    raise FetchError(
        f"{archive}: member {member.name!r} {problem}; get the archive from a source that you trust"
    )


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    with source, target.open("wb") as copy:
        while data := source.read(CHUNK):
            copy.write(data)
