"""Fetching datasets: downloads, files that a person put on disk, subsets, manifests, errors."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import PARAMS
from support.unreliable_site import make_bucket, serve

from srt.common.errors import UserError
from srt.common.files import sha256_of
from srt.config.load import load_dataset
from srt.config.schema import DatasetConfig
from srt.data.download import partial
from workflow import fetch as stage
from workflow.common import cli

NO_SUBSET = {"classes": None, "shards": None, "max_scenes": None}


def test_the_manifest_of_a_bucket_says_what_was_fetched(tmp_path: Path) -> None:
    splits = [{"name": split, "shardLengths": ["5", "5"]} for split in ("train", "test")]
    info = json.dumps({"name": "frames", "splits": splits}).encode()
    shards = [f"frames-{s}.tfrecord-0000{n}-of-00002" for s in ("train", "test") for n in (0, 1)]
    files = {"dataset_info.json": info, "features.json": b"{}"} | dict.fromkeys(shards, b"scenes")
    with serve(make_bucket(files)) as bucket:
        config = dataclasses.replace(
            load_dataset(PARAMS, "msn", "paper"),
            source=re.sub("/data/.*", "/frames/2.3.3", bucket.url),
        )
        first_shards = stage.with_subset(config, {"shards": "0"})
        manifest = stage.fetch_dataset(first_shards, "msn", 0, tmp_path)
        assert stage.fetch_dataset(first_shards, "msn", 0, tmp_path) == manifest
        whole = stage.fetch_dataset(config, "msn", 0, tmp_path)
    assert (manifest["folder"], manifest["source"]) == ("2.3.3", config.source)
    assert (manifest["files"], manifest["bytes"]) == (4, 2 * 6 + len(info) + 2)
    assert (manifest["subset"], whole["subset"]) == (NO_SUBSET | {"shards": "0"}, None)
    assert whole["files"] == 6
    assert whole["listing_sha256"] != manifest["listing_sha256"]


CLASSES = {"0001": "sofa,couch", "0002": "chair"}
METADATA = "".join(f"'{key}': {{id: '{key}', name: '{name}'}}\n" for key, name in CLASSES.items())


@pytest.fixture
def renders(tmp_path: Path) -> DatasetConfig:
    """The configuration of a zip archive in NMR's form on disk; its top folder has any name."""
    path = tmp_path / "downloads" / "renders.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("NMR_Dataset/metadata.yaml", METADATA)
        for key in CLASSES:
            file.writestr(f"NMR_Dataset/{key}/softras_test.lst", "scene\n")
            file.writestr(f"NMR_Dataset/{key}/scene/cameras.npz", b"123")
    config = load_dataset(PARAMS, "nmr", "paper")
    return dataclasses.replace(config, source=str(path), view_list=0)


def test_a_zip_on_disk_is_unpacked_beside_the_manifest(
    renders: DatasetConfig, tmp_path: Path
) -> None:
    manifest = stage.fetch_dataset(renders, "nmr", 0, tmp_path / "raw")
    root = tmp_path / "raw" / manifest["folder"]
    assert (root / "metadata.yaml").read_text() == METADATA
    assert (manifest["files"], manifest["subset"], manifest["view_list"]) == (5, None, None)
    assert len(manifest["archive_sha256"]) == 64


@pytest.mark.parametrize("classes", ["couch", "0001", "sofa,couch"])
def test_only_the_classes_of_the_subset_are_unpacked(
    renders: DatasetConfig, tmp_path: Path, classes: str
) -> None:
    config = stage.with_subset(renders, {"classes": tuple(classes.split(","))})
    manifest = stage.fetch_dataset(config, "nmr", 0, tmp_path / "raw")
    root = tmp_path / "raw" / manifest["folder"]
    assert {path.name for path in root.iterdir()} == {"metadata.yaml", "0001"}
    assert manifest["subset"] == NO_SUBSET | {"classes": ("0001",)}

    # Files of other classes do not change the manifest of the subset.
    stage.fetch_dataset(renders, "nmr", 0, tmp_path / "raw")
    assert stage.fetch_dataset(config, "nmr", 0, tmp_path / "raw") == manifest


def test_an_unknown_class_is_refused_and_the_message_lists_the_classes(
    renders: DatasetConfig, tmp_path: Path
) -> None:
    config = stage.with_subset(renders, {"classes": ("ship",)})
    with pytest.raises(UserError, match=r"'ship'.*0001 \(sofa,couch\), 0002 \(chair\)"):
        stage.fetch_dataset(config, "nmr", 0, tmp_path / "raw")


@pytest.fixture
def scenes_tar(tmp_path: Path) -> DatasetConfig:
    """The configuration of a tar archive in ObSuRF's form on disk."""
    path = tmp_path / "downloads" / "clevr3d.tar"
    path.parent.mkdir()
    write_tar(path, {"clevr3d/images/img_0_0.png": b"image", "clevr3d/metadata.npz": b"numbers"})
    config = load_dataset(PARAMS, "clevr3d", "paper")
    return dataclasses.replace(config, source=str(path), sha256=sha256_of(path)[:16])


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_the_message_for_a_missing_tar_says_where_to_get_it_and_where_to_put_it(
    tmp_path: Path,
) -> None:
    config = load_dataset(PARAMS, "clevr3d", "paper")
    with pytest.raises(UserError) as error:
        stage.fetch_dataset(config, "clevr3d", 0, tmp_path / "raw")
    path = Path.cwd() / "downloads" / "clevr3d.tar"
    assert f"get clevr3d.tar from {config.homepage} and put it at {path}" in str(error.value)
    assert config.sha256 in str(error.value)


