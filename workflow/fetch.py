"""Source -> raw: bring a dataset or a weight file here, and describe it in a manifest.

A source is a published dataset, data on disk, or `synthetic`: scenes that are generated here in a
published layout. The only output that DVC and Snakemake know is raw/<dataset>/manifest.json. Both
tools delete outputs before they run a stage again; the data beside the manifest stays, so that a
broken download goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from srt.common.devices import count_cpus
from srt.common.errors import UserError
from srt.common.files import CANNOT_WRITE, write_atomically
from srt.config.load import load_dataset, load_params, load_weights
from srt.config.schema import SYNTHETIC, DatasetConfig, SubsetConfig
from srt.config.strict import check_name
from srt.data.download.bucket import fetch_bucket, https_address
from srt.data.download.http import download
from srt.data.download.partial import cached_sha256
from srt.data.download.untar import extract_tar
from srt.data.download.unzip import extract_zip, find_folder_of
from srt.data.raw.common import chosen_classes
from srt.data.raw.layouts import (
    LAYOUTS,
    check_layout,
    check_layouts,
    load_writer,
    read_classes,
)
from workflow.common.backbone_files import fetch_weights
from workflow.common.cli import run
from workflow.common.default_paths import load_default_paths, weights_manifest
from workflow.common.raw_manifest import (
    count_files,
    describe_files,
    is_address,
    subset_values,
)


def fetch(
    *,
    name: str,
    profile: str | None = None,
    out: Path | None = None,
    params: Path = Path("params.yaml"),
    shards: str | None = None,
    classes: str | None = None,
    max_scenes: int | None = None,
) -> None:
    """Fetch a dataset or a weight file of params.yaml.

        python -m workflow.fetch --name nmr

    Args:
        name: of the dataset or weight file in params.yaml.
        profile: of params.yaml; by default the one that the file names.
        out: the manifest, by default data/<profile>/{raw,weights}/<name>/manifest.json.
        params: the configuration.
        shards: of each split, like 0-3,7; only these are fetched (layout msn).
        classes: ids or names with commas between; only these are unpacked (layout nmr).
        max_scenes: of each split; fewer shards are fetched (layout msn), fewer scenes packed (all).
    """
    # Whatever is wrong in params.yaml is named now, not hours later.
    file = load_params(params)
    check_layouts(params)
    check_name(name, [*file.datasets, *file.weights], f"{params}: dataset or weight file")
    paths = load_default_paths(profile, params)
    is_weights = name in file.weights
    out = out or (weights_manifest(paths.weights, name) if is_weights else paths.raw(name))

    # A part of a dataset is enough to try things out.
    class_names = tuple(text.strip() for text in classes.split(",")) if classes else None
    options = {"shards": shards, "classes": class_names, "max_scenes": max_scenes}
    options = {key: value for key, value in options.items() if value is not None}

    with explain_full_disk(out.parent):
        if is_weights:
            refuse_options(name, options)
            manifest = fetch_weights(load_weights(params, name, profile), name, out.parent)
        else:
            config = with_subset(load_dataset(params, name, profile), options)
            manifest = fetch_dataset(config, name, file.seed, out.parent)
        text = json.dumps({"name": name, **manifest}, indent=1)
        write_atomically(out, f"{text}\n".encode())


@contextlib.contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Say what to do when files cannot be written: a full disk is no error of the program."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        path = error.filename or folder
        raise UserError(f"{path}: {error.strerror}; solve this, then run again to go on") from error


def refuse_options(name: str, options: dict[str, Any]) -> None:
    """Raise UserError if there are options for a subset of a weight file."""
    if options:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in options)
        raise UserError(f"{name}: a weight file has no subset; leave {flags} out")


def with_subset(config: DatasetConfig, options: dict[str, Any]) -> DatasetConfig:
    """Return the configuration with the options in place of these values of its subset."""
    values = dataclasses.asdict(config.subset) if config.subset else {}
    values = {"classes": None, "shards": None, "max_scenes": None} | values | options

    # No subset and a subset without limits mean the same, but only the first is written like that.
    limited = any(value is not None for value in values.values())
    config = dataclasses.replace(config, subset=SubsetConfig(**values) if limited else None)
    check_layout(config)
    return config


def fetch_dataset(config: DatasetConfig, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Bring raw data into `folder`, unless it is a folder elsewhere; return the manifest.

    Args:
        seed: of synthetic scenes.
        folder: of the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config.source == SYNTHETIC:
        return make_synthetic(config, name, seed, folder)
    if LAYOUTS[config.layout].bucket and is_address(config.source):
        return fetch_shards(config, folder)
    if is_address(config.source) or Path(config.source).suffix in (".zip", ".tar"):
        return fetch_archive(config, folder)

    return describe_folder(config, folder)


def describe_folder(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Return the manifest of data in a folder on disk, which stays where it is."""
    root = Path(config.source).expanduser()
    if not root.is_dir():
        raise UserError(f"{nothing_at_source(config)}; or set source to `synthetic` or an address")
    return {"source": config.source, **describe_files(root.resolve(), config, folder)}


