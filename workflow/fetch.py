"""Published data, synthetic scenes or data on disk -> raw/<dataset>/manifest.json.

The raw data lies beside the manifest (or stays where it is on disk) and is no declared output: both
tools delete those before a run, and a broken download must go on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from srt.common.devices import cpus
from srt.common.errors import UserError
from srt.common.files import CANNOT_WRITE, write_atomically
from srt.config.load import load_dataset, load_params, load_weights
from srt.config.schema import SYNTHETIC, DatasetConfig, SubsetConfig, WeightsConfig
from srt.data.download.bucket import fetch_bucket, https_address
from srt.data.download.http import download
from srt.data.download.partial import remembered_sha256
from srt.data.download.untar import extract_tar
from srt.data.download.unzip import extract_zip, folder_with
from srt.data.raw.nmr import chosen_classes, read_classes
from workflow.common.cli import run

INDEX = {"nmr": "metadata.yaml", "obsurf": "metadata.npz", "msn": "dataset_info.json"}


def fetch(
    *,
    profile: str,
    name: str,
    out: Path,
    params: Path = Path("params.yaml"),
    shards: str | None = None,
    classes: str | None = None,
    max_scenes: int | None = None,
) -> None:
    """Fetches a dataset or a weight file of params.yaml.

    Args:
        profile: of params.yaml.
        name: of the dataset or weight file in params.yaml.
        out: the manifest, which says where the data lies and what it is; written last.
        params: the configuration.
        shards: of each split, as `0-3,7`; only these are fetched (layout msn).
        classes: ids or names with commas between; only these are unpacked (layout nmr).
        max_scenes: of each split; fewer shards are fetched (layout msn), fewer scenes packed (all).
    """
    known = load_params(params)  # checks the whole file before anything runs
    names = tuple(part.strip() for part in classes.split(",")) if classes else None
    flags = {"shards": shards, "classes": names, "max_scenes": max_scenes}
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        if name in known.weights:
            if given:
                raise UserError(f"{name}: a weight file has no subset; leave {_flags(given)} out")
            manifest = fetch_weights(load_weights(params, name, profile), out.parent)
        else:
            config = with_subset(load_dataset(params, name, profile), given)
            manifest = fetch_dataset(config, name, known.seed, out.parent)
        text = json.dumps({"name": name, **manifest}, indent=1)
        write_atomically(out, f"{text}\n".encode())
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        place = error.filename or out.parent
        raise UserError(f"{place}: {error.strerror}; mend that, then run again to go on") from error


def with_subset(config: DatasetConfig, given: dict[str, Any]) -> DatasetConfig:
    """Returns the configuration with other fields of its subset, which must fit its layout."""
    fields = dataclasses.asdict(config.subset) if config.subset else {}
    fields = {"classes": None, "shards": None, "max_scenes": None} | fields | given
    for key, layout in (("classes", "nmr"), ("shards", "msn")):
        if fields[key] is not None and config.layout != layout:
            raise UserError(
                f"subset.{key} {_text(fields[key])}: layout {config.layout} has no {key}; leave it"
                " out"
            )
    chosen = any(value is not None for value in fields.values())
    return dataclasses.replace(config, subset=SubsetConfig(**fields) if chosen else None)


def fetch_dataset(config: DatasetConfig, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Brings raw data into `folder`, unless it lies elsewhere already; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(config.source)
    if config.source == SYNTHETIC:
        return make_synthetic(config, name, seed, folder)
    if config.layout == "msn" and is_address(config.source):
        return fetch_shards(config, folder)
    if is_address(config.source) or source.suffix in (".zip", ".tar"):
        return fetch_archive(config, folder)
    if not source.expanduser().is_dir():
        raise UserError(f"{_nothing_at(config)}; or set source to `synthetic` or to an address")
    return {"source": config.source, **describe(source.expanduser().resolve(), config, folder)}


def make_synthetic(config: DatasetConfig, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Generates scenes in the dataset's published raw layout; returns the manifest."""
    scenes, partial = folder / "scenes", folder / ".scenes.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write = synthetic_writer(config.layout)
    write(partial, config=config, name=name, seed=seed, workers=cpus())
    shutil.rmtree(scenes, ignore_errors=True)
    os.replace(partial, scenes)
    return {"source": SYNTHETIC, "seed": seed, **describe(scenes, config, folder)}


def synthetic_writer(layout: str) -> Callable[..., None]:
    """Returns what writes synthetic scenes in a raw layout."""
    if layout == "nmr":
        from srt.data.synthetic.as_nmr import write_nmr

        return write_nmr
    if layout == "obsurf":
        from srt.data.synthetic.as_obsurf import write_obsurf

        return write_obsurf
    if layout == "generated":
        from srt.data.raw.generated import write_generated

        return write_generated
    from srt.data.synthetic.as_msn import write_msn

    return write_msn


