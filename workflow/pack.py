"""Raw -> packed: convert a dataset to the one format that training reads, and check it.

The manifest of the packed dataset says where its data came from.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from srt.common.devices import count_cpus
from srt.common.errors import UserError
from srt.config.load import load_dataset
from srt.config.schema import DatasetConfig, SubsetConfig
from srt.data.packed.writer import pack
from srt.data.raw.layouts import LAYOUTS, check_layouts
from workflow.common.cli import run
from workflow.common.default_paths import load_default_paths

# Where scenes are generated, processes render them on the GPU: so many on each, as its memory is
# shared by all of them.
RENDERERS_PER_GPU = 12


def pack_dataset(
    *,
    dataset: str,
    profile: str | None = None,
    raw: Path | None = None,
    out: Path | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Pack a dataset of params.yaml.

        python -m workflow.pack --dataset nmr

    Args:
        dataset: its name in params.yaml.
        profile: of params.yaml; by default the one that the file names.
        raw: manifest.json that fetch wrote; by default data/<profile>/raw/<dataset>/manifest.json.
        out: the packed dataset's folder, by default data/<profile>/packed/<dataset>; its
            manifest.json is written last.
        params: the configuration.
    """
    check_layouts(params)
    config = load_dataset(params, dataset, profile)
    paths = load_default_paths(profile, params)
    raw = raw or paths.raw(dataset)
    if not raw.is_file():
        raise UserError(
            f"{raw}: there is no such file; run `python -m workflow.fetch --profile {paths.profile}"
            f" --name {dataset}` first"
        )

    # The manifest says which subset was fetched: options of fetch may have changed that of
    # params.yaml.
    manifest = json.loads(raw.read_text())
    if manifest["subset"] is not None:
        config = dataclasses.replace(config, subset=SubsetConfig(**manifest["subset"]))

    # Paths in the manifest are relative to its folder.
    view_list = manifest["view_list"]
    pack(
        raw.parent / manifest["folder"],
        raw.parent / view_list if view_list else None,
        config,
        out or paths.packed(dataset),
        provenance=manifest,
        workers=count_workers(config),
    )


def count_workers(config: DatasetConfig) -> int:
    """Return how many processes pack the dataset: one on each core, or fewer if they share GPUs."""
    if not LAYOUTS[config.layout].renders_when_packed:
        return count_cpus()

    # Only scenes that are rendered while they are packed need GPUs.
    import torch

    from workflow.common.gpus import claim_gpus

    claim_gpus()
    return min(count_cpus(), RENDERERS_PER_GPU * max(1, torch.cuda.device_count()))


if __name__ == "__main__":
    run(pack_dataset)
