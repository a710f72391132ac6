"""What train and evaluate wrote of experiments, and where trainings of one dataset compare."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from srt.results.curves import Curve, reached_by_all


@dataclass(frozen=True)
class Run:
    """What train and evaluate wrote of an experiment."""

    metrics: dict[str, Any]
    training: dict[str, Any]
    history: dict[str, Curve]
    costs: dict[str, Any]
    model: str  # its name in params.yaml
    validation_items: int  # at most, that params.yaml has it validated on
    repeats: tuple[Run, ...] = ()  # the same from other seeds

    @property
    def name(self) -> str:
        return str(self.metrics["experiment"])

    @property
    def data(self) -> str:
        return f"{self.metrics['dataset']}{' (synthetic)' if self.metrics['synthetic'] else ''}"

    @property
    def departure(self) -> str:
        """What the evaluation changed in its protocols, e.g. `3 input views instead of 5`."""
        conditions = self.metrics["conditions"]
        given, trained = conditions["input_views"], conditions["trained_input_views"]
        changes = [f"{given} input view{'s' * (given > 1)} instead of {trained}"]
        changes = changes if given != trained else []
        if conditions["pose_noise"]:
            changes.append(f"pose noise {conditions['pose_noise']:g}")
        return ", ".join(changes)

    @property
    def label(self) -> str:
        return f"{self.name}: {self.data}"

    @property
    def by_step(self) -> Curve:
        """The PSNR on validation scenes after so many steps."""
        return self.history["validation_psnr"]

    @property
    def by_time(self) -> Curve:
        """The same after so many seconds, which are spread evenly over the steps: no training
        writes when each step was."""
        seconds = self.training["seconds"] / self.training["steps"]
        return [(step * seconds, psnr) for step, psnr in self.by_step]

    @property
    def seeds(self) -> tuple[Run, ...]:
        """The run of each seed."""
        return (self, *self.repeats)

    def over_seeds(self, protocol: str, measure: str) -> tuple[float, float] | None:
        """Returns mean and standard deviation over the seeds; None of one, or if not measured."""
        values = [run.metrics["protocols"][protocol][measure] for run in self.seeds]
        if len(values) == 1 or None in values:
            return None
        return round(statistics.mean(values), 6), round(statistics.stdev(values), 6)

    @property
    def gpu_hours(self) -> float | None:
        """GPUs times hours of training; None where it ran on none, or where is not known."""
        gpus = re.match(r"(\d+) x ", self.training["hardware"])  # as `workflow.train` writes it
        return round(int(gpus[1]) * self.training["seconds"] / 3600, 6) if gpus else None


def by_dataset(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns the runs of each dataset, by what it is called."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    return groups


class Equal(NamedTuple):
    """Where the trainings of a dataset are compared; None is nowhere."""

    steps: float | None = None
    seconds: float | None = None


def equal_cost(group: Sequence[Run]) -> Equal:
    """Returns the steps and the seconds that all runs of a dataset were validated at or beyond.

    None where all are of one model, and of seconds where not all ran on the same hardware.
    """
    if len({run.model for run in group}) == 1:
        return Equal()
    steps = reached_by_all([run.by_step for run in group])
    alike = len({run.training["hardware"] for run in group}) == 1
    return Equal(steps, reached_by_all([run.by_time for run in group]) if alike else None)