def fetch_shards(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Downloads a bucket's shards that hold the wanted scenes; returns the manifest."""
    root = folder / Path(urlsplit(config.source).path).name  # the version's number
    files = fetch_bucket(config, root)
    lines = ((file.name, file.size, file.checksum) for file in files)
    return {
        "source": config.source,
        "folder": root.name,
        "view_list": None,
        **listing(lines),
        "subset": _subset(config),
    }


def fetch_archive(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Unpacks the archive, downloaded or placed on disk by a person; returns the manifest.

    A tar is unpacked whole, and a zip but for the classes that are not in the subset: `max_scenes`
    makes only the packed dataset smaller.
    """
    address = is_address(config.source)
    archive = Path(urlsplit(config.source).path if address else config.source).expanduser()
    record, computed = folder / f"{archive.name}.sha256.json", None
    if address:
        archive = folder / archive.name
        if not archive.exists():
            computed = download(https_address(config.source), archive, sha256=config.sha256)
    elif not archive.is_file():
        raise UserError(_nothing_at(config))
    digest = remembered_sha256(archive, record, computed)
    if not digest.startswith((config.sha256 or "").lower()):
        raise UserError(
            f"{archive}: sha256 is {digest}, expected {config.sha256}; delete it and get it again"
        )
    root = folder / archive.stem
    _forget_another_archive(root, digest)
    if archive.suffix == ".tar":
        extract_tar(archive, root)
    else:
        unpack_zip(archive, root, config)
    return {
        "source": config.source,
        "archive_sha256": digest,
        **describe(root, config, folder),
    }


def unpack_zip(archive: Path, root: Path, config: DatasetConfig) -> None:
    """Unpacks the dataset, or only the subset's classes, into `root`."""
    index = INDEX[config.layout]
    top = folder_with(archive, index)
    only = None
    if config.subset and config.subset.classes:
        extract_zip(archive, root, strip=top, only=(index,))
        only = (index, *chosen_classes(read_classes(root), config, archive))
    extract_zip(archive, root, strip=top, only=only)


def _forget_another_archive(root: Path, digest: str) -> None:
    """Deletes what was unpacked from another archive: of files, the lengths may agree by chance."""
    marker = root.with_name(f".{root.name}.unpacked")
    if marker.is_file() and marker.read_text() != digest:
        shutil.rmtree(root, ignore_errors=True)
    write_atomically(marker, digest.encode())


def with_class_ids(root: Path, config: DatasetConfig) -> DatasetConfig:
    """Returns the configuration with ids for the subset's classes; DataError for unknown ones."""
    if config.subset is None or config.subset.classes is None:
        return config
    classes = chosen_classes(read_classes(root), config, root / INDEX["nmr"])
    subset = dataclasses.replace(config.subset, classes=tuple(classes))
    return dataclasses.replace(config, subset=subset)


def describe(root: Path, config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Returns where the data lies, seen from `folder`, how much of it is wanted, and a digest."""
    config = with_class_ids(root, config)
    classes = config.subset.classes if config.subset else None
    files = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        place = path.relative_to(root)
        if classes is None or len(place.parts) == 1 or place.parts[0] in classes:
            files.append((place.as_posix(), path.stat().st_size))
    where = root.name if root.parent == folder else str(root)
    return {
        "folder": where,
        "view_list": _view_list(root, config, folder, where),
        **listing(files),
        "subset": _subset(config),
    }


def listing(files: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Returns number, bytes and a digest of files given as name, size and perhaps checksum."""
    rows = sorted(files)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    return {
        "files": len(rows),
        "bytes": sum(row[1] for row in rows),
        "listing_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def fetch_weights(config: WeightsConfig, folder: Path) -> dict[str, Any]:
    """Downloads a weight file, or none if the profile uses none; returns the manifest."""
    if config.source is None:
        return {"source": None, "file": None}
    file = Path(urlsplit(config.source).path).name
    digest = download(config.source, folder / file, sha256=config.sha256)
    return {"source": config.source, "file": file, "sha256": digest}


def is_address(source: str) -> bool:
    """Returns whether a source is to be downloaded."""
    return urlsplit(source).scheme in ("http", "https", "gs")


def _view_list(root: Path, config: DatasetConfig, folder: Path, where: str) -> str | None:
    """Returns the place of the file with the source views, fetched if it has an address."""
    if not isinstance(config.view_list, str):
        return None
    if is_address(config.view_list):
        name = Path(urlsplit(config.view_list).path).name
        download(https_address(config.view_list), folder / name, sha256=None)
        return name
    if not (root / config.view_list).is_file():
        raise UserError(f"{root / config.view_list}: view_list names it, but it is not there")
    return str(Path(where) / config.view_list)


def _nothing_at(config: DatasetConfig) -> str:
    place = Path(config.source).expanduser().absolute()
    text = f"{config.source}: there is nothing at this place of params.yaml's source"
    if config.homepage:
        text += f"; get {place.name} from {config.homepage} and put it at {place}"
    return text + (f" (sha256 {config.sha256})" if config.sha256 else "")


def _subset(config: DatasetConfig) -> dict[str, Any] | None:
    return dataclasses.asdict(config.subset) if config.subset else None


def _flags(keys: Iterable[str]) -> str:
    return ", ".join(f"--{key.replace('_', '-')}" for key in keys)


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    run(fetch)