def test_a_tar_is_read_for_its_checksum_only_once(
    scenes_tar: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = stage.fetch_dataset(scenes_tar, "clevr3d", 0, tmp_path / "raw")
    assert (manifest["files"], manifest["bytes"]) == (2, 12)
    assert manifest["archive_sha256"] == sha256_of(Path(scenes_tar.source))
    root = tmp_path / "raw" / manifest["folder"]
    assert (root / "images" / "img_0_0.png").read_bytes() == b"image"
    monkeypatch.setattr(partial, "digest_so_far", None)
    assert stage.fetch_dataset(scenes_tar, "clevr3d", 0, tmp_path / "raw") == manifest


def test_a_tar_with_another_checksum_is_refused_and_not_unpacked(
    scenes_tar: DatasetConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(scenes_tar, sha256="0" * 64)
    for _ in range(2):  # the second time, the digest comes from the file beside the data
        with pytest.raises(UserError, match="expected 0000"):
            stage.fetch_dataset(config, "clevr3d", 0, tmp_path / "raw")
    assert not (tmp_path / "raw" / "clevr3d").exists()


def test_files_of_another_archive_are_deleted(scenes_tar: DatasetConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(scenes_tar, sha256=None)
    stage.fetch_dataset(config, "clevr3d", 0, tmp_path / "raw")
    write_tar(Path(config.source), {"images/img_0_0.png": b"IMAGE", "metadata.npz": b"numbers"})
    manifest = stage.fetch_dataset(config, "clevr3d", 0, tmp_path / "raw")
    image = tmp_path / "raw" / manifest["folder"] / "images" / "img_0_0.png"
    assert image.read_bytes() == b"IMAGE"


@pytest.mark.parametrize(
    ("layout", "options"), [("clevr3d", {"shards": "0"}), ("msn", {"classes": ("chair",)})]
)
def test_a_subset_that_a_layout_does_not_have_is_refused(
    layout: str, options: dict[str, object]
) -> None:
    with pytest.raises(
        UserError, match=rf"subset\.{next(iter(options))} .*: layout .* leave it out"
    ):
        stage.with_subset(load_dataset(PARAMS, layout, "paper"), options)


def test_options_replace_only_their_values_of_the_subset() -> None:
    config = load_dataset(PARAMS, "msn", "paper")
    config = stage.with_subset(config, {"shards": "0-3", "max_scenes": 9})
    subset = stage.with_subset(config, {"shards": "7"}).subset
    assert dataclasses.asdict(subset) == NO_SUBSET | {"shards": "7", "max_scenes": 9}
    assert stage.with_subset(load_dataset(PARAMS, "msn", "paper"), {}).subset is None


def replace_writer(
    monkeypatch: pytest.MonkeyPatch, layout: str, write: Callable[..., None]
) -> None:
    """Write synthetic scenes of a layout with this function."""
    monkeypatch.setattr(stage, "load_writer", {layout: write}.get)


def test_the_command_line_writes_the_manifest_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(root: Path, **options: object) -> None:
        assert options.keys() == {"config", "name", "seed", "workers"}
        root.mkdir()
        (root / "dataset_info.json").write_text(str(options["name"]))

    replace_writer(monkeypatch, "msn", write)
    out = tmp_path / "raw" / "manifest.json"
    stage.fetch(profile="quick", name="msn", out=out, params=PARAMS, max_scenes=5)
    manifest = json.loads(out.read_text())
    assert (manifest["name"], manifest["source"], manifest["folder"]) == (
        "msn",
        "synthetic",
        "scenes",
    )
    assert manifest["subset"] == NO_SUBSET | {"max_scenes": 5}
    with pytest.raises(UserError, match="leave --shards out"):
        stage.fetch(profile="quick", name="lpips_vgg", out=out, params=PARAMS, shards="0")


def test_an_error_is_one_line_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "die_with_parent", lambda: None)
    flags = ["--shards", "20-30", "--max-scenes", "5"]
    with serve(make_bucket({})) as bucket:
        params = tmp_path / "params.yaml"
        source = bucket.url.rpartition("/")[0]
        params.write_text(re.sub(r"gs://\S+/2\.3\.3", source, PARAMS.read_text()))
        arguments = [
            "--profile",
            "paper",
            "--name",
            "msn",
            "--out",
            str(tmp_path / "manifest.json"),
        ]
        monkeypatch.setattr(sys, "argv", ["fetch", *arguments, "--params", str(params), *flags])
        with pytest.raises(SystemExit) as error:
            cli.run(stage.fetch)
    assert str(error.value).startswith(f"error: {source}: 2 of 2 files are not there")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_is_an_error_of_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(root: Path, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(root))

    replace_writer(monkeypatch, "msn", write)
    with pytest.raises(UserError, match=rf"scenes.*: {os.strerror(number)}; .* run again"):
        stage.fetch(profile="quick", name="msn", out=tmp_path / "manifest.json", params=PARAMS)
    assert not (tmp_path / "manifest.json").exists()


def test_an_unknown_name_is_refused_with_the_datasets_and_the_weight_files() -> None:
    for name, meant in (("lpips_vg", "lpips_vgg"), ("nrm", "nmr")):
        expected = rf"'{name}' is not one of nmr, .*lpips_vgg.*; did you mean {meant}\?$"
        with pytest.raises(UserError, match=expected):
            stage.fetch(profile="quick", name=name, params=PARAMS)
