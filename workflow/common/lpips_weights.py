"""The LPIPS distances that an evaluation measures: those whose weights were fetched."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from srt.common.distributed import Processes
from srt.common.errors import UserError
from srt.evaluation.lpips import Lpips, LpipsNetwork
from workflow.common.default_paths import weights_manifest

# The weight file and the network of each distance, by the distance's name in metrics.json.
LPIPS = {"lpips": "lpips_vgg", "lpips_alex": "lpips_alex"}
NETWORKS: dict[str, LpipsNetwork] = {"lpips": "vgg", "lpips_alex": "alex"}

log = logging.getLogger(__name__)


def lpips_manifests(weights: Path, **given: Path | None) -> dict[str, Path | None]:
    """Return the manifest of each distance, None where its weights were not fetched.

    Args:
        weights: the folder that has a folder for each weight file.
        given: manifests by the name of their distance, to be used in place of those in `weights`.
    """
    manifests: dict[str, Path | None] = {}
    for name, file in LPIPS.items():
        default = weights_manifest(weights, file)
        manifests[name] = given.get(name) or (default if default.is_file() else None)
    return manifests


def load_distances(manifests: Mapping[str, Path | None], processes: Processes) -> dict[str, Lpips]:
    """Return the distances to measure, by name, and log which are not measured.

    Args:
        manifests: by the name of their distance. A profile may use no weights for a network; the
            manifest says so, and this distance is not measured.
    """
    distances = {}
    for name, manifest in manifests.items():
        weights = weights_file(manifest) if manifest else None
        if weights:
            distances[name] = Lpips(weights, NETWORKS[name]).to(processes.device)

    # One process says what the results will lack.
    missing = [name for name in manifests if name not in distances]
    if missing and processes.main:
        log.info("not measured, because there are no weights: %s", ", ".join(missing))
    return distances


def weights_file(manifest: Path) -> Path | None:
    """Return the file of weights that a manifest describes; None if its profile uses none."""
    if not manifest.is_file():
        raise UserError(f"{manifest}: there is no such file; run `python -m workflow.fetch` first")
    file = json.loads(manifest.read_text())["file"]
    return None if file is None else manifest.parent / file
