"""Experiments as the report sees them: what train and evaluate wrote, and where runs compare.

workflow/common/stage_files.py reads the files of an experiment into a `Run`; srt/report/ makes the
tables and figures from runs.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from srt.results.curves import Curve, common_end
from srt.results.record_tables import History
from srt.results.records import Measure, Metrics, ModelTimes, Training


@dataclass(frozen=True)
class Run:
    """What train and evaluate wrote of an experiment with one seed."""

    # The content of metrics.json, training.json, history.csv and costs.json.
    metrics: Metrics
    training: Training
    history: History
    costs: ModelTimes

    # What params.yaml says of the experiment.
    model: str  # the model's name
    validation_items: int  # at most so many items are validated

    # The runs of the same experiment with other seeds.
    repeats: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.metrics.experiment

    @property
    def data(self) -> str:
        """The name of the dataset, which says so if the scenes are synthetic."""
        return f"{self.metrics.dataset}{' (synthetic)' if self.metrics.synthetic else ''}"

    @property
    def departure(self) -> str:
        """What the evaluation changed in its protocols, such as `3 input views instead of 5`.

        It is empty if nothing was changed.
        """
        changes = []
        conditions = self.metrics.conditions

        # A model may see more or fewer views than it was trained with.
        input_views, trained = conditions.input_views, conditions.trained_input_views
        if input_views != trained:
            unit = "input views" if input_views > 1 else "input view"
            changes.append(f"{input_views} {unit} instead of {trained}")

        # The cameras may have been disturbed.
        if conditions.pose_noise:
            changes.append(f"pose noise {conditions.pose_noise:g}")
        return ", ".join(changes)

    @property
    def label(self) -> str:
        """The experiment and its dataset."""
        return f"{self.name}: {self.data}"

    @property
    def psnr_by_step(self) -> Curve:
        """The PSNR of validation images over the training's steps."""
        return self.history.validation_psnr

    @property
    def psnr_by_time(self) -> Curve:
        """The PSNR of validation images over the training's seconds."""
        # No training records when each step was. All steps are taken to last equally long.
        seconds = self.training.seconds / self.training.steps
        return [(step * seconds, psnr) for step, psnr in self.psnr_by_step]

    @property
    def seeds(self) -> tuple[Run, ...]:
        """The runs of all seeds of the experiment: this one and its repeats."""
        return (self, *self.repeats)

    def mean_and_deviation(self, protocol: str, measure: Measure) -> tuple[float, float] | None:
        """Return mean and standard deviation of a measure over the seeds.

        It is None if there is only one seed, or if a run does not have the measure.
        """
        scores = [run.metrics.protocols[protocol].value(measure) for run in self.seeds]
        values = [score for score in scores if score is not None]
        if len(scores) == 1 or len(values) < len(scores):
            return None
        return round(statistics.mean(values), 6), round(statistics.stdev(values), 6)

    @property
    def gpu_hours(self) -> float | None:
        """The number of GPUs times the hours of training; None if it did not run on GPUs."""
        # `workflow.train` writes the hardware as, for example, `2 x NVIDIA H200`.
        gpus = re.match(r"(\d+) x ", self.training.hardware)
        return round(int(gpus[1]) * self.training.seconds / 3600, 6) if gpus else None


def group_by_dataset(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each dataset, by the dataset's name; synthetic ones are apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    return groups


class EqualCost(NamedTuple):
    """The steps and the seconds at which the trainings of a dataset are compared; None: nowhere."""

    steps: float | None = None
    seconds: float | None = None


def equal_cost(group: Sequence[Run]) -> EqualCost:
    """Return the largest steps and seconds that the validation curves of all runs reach.

    Args:
        group: the runs of one dataset. If all have the same model, there is nothing to compare.
    """
    if len({run.model for run in group}) == 1:
        return EqualCost()

    # Steps can always be compared, times only of trainings on the same hardware.
    steps = common_end([run.psnr_by_step for run in group])
    same_hardware = len({run.training.hardware for run in group}) == 1
    seconds = common_end([run.psnr_by_time for run in group]) if same_hardware else None
    return EqualCost(steps, seconds)
