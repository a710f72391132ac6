"""What each job of the pipeline depends on besides its input files: values and code.

A job is one stage for one dataset, weight file or experiment. It is made again when a value that it
reads changes, or a statement of the code that it runs. Both tools take this from here: DVC from the
files that `workflow.plan` writes, Snakemake from `describe`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srt.common.code_digest import code_digests, combined_digest
from srt.common.fingerprint import fingerprint
from srt.config.load import load_dataset, load_experiments, load_params, load_weights
from srt.config.schema import SYNTHETIC, DatasetConfig, Experiment, Params
from srt.data.raw.layouts import LAYOUTS, check_layouts

PUBLISHED_SCALE = "paper"  # the profile whose training steps give the cost of a reproduction
DATASET_STAGES = ("fetch", "pack", "survey")
EXPERIMENT_STAGES = ("train", "evaluate", "render")


@dataclass(frozen=True)
class Job:
    """The values of params.yaml that a job reads, and the digest of each file of its code."""

    stage: str
    key: str  # the dataset, weight file or experiment; empty for tabulate
    values: dict[str, Any]
    code: dict[str, str]

    @property
    def file(self) -> str:
        """The job's file in the folder of the plan."""
        return f"{self.stage}/{self.key}.json" if self.key else f"{self.stage}.json"

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps({"values": self.values, "code": self.code}, indent=1, sort_keys=True)

    def describe(self) -> str:
        """Return one line that changes whenever a value or the code does."""
        return f"values {fingerprint(self.values)}, code {combined_digest(self.code)}"


def plan_jobs(params: Path, profile: str | None = None) -> dict[tuple[str, str], Job]:
    """Return all jobs of a profile, by stage and key.

    Args:
        profile: None means the profile that params.yaml names.

    Raises:
        ConfigError: a value anywhere in the file is wrong, also where no job of this profile reads
            it. Nothing runs before all of it is right.
    """
    file = load_params(params)
    check_layouts(params)
    profile = profile or file.profile
    jobs = [
        *data_jobs(file, params, profile),
        *experiment_jobs(params, profile),
        tabulate_job(params, profile),
    ]
    return {(job.stage, job.key): job for job in jobs}


def data_jobs(file: Params, params: Path, profile: str) -> Iterator[Job]:
    """Yield the jobs of datasets and weight files."""
    code = {stage: code_digests(f"workflow/{stage}.py") for stage in DATASET_STAGES}
    for name in file.datasets:
        config = load_dataset(params, name, profile)
        survey_values = {"dataset": dataclasses.asdict(config)}

        # Only the code of the dataset's own layout counts.
        values = {**survey_values, "layout": dataclasses.asdict(LAYOUTS[config.layout])}
        fetch_code, pack_code = layout_digests(config)

        # The seed makes the synthetic scenes of a dataset.
        yield Job("fetch", name, {**values, "seed": file.seed}, code["fetch"] | fetch_code)
        yield Job("pack", name, values, code["pack"] | pack_code)
        yield Job("survey", name, survey_values, code["survey"])
    for name in file.weights:
        values = dataclasses.asdict(load_weights(params, name, profile))
        yield Job("weights", name, values, code["fetch"])


def layout_digests(config: DatasetConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of the code of a dataset's layout: what fetch runs, and what pack runs."""
    # Fetching reads only the classes of a subset, and writes only synthetic scenes.
    layout = LAYOUTS[config.layout]
    reader = code_digests(module_file(layout.reader))
    fetch_code = reader if config.subset and config.subset.classes else {}
    if config.source == SYNTHETIC and layout.writer:
        fetch_code = fetch_code | code_digests(module_file(layout.writer.rpartition(".")[0]))
    return fetch_code, reader


def module_file(module: str) -> str:
    """Return the file of a module, relative to the repository."""
    return f"{module.replace('.', '/')}.py"


def experiment_jobs(params: Path, profile: str) -> Iterator[Job]:
    """Yield the jobs of experiments."""
    # A model's file stands for all that its training read, so that later stages need
    # only their own settings.
    code = {stage: code_digests(f"workflow/{stage}.py") for stage in EXPERIMENT_STAGES}
    for experiment in load_experiments(params, profile):
        values = training_values(experiment)
        yield Job("train", experiment.name, values, code["train"])
        for stage, settings in (("evaluate", experiment.evaluate), ("render", experiment.render)):
            values = dataclasses.asdict(settings)
            yield Job(stage, experiment.name, values, code[stage])


def tabulate_job(params: Path, profile: str) -> Job:
    """Return the job of the tables: they compare all experiments, also with the published scale."""
    values = {
        scale: {
            experiment.name: fingerprint(dataclasses.asdict(experiment))
            for experiment in load_experiments(params, scale)
        }
        for scale in (profile, PUBLISHED_SCALE)
    }
    return Job("tabulate", "", values, code_digests("workflow/tabulate.py"))


def training_values(experiment: Experiment) -> dict[str, Any]:
    """Return the values that a training reads."""
    return {
        "seed": experiment.seed,
        "dataset_name": experiment.dataset_name,
        "dataset": dataclasses.asdict(experiment.dataset),
        "model": dataclasses.asdict(experiment.model),
        "train": dataclasses.asdict(experiment.train),
    }


def has_gpu(driver: Path = Path("/proc/driver/nvidia")) -> bool:
    """Return whether this machine has a GPU that trainings would use."""
    return driver.exists()
