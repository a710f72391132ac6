"""Extracts a dataset from a tar archive. A second call continues where the first one has stopped.

A dataset is an index file and a folder of images beside it, which may be anywhere in the archive.
Nothing else is extracted. A member is extracted to a temporary file and gets its name when it is
complete. A file of the right size is therefore a member that is done.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from srt.data.download.partial import CHUNK, ByteBar, FetchError, byte_bar, check_space
from srt.data.download.unzip import prepare_folder


def extract_tar(archive: Path, folder: Path, index: str, images: str) -> None:
    """Extract the index and the folder of images of the archive into `folder`.

    The archive is read once, from front to back. Of other members, such as masks and depths, only
    the headers are read. The memory holds one chunk of a file.

    Args:
        index: the file's name, such as metadata.npz.
        images: the folder's name.

    Raises:
        FetchError: the archive is no plain tar, damaged, cut off or does not fit the disk, or one
            of these members is a link or a special file, or its name leads to another folder.
    """
    # The extracted files are at most as large as the archive.
    temporary = prepare_folder(folder)
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size = archive.stat().st_size
    check_space(folder, size - present)

    try:
        with (
            tarfile.open(archive, "r:") as tar,
            byte_bar(f"unpacking {archive.name}", size) as bar,
        ):
            _extract_members(tar, _Dataset(archive, index, images), folder, temporary, bar)
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(
            f"{archive}: damaged, cut off or no plain tar ({error}); get it again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)

    # Once for all files: an fsync for each of 300000 would take hours.
    os.sync()


class _Dataset(NamedTuple):
    """An archive, and the names of the two parts of the dataset in it."""

    archive: Path
    index_name: str
    images: str


def _extract_members(
    tar: tarfile.TarFile, dataset: _Dataset, folder: Path, temporary: Path, bar: ByteBar
) -> None:
    """Extract the dataset's members, and check that the archive is complete."""
    dataset_folders = set()
    while (member := tar.next()) is not None:
        # tarfile keeps all headers, which would be a gigabyte.
        tar.members.clear()  # type: ignore[attr-defined]
        bar.update(tar.offset - bar.n)

        # Skip what is not part of the dataset. There must be only one dataset.
        location = _locate_member(member, dataset)
        if location is None:
            continue
        dataset_folders.add(location[0])
        _refuse_several_datasets(dataset_folders, dataset.archive)

        # Extract to the temporary file, then rename it.
        target = folder.joinpath(*location[1])
        if not (target.is_file() and target.stat().st_size == member.size):
            _extract_member(tar, member, temporary)
            target.parent.mkdir(exist_ok=True)
            os.replace(temporary, target)
    _check_end(tar)
    if not (folder / dataset.index_name).is_file():
        raise FetchError(
            f"{dataset.archive}: holds no {dataset.index_name}; is it the dataset's archive?"
        )


def _refuse_several_datasets(folders: set[PurePosixPath], archive: Path) -> None:
    """Raise FetchError if the archive has datasets in more than one folder."""
    if len(folders) > 1:
        names = ", ".join(repr(str(name)) for name in sorted(folders))
        raise FetchError(f"{archive}: holds several datasets ({names}); one is expected")


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise tarfile.ReadError if the archive does not end with an empty block.

    tarfile also stops at a damaged header and at the end of a file that was cut off.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end of the archive at byte {tar.offset}")


def _locate_member(
    member: tarfile.TarInfo, dataset: _Dataset
) -> tuple[PurePosixPath, tuple[str, ...]] | None:
    """Return the dataset's folder in the archive, and the member's path below it.

    Return None for a member that is not part of the dataset.
    """
    # macOS adds files whose names begin with `._`.
    path = PurePosixPath(member.name)
    if member.isdir() or path.name.startswith("."):
        return None

    # Only the index and the images are part of the dataset.
    location: tuple[str, ...]
    if path.name == dataset.index_name:
        top, location = path.parent, (dataset.index_name,)
    elif path.parent.name == dataset.images:
        top, location = path.parent.parent, (dataset.images, path.name)
    else:
        return None
    _refuse_harmful_member(member, dataset.archive)
    return top, location


def _refuse_harmful_member(member: tarfile.TarInfo, archive: Path) -> None:
    """Raise FetchError if a member could do harm: by its name, or because it is no regular file."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        problem = "has a name that leads out of the archive's folder"
    elif not member.isfile():
        problem = "is a link or a special file"
    else:
        return
    raise FetchError(
        f"{archive}: member {member.name!r} {problem}; get the archive from a source that you trust"
    )


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write a member, which is a regular file, to `target`."""
    source = tar.extractfile(member)
    assert source is not None
    with source, target.open("wb") as copy:
        while data := source.read(CHUNK):
            copy.write(data)
