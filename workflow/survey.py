"""Packed -> survey: what a dataset holds, as statistics.json, scenes.png and cameras.png."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from srt.common.files import sha256_of
from srt.config.load import load_dataset
from srt.config.schema import SPLITS, SYNTHETIC
from srt.data.packed.reader import Scenes, read_split_header
from srt.report.dataset_summary import camera_figure, contact_sheet, split_summary
from srt.results.record_files import write_record
from srt.results.records import SplitSurvey, Survey
from srt.tracking.tracker import open_tracker
from srt.visualization.pictures import write_picture
from workflow.common.cli import run
from workflow.common.default_paths import load_default_paths
from workflow.common.provenance import run_tags
from workflow.common.tracked_run import ROOT

PICTURES = ("scenes.png", "cameras.png")


def survey(
    *,
    dataset: str,
    profile: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    params: Path = Path("params.yaml"),
) -> None:
    """Survey a packed dataset: count its scenes, and picture some scenes and all cameras.

        python -m workflow.survey --dataset nmr

    Args:
        dataset: its name in params.yaml.
        profile: of params.yaml; by default the one that the file names.
        data: the packed dataset's folder, by default data/<profile>/packed/<dataset>.
        out: the folder of statistics.json (written last) and the pictures, by default
            reports/<profile>/datasets/<dataset>.
        params: the configuration.
    """
    config = load_dataset(params, dataset, profile)
    paths = load_default_paths(profile, params)
    data, out = data or paths.packed(dataset), out or paths.surveys / dataset
    splits = {split: Scenes(data / split, torch.device("cpu")) for split in SPLITS}

    # The title says where scenes are synthetic, so that nobody takes them for the published ones.
    synthetic = config.source == SYNTHETIC
    title = f"{dataset} (synthetic)" if synthetic else dataset
    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "scenes.png", contact_sheet(splits))
    write_picture(out / "cameras.png", camera_figure(splits, title))

    # Whoever finds the statistics finds both pictures as well.
    summary = Survey(
        dataset=dataset,
        profile=paths.profile,
        synthetic=synthetic,
        source=config.source,
        splits=summarise_splits(splits, data),
    )
    write_record(out / "statistics.json", summary)
    log_survey(paths.profile, dataset, data, out)


def summarise_splits(splits: Mapping[str, Scenes], data: Path) -> dict[str, SplitSurvey]:
    """Return for each split the number of its scenes, and sums over its pixels and cameras."""
    summaries = {}
    for split, scenes in splits.items():
        summaries[split] = split_summary(scenes, read_split_header(data / split))
    return summaries


def log_survey(profile: str, dataset: str, data: Path, out: Path) -> None:
    """Add the survey to MLflow, where each packed dataset has one run."""
    # A dataset that is packed again from other data has another digest, and thus a run of its own.
    digest = sha256_of(data / "manifest.json")
    tracker = open_tracker(
        ROOT / "ckpt" / profile / "datasets" / dataset / digest[:12] / "tracking",
        root=ROOT,
        experiment=f"{profile}: datasets",
        run_name=dataset,
        description=f"The packed dataset {dataset}, profile {profile}",
        tags={"profile": profile, "dataset": dataset} | run_tags("survey"),
        parameters={"dataset": dataset, "data": digest},
    )
    for name in ("statistics.json", *PICTURES):
        tracker.log_artifact(out / name, "")
    tracker.close("FINISHED")


if __name__ == "__main__":
    run(survey)
