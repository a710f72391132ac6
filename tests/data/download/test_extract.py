"""Zip and tar archives that are whole, damaged, malicious, or were extracted halfway."""

from __future__ import annotations

import functools
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import REPOSITORY

from srt.data.download import partial, untar, unzip
from srt.data.download.partial import FetchError
from srt.data.download.unzip import extract_zip, find_folder_of

MEMBERS = {f"NMR/chair/{i}/image.png": os.urandom(100 + i) for i in range(20)} | {
    "NMR/empty.lst": b"",
    "NMR/large.bin": os.urandom(300_000),
}

WITHOUT_TOP = {name.removeprefix("NMR/"): content for name, content in MEMBERS.items()}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Write a zip archive of all members."""
    return write_archive(tmp_path / "data.zip", MEMBERS)


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    """Write a zip archive and return its path."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_member_is_extracted(archive: Path, tmp_path: Path) -> None:
    extract_zip(archive, tmp_path / "out", strip=None)
    assert contents(tmp_path / "out") == MEMBERS


def test_strip_selects_the_content_of_one_folder(tmp_path: Path) -> None:
    members = MEMBERS | {"__MACOSX/chair": b"x", "NMR2/chair": b"x"}
    extract_zip(write_archive(tmp_path / "a.zip", members), tmp_path / "out", strip="NMR")
    assert contents(tmp_path / "out") == WITHOUT_TOP


def test_a_folder_that_is_not_in_the_archive_is_reported(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"data\.zip: holds no file under 'nmr'"):
        extract_zip(archive, tmp_path / "out", strip="nmr")


def test_a_second_call_extracts_only_what_is_missing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a first call, one file is missing and one has the wrong size.
    out = tmp_path / "out"
    extract_zip(archive, out, strip="NMR")
    (out / "chair" / "3" / "image.png").unlink()
    (out / "chair" / "7" / "image.png").write_bytes(b"short")

    # Write down the members that the next calls extract.
    extracted_names = []
    extract_member = unzip._extract_member

    def record_and_extract(
        file: zipfile.ZipFile, info: zipfile.ZipInfo, *arguments: object
    ) -> None:
        extracted_names.append(info.filename)
        extract_member(file, info, *arguments)

    monkeypatch.setattr(unzip, "_extract_member", record_and_extract)
    extract_zip(archive, out, strip="NMR")
    assert extracted_names == ["NMR/chair/3/image.png", "NMR/chair/7/image.png"]
    extract_zip(archive, out, strip="NMR")
    assert len(extracted_names) == 2
    assert contents(out) == WITHOUT_TOP


# Kills itself when it has extracted more bytes than its last argument says.
KILLED_HALFWAY = """
import os, pathlib, signal, sys
from srt.data.download import unzip

class Bar:
    remaining = int(sys.argv[3])
    __enter__ = lambda self: self
    __exit__ = lambda *_: None
    def update(self, size):
        self.remaining -= size
        if self.remaining < 0:
            os.kill(os.getpid(), signal.SIGKILL)

unzip.byte_bar = lambda *_: Bar()
unzip.CHUNK = 1000
unzip.extract_zip(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), strip=None)
"""


