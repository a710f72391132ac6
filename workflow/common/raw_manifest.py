"""What the manifest of a raw dataset says: where its files are, how many, and which subset."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from srt.common.errors import UserError
from srt.config.schema import DatasetConfig
from srt.data.download.bucket import https_address
from srt.data.download.http import download
from srt.data.raw.common import chosen_classes
from srt.data.raw.layouts import LAYOUTS, read_classes


def describe_files(root: Path, config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Return where raw data is, how much of it the configuration uses, and a digest of that.

    Args:
        root: the top folder of the data.
        folder: of the manifest. Paths in the manifest are relative to it, if the data is in it.
    """
    # A subset may name a class by its id or its name; folders have the id.
    config = with_class_ids(root, config)
    files = list_files(root, config.subset.classes if config.subset else None)

    # The path stays valid when the whole folder is moved.
    data_folder = root.name if root.parent == folder else str(root)
    return {
        "folder": data_folder,
        "view_list": fetch_view_list(root, config, folder, data_folder),
        **count_files(files),
        "subset": subset_values(config),
    }


def list_files(root: Path, classes: Collection[str] | None) -> list[tuple[str, int]]:
    """Return the path and the size of each file that belongs to these classes, or to all."""
    # Files at the top belong to every subset; each class has a folder.
    files = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        relative = path.relative_to(root)
        if classes is None or len(relative.parts) == 1 or relative.parts[0] in classes:
            files.append((relative.as_posix(), path.stat().st_size))
    return files


def with_class_ids(root: Path, config: DatasetConfig) -> DatasetConfig:
    """Return the configuration with the ids of the subset's classes in place of their names."""
    if config.subset is None or config.subset.classes is None:
        return config
    index = root / LAYOUTS[config.layout].index
    classes = chosen_classes(read_classes(root, config.layout), config, index)
    subset = dataclasses.replace(config.subset, classes=tuple(classes))
    return dataclasses.replace(config, subset=subset)


def count_files(files: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Return the number of files, their bytes, and a digest of the list.

    Args:
        files: name, size and, where the source has it, checksum of each file.
    """
    # A digest of names and sizes costs nothing, and differs wherever a file is missing or cut off.
    rows = sorted(files)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    return {
        "files": len(rows),
        "bytes": sum(row[1] for row in rows),
        "listing_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def fetch_view_list(
    root: Path, config: DatasetConfig, folder: Path, data_folder: str
) -> str | None:
    """Return the path of the file that lists the source views of test scenes, or None.

    It is downloaded to `folder` if params.yaml gives its address; else it is in the dataset.
    """
    # The list may also be a number, the view that is the source of all scenes, or absent.
    if not isinstance(config.view_list, str):
        return None
    if is_address(config.view_list):
        name = Path(urlsplit(config.view_list).path).name
        download(https_address(config.view_list), folder / name, sha256=None)
        return name
    if not (root / config.view_list).is_file():
        raise UserError(f"{root / config.view_list}: view_list names it, but it is not there")
    return str(Path(data_folder) / config.view_list)


def subset_values(config: DatasetConfig) -> dict[str, Any] | None:
    """Return the subset of the configuration as the manifest has it."""
    return dataclasses.asdict(config.subset) if config.subset else None


def is_address(source: str) -> bool:
    """Return whether a source is to be downloaded."""
    return urlsplit(source).scheme in ("http", "https", "gs")