def make_synthetic(config: DatasetConfig, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Generate scenes in the dataset's published raw layout; return the manifest."""
    # The scenes get their name when all of them are written.
    scenes = folder / "scenes"
    partial = folder / ".scenes.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write = load_writer(config.layout)
    write(partial, config=config, name=name, seed=seed, workers=count_cpus())

    # Replace those of an earlier run.
    shutil.rmtree(scenes, ignore_errors=True)
    os.replace(partial, scenes)
    return {"source": SYNTHETIC, "seed": seed, **describe_files(scenes, config, folder)}


def fetch_shards(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Download those shards of a bucket that have the subset's scenes; return the manifest."""
    # The last part of the address is the version's number.
    root = folder / Path(urlsplit(config.source).path).name
    files = fetch_bucket(config, root)
    return {
        "source": config.source,
        "folder": root.name,
        "view_list": None,
        **count_files((file.name, file.size, file.checksum) for file in files),
        "subset": subset_values(config),
    }


def fetch_archive(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Unpack an archive, which is downloaded or was put on disk by a person; return the manifest.

    Of a zip, only the classes of the subset are unpacked; of a tar, all scenes. `max_scenes` makes
    only the packed dataset smaller.
    """
    # The digest of a large file takes minutes, so it is kept in a file beside the data.
    archive, downloaded_sha256 = find_archive(config, folder)
    record = folder / f"{archive.name}.sha256.json"
    digest = cached_sha256(archive, record, downloaded_sha256)
    refuse_other_digest(archive, digest, config.sha256)

    # Unpack it, or what an earlier run has not unpacked.
    root = folder / archive.stem
    delete_files_of_another_archive(root, digest)
    layout = LAYOUTS[config.layout]
    if archive.suffix == ".tar":
        assert layout.tar_folder is not None  # the layout was checked to be in tars
        extract_tar(archive, root, layout.index, layout.tar_folder)
    else:
        unpack_zip(archive, root, config)
    return {
        "source": config.source,
        "archive_sha256": digest,
        **describe_files(root, config, folder),
    }


def refuse_other_digest(archive: Path, digest: str, expected: str | None) -> None:
    """Raise UserError if an archive does not have the digest that params.yaml gives, if any."""
    if not digest.startswith((expected or "").lower()):
        raise UserError(
            f"{archive}: sha256 is {digest}, expected {expected}; delete it and get it again"
        )


def find_archive(config: DatasetConfig, folder: Path) -> tuple[Path, str | None]:
    """Return the archive's path, and its sha256 if it was downloaded just now."""
    # Some sites ask for a login, so a person may have put the archive on disk.
    if not is_address(config.source):
        archive = Path(config.source).expanduser()
        if not archive.is_file():
            raise UserError(nothing_at_source(config))
        return archive, None

    archive = folder / Path(urlsplit(config.source).path).name
    if archive.exists():
        return archive, None
    return archive, download(https_address(config.source), archive, sha256=config.sha256)


def unpack_zip(archive: Path, root: Path, config: DatasetConfig) -> None:
    """Unpack the dataset, or only the subset's classes, into `root`."""
    # The archive's own top folder has any name, but it holds the index.
    index = LAYOUTS[config.layout].index
    top = find_folder_of(archive, index)

    # The index, which is unpacked first, says which folder a class has.
    members = None
    if config.subset and config.subset.classes:
        extract_zip(archive, root, strip=top, only=(index,))
        members = (index, *chosen_classes(read_classes(root, config.layout), config, archive))
    extract_zip(archive, root, strip=top, only=members)


def delete_files_of_another_archive(root: Path, digest: str) -> None:
    """Delete what was unpacked from an archive with another digest, and note this one.

    Unpacking goes on after a kill by the lengths of files, which may agree by chance.
    """
    # The marker has the digest of the archive that was unpacked here.
    marker = root.with_name(f".{root.name}.unpacked")
    if marker.is_file() and marker.read_text() != digest:
        shutil.rmtree(root, ignore_errors=True)
    write_atomically(marker, digest.encode())


def nothing_at_source(config: DatasetConfig) -> str:
    """Return the message for data that a person must get, and from where."""
    # The dataset's homepage has the file where no program can get it.
    path = Path(config.source).expanduser().absolute()
    text = f"{config.source}: the source in params.yaml does not exist on this machine"
    if config.homepage:
        text += f"; get {path.name} from {config.homepage} and put it at {path}"
    if config.sha256:
        text += f" (sha256 {config.sha256})"
    return text


if __name__ == "__main__":
    run(fetch)
