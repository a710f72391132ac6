"""Published archive, synthetic scenes or a folder on disk -> raw/<dataset>/manifest.json.

The raw data lies beside the manifest (or stays where it is on disk) and is no declared output: both
tools delete those before a run, and a broken download must go on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from srt.config import SYNTHETIC, DatasetConfig, WeightsConfig
from srt.data.download import download
from srt.data.extract import extract_zip
from srt.data.synthetic_nmr import write_nmr
from srt.errors import UserError
from srt.files import write_atomically
from srt.params import load_dataset, load_params, load_weights
from srt.processes import cpus
from workflow.command import run

log = logging.getLogger(__name__)


def fetch(*, profile: str, name: str, out: Path, params: Path = Path("params.yaml")) -> None:
    """Fetches a dataset or a weight file of params.yaml.

    Args:
        profile: of params.yaml.
        name: of the dataset or weight file in params.yaml.
        out: the manifest, which says where the data lies and what it is; written last.
        params: the configuration.
    """
    known = load_params(params)  # checks the whole file before anything runs
    config = (load_weights if name in known.weights else load_dataset)(params, name, profile)
    out.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(config, WeightsConfig):
        manifest = fetch_weights(config, out.parent)
    elif config.source == SYNTHETIC:
        manifest = make_synthetic(config, known.seed, out.parent)
    elif is_address(config.source):
        manifest = fetch_archive(config, out.parent)
    else:
        manifest = use_folder(config)
    write_atomically(out, (json.dumps({"name": name, **manifest}, indent=1) + "\n").encode())


def make_synthetic(config: DatasetConfig, seed: int, folder: Path) -> dict[str, Any]:
    """Generates scenes in the dataset's published raw layout; returns the manifest."""
    assert config.synthetic is not None  # the configuration was checked
    scenes, partial = folder / "scenes", folder / ".scenes.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_nmr(
        partial,
        scenes=dataclasses.asdict(config.synthetic),
        views=config.views,
        image_size=config.image_size,
        seed=seed,
        workers=cpus(),
    )
    shutil.rmtree(scenes, ignore_errors=True)
    os.replace(partial, scenes)
    return {"source": SYNTHETIC, "seed": seed, **describe(scenes, config, scenes.name)}


def fetch_archive(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Downloads and unpacks the published archive; returns the manifest."""
    archive = folder / Path(urlsplit(config.source).path).name
    digest = download(config.source, archive, sha256=config.sha256)
    root = archive.with_suffix("")
    extract_zip(archive, root, strip=root.name)
    if isinstance(config.view_list, str) and is_address(config.view_list):
        view_list = folder / Path(urlsplit(config.view_list).path).name
        download(config.view_list, view_list, sha256=None)
        config = dataclasses.replace(config, view_list=str(view_list.resolve()))
    manifest = describe(root, config, root.name)
    if manifest["view_list"]:
        manifest["view_list"] = os.path.relpath(manifest["view_list"], folder.resolve())
    return {"source": config.source, "archive_sha256": digest, **manifest}


def use_folder(config: DatasetConfig) -> dict[str, Any]:
    """Returns the manifest of data that is on disk already; nothing is copied."""
    root = Path(config.source).expanduser().resolve()
    if not root.is_dir():
        raise UserError(
            f"{config.source}: source is neither `synthetic`, an https address nor a folder on disk"
        )
    return {"source": config.source, **describe(root, config, str(root))}


def describe(root: Path, config: DatasetConfig, folder: str) -> dict[str, Any]:
    """Returns where the data lies, how much it is, and a digest of its files' names and sizes."""
    digest, files, size = hashlib.sha256(), 0, 0
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        length = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}\t{length}\n".encode())
        files, size = files + 1, size + length
    view_list = None
    if isinstance(config.view_list, str):
        view_list = str(Path(folder) / config.view_list)
        if not (root / config.view_list).is_file():
            raise UserError(f"{root / config.view_list}: view_list names it, but it is not there")
    return {
        "folder": folder,
        "view_list": view_list,
        "files": files,
        "bytes": size,
        "listing_sha256": digest.hexdigest(),
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
    return urlsplit(source).scheme in ("http", "https")


if __name__ == "__main__":
    run(fetch)