@pytest.mark.parametrize("size", [50, 100_000])
def test_a_call_after_a_kill_keeps_whole_files_and_extracts_the_others(
    archive: Path, tmp_path: Path, size: int
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED_HALFWAY, str(archive), str(out), str(size)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run(command, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    # Files that have their names are whole.
    whole = {
        name: content
        for name, content in contents(out).items()
        if not name.startswith(".extracting-")
    }
    assert len(whole) < len(MEMBERS)
    assert whole.items() <= MEMBERS.items()

    # The next call extracts the others.
    extract_zip(archive, out, strip=None)
    assert contents(out) == MEMBERS


@pytest.mark.parametrize("name", ["/etc/passwd", "../out2/x", "NMR/../../x", "..", "..\\x", "//x"])
def test_a_member_that_would_be_written_outside_the_folder_is_refused(
    tmp_path: Path, name: str
) -> None:
    archive = write_archive(tmp_path / "bad.zip", MEMBERS | {name: b"x"})
    with pytest.raises(FetchError, match="would be written outside the folder") as error:
        extract_zip(archive, tmp_path / "deep" / "out", strip=None)
    assert repr(name) in str(error.value)
    assert contents(tmp_path) == {"bad.zip": archive.read_bytes()}


@pytest.mark.parametrize("file_type", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_is_refused(tmp_path: Path, file_type: int) -> None:
    archive = write_archive(tmp_path / "bad.zip", MEMBERS)
    # Unix (3) stores a file's type and mode in the upper half of the attributes.
    link = zipfile.ZipInfo("NMR/link")
    link.create_system, link.external_attr = 3, (file_type | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc")
    with pytest.raises(FetchError, match="'NMR/link' is a link or a special file"):
        extract_zip(archive, tmp_path / "out", strip="NMR")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("method", "problem"),
    [(zipfile.ZIP_STORED, "Bad CRC-32"), (zipfile.ZIP_DEFLATED, "decompressing")],
)
def test_a_damaged_member_is_reported_by_name(tmp_path: Path, method: int, problem: str) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("good.png", b"good" * 500)
        file.writestr("bad.png", bytes(range(100)) * 50)
        start = file.getinfo("bad.png").header_offset + 30 + len("bad.png")

    # Overwrite the first bytes of the second member.
    damaged = bytearray(archive.read_bytes())
    damaged[start : start + 8] = b"\xff" * 8
    archive.write_bytes(damaged)
    with pytest.raises(FetchError, match=rf"bad\.png is damaged .*{problem}.* fetch it again"):
        extract_zip(archive, tmp_path / "out", strip=None)
    assert contents(tmp_path / "out") == {"good.png": b"good" * 500}


def test_a_truncated_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(FetchError, match=r"data\.zip: its directory is damaged"):
        extract_zip(archive, tmp_path / "out", strip=None)


def test_a_full_disk_is_reported_before_the_first_file(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: SimpleNamespace(free=300_000))
    with pytest.raises(FetchError, match="do not fit the 300000 that are free"):
        extract_zip(archive, tmp_path / "out", strip=None)
    assert contents(tmp_path / "out") == {}


def test_only_the_selected_names_are_extracted(archive: Path, tmp_path: Path) -> None:
    extract_zip(archive, tmp_path / "out", strip="NMR", only=("large.bin",))
    assert contents(tmp_path / "out") == {"large.bin": MEMBERS["NMR/large.bin"]}
    with pytest.raises(FetchError, match="holds no file under 'NMR', called table"):
        extract_zip(archive, tmp_path / "out", strip="NMR", only=("table",))


def test_folder_with_returns_the_folder_that_holds_a_file(archive: Path, tmp_path: Path) -> None:
    assert find_folder_of(archive, "empty.lst") == "NMR"
    flat = write_archive(tmp_path / "flat.zip", {"empty.lst": b""})
    assert find_folder_of(flat, "empty.lst") is None
    with pytest.raises(FetchError, match=r"holds 20 files called image\.png"):
        find_folder_of(archive, "image.png")


# The dataset of a tar archive, and other members that it may have.
SCENES = {f"images/img_{i}_0.png": os.urandom(700 + i) for i in range(20)} | {
    "metadata.npz": os.urandom(5000)
}
NOT_OF_THE_DATASET = {
    "masks/masks_0_0.png": b"x" * 600,
    "images/._img_0_0.png": b"x",
    "README": b"x",
}


extract_tar = functools.partial(untar.extract_tar, index="metadata.npz", images="images")


def write_tar(path: Path, members: dict[str, bytes], *special: tarfile.TarInfo) -> Path:
    """Write a tar archive of regular files and special members; return its path."""
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in special:
            file.addfile(member)
    return path


@pytest.mark.parametrize("top", ["", "clevr3d/", "./a/b/"])
def test_the_images_of_a_tar_and_their_metadata_are_extracted(tmp_path: Path, top: str) -> None:
    members = {f"{top}{name}": content for name, content in (NOT_OF_THE_DATASET | SCENES).items()}
    extract_tar(write_tar(tmp_path / "a.tar", members), tmp_path / "out")
    assert contents(tmp_path / "out") == SCENES


def test_a_second_call_extracts_only_what_is_missing_of_a_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a first call, one file is missing and one has the wrong size.
    archive, out = write_tar(tmp_path / "a.tar", SCENES), tmp_path / "out"
    extract_tar(archive, out)
    (out / "images" / "img_3_0.png").unlink()
    (out / "images" / "img_7_0.png").write_bytes(b"short")
    (out / ".extracting-1").write_bytes(b"of a killed call")

    # Write down the members that the next call extracts.
    extracted_names = []
    extract_member = untar._extract_member

    def record_and_extract(tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path) -> None:
        extracted_names.append(info.name)
        extract_member(tar, info, target)

    monkeypatch.setattr(untar, "_extract_member", record_and_extract)
    extract_tar(archive, out)
    assert extracted_names == ["images/img_3_0.png", "images/img_7_0.png"]
    assert contents(out) == SCENES


@pytest.mark.parametrize("name", ["../out2/images/x", "/etc/images/x", "a/../../metadata.npz"])
def test_a_member_of_a_tar_that_leads_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    archive = write_tar(tmp_path / "bad.tar", {name: b"x"})
    with pytest.raises(FetchError, match="leads out of the archive's folder") as error:
        extract_tar(archive, tmp_path / "deep" / "out")
    assert repr(name) in str(error.value)
    assert contents(tmp_path) == {"bad.tar": archive.read_bytes()}


@pytest.mark.parametrize(
    "file_type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_link_in_a_tar_is_refused(tmp_path: Path, file_type: bytes) -> None:
    link = tarfile.TarInfo("images/img_0_0.png")
    link.type, link.linkname = file_type, "/etc/passwd"
    with pytest.raises(FetchError, match=r"'images/img_0_0\.png' is a link or a special file"):
        extract_tar(write_tar(tmp_path / "bad.tar", {}, link), tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("length", [0, 100, 512, 900, 1536, 3072, 36_352])
def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    archive = write_tar(tmp_path / "a.tar", SCENES)
    content = archive.read_bytes()
    archive.write_bytes(content[:length])
    with pytest.raises(FetchError, match=r"a\.tar: damaged, cut off or no plain tar"):
        extract_tar(archive, tmp_path / "out")
    assert contents(tmp_path / "out").items() <= SCENES.items()

    # With the whole archive, the next call completes the dataset.
    archive.write_bytes(content)
    extract_tar(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == SCENES


def test_a_damaged_header_inside_a_tar_does_not_pass_for_its_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", SCENES)
    damaged = bytearray(archive.read_bytes())
    damaged[1536:1546] = b"damage" * 2  # the second member's name, so that its header is wrong
    archive.write_bytes(damaged)
    with pytest.raises(FetchError, match="no end of the archive at byte 1536"):
        extract_tar(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images/img_0_0.png": b"x"}, r"holds no metadata\.npz"),
        ({"a/metadata.npz": b"x", "b/images/y": b"x"}, "holds several datasets"),
    ],
)
def test_a_tar_without_the_dataset_is_reported(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(FetchError, match=message):
        extract_tar(write_tar(tmp_path / "a.tar", members), tmp_path / "out")


def test_a_full_disk_is_reported_before_the_first_file_of_a_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(FetchError, match="do not fit the 9 that are free"):
        extract_tar(write_tar(tmp_path / "a.tar", SCENES), tmp_path / "out")
    assert contents(tmp_path / "out") == {}
