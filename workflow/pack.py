"""Raw -> packed: one format for every dataset, checked, with its provenance inside."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from srt.common.devices import cpus
from srt.common.errors import UserError
from srt.config.load import load_dataset
from srt.config.schema import SubsetConfig
from srt.data.packed.writer import pack
from workflow.common.cli import run

RENDERING = 12  # processes at most, of each GPU, where scenes are rendered: all use its memory


def pack_dataset(
    *, profile: str, dataset: str, raw: Path, out: Path, params: Path = Path("params.yaml")
) -> None:
    """Packs a dataset of params.yaml.

    Args:
        profile: of params.yaml.
        dataset: its name in params.yaml.
        raw: manifest.json that fetch wrote.
        out: the packed dataset's folder; its manifest.json is written last.
        params: the configuration.
    """
    config = load_dataset(params, dataset, profile)
    if not raw.is_file():
        raise UserError(f"{raw}: there is no such file; run `python -m workflow.fetch` first")
    manifest = json.loads(raw.read_text())
    if manifest["subset"] is not None:  # what was fetched, which command-line options decide too
        config = dataclasses.replace(config, subset=SubsetConfig(**manifest["subset"]))
    view_list, workers = manifest["view_list"], cpus()
    if config.layout == "generated":
        import torch

        from workflow.common.gpus import claim_gpus

        claim_gpus()
        workers = min(workers, RENDERING * max(1, torch.cuda.device_count()))
    pack(
        raw.parent / manifest["folder"],
        raw.parent / view_list if view_list else None,
        config,
        out,
        provenance=manifest,
        workers=workers,
    )


if __name__ == "__main__":
    run(pack_dataset)
