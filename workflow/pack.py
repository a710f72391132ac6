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

# Where scenes are generated, processes render them on the GPU: so many on each, as its memory is
# shared by all of them.
RENDERERS_PER_GPU = 12


def pack_dataset(
    *, profile: str, dataset: str, raw: Path, out: Path, params: Path = Path("params.yaml")
) -> None:
    """Pack a dataset of params.yaml.

    Args:
        profile: of params.yaml.
        dataset: its name in params.yaml.
        raw: manifest.json that fetch wrote.
        out: the packed dataset's folder; its manifest.json is written last.
        params: the configuration.
    """
    check_layouts(params)
    config = load_dataset(params, dataset, profile)
    if not raw.is_file():
        raise UserError(f"{raw}: there is no such file; run `python -m workflow.fetch` first")

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
        out,
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
