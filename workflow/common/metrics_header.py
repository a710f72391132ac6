"""The head of metrics.json: what is measured, under which conditions, and a fingerprint of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from srt.common.files import sha256_of
from srt.common.fingerprint import fingerprint
from srt.config.schema import Experiment
from srt.results.records import MeasuringConditions, MetricsHeader


def metrics_header(
    config: Experiment, split: str, files: Mapping[str, Path | None]
) -> MetricsHeader:
    """Return the head of metrics.json, before anything is measured.

    Its fingerprint changes with the content of the files and with every setting of the
    measurement. workflow/tools/status.py compares it to find results that are out of date.

    Args:
        files: the model, the data's manifest and the manifests of LPIPS, by name; None for a file
            that is not used.
    """
    # How many scenes the picture shows does not change what is measured.
    digests = {name: path and sha256_of(path) for name, path in files.items()}
    conditions = measuring_conditions(config)
    settings = dataclasses.asdict(config.evaluate)
    del settings["comparison_scenes"]
    measured = {**digests, **settings, **dataclasses.asdict(conditions), "split": split}
    return MetricsHeader(
        experiment=config.name,
        profile=config.profile,
        dataset=config.dataset_name,
        synthetic=config.synthetic,
        split=split,
        conditions=conditions,
        fingerprint=fingerprint(measured),
    )


def measuring_conditions(config: Experiment) -> MeasuringConditions:
    """Return the input views and the pose noise, which may differ from those of the training."""
    trained_views = config.dataset.input_views
    return MeasuringConditions(
        input_views=config.evaluate.input_views or trained_views,
        trained_input_views=trained_views,
        pose_noise=config.evaluate.pose_noise,
    )
