"""Where the stages read and write by default: the paths of dvc.yaml and the Snakefile.

All are relative to the current directory. The profile, and the name of a dataset, weight file or
experiment, determine them, so a command line names a path only where it departs from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srt.common.errors import UserError
from srt.config.load import load_params

# What benchmarks measured for the tables; it belongs to no profile.
PERFORMANCE = Path("reports/performance/training.json")
FEW_CAMERAS = Path("reports/camera_overfitting")


@dataclass(frozen=True)
class DefaultPaths:
    """The paths of one profile's files."""

    profile: str

    @property
    def plan(self) -> Path:
        """The folder of the plan, which has a file for each job."""
        return Path("plan", self.profile)

    @property
    def weights(self) -> Path:
        """The folder that has a folder for each fetched weight file."""
        return Path("data", self.profile, "weights")

    @property
    def outputs(self) -> Path:
        """The folder that has a folder for each experiment."""
        return Path("outputs", self.profile)

    @property
    def report(self) -> Path:
        """The folder of the tables and figures."""
        return Path("reports", self.profile)

    @property
    def surveys(self) -> Path:
        """The folder that has a folder for the survey of each dataset."""
        return self.report / "datasets"

    def raw(self, dataset: str) -> Path:
        """Return the manifest of a fetched dataset; its data lies beside it."""
        return Path("data", self.profile, "raw", dataset, "manifest.json")

    def packed(self, dataset: str) -> Path:
        """Return the folder of a packed dataset."""
        return Path("data", self.profile, "packed", dataset)

    def experiment(self, name: str) -> Path:
        """Return the folder of what train, evaluate and render write."""
        return self.outputs / name

    def other_seed(self, experiment: str, seed: int) -> Path:
        """Return the folder of a training from another seed; tabulate looks for it there."""
        return self.experiment(experiment) / "seeds" / f"{seed}"

    def model(self, experiment: str) -> Path:
        """Return the weights that train writes."""
        return self.experiment(experiment) / "model.safetensors"


def load_default_paths(profile: str | None, params: Path) -> DefaultPaths:
    """Return the paths of a profile; None is the profile that params.yaml names."""
    return DefaultPaths(profile or load_params(params).profile)


def weights_manifest(weights: Path, name: str) -> Path:
    """Return the manifest of a fetched weight file.

    Args:
        weights: the folder that has a folder for each weight file.
    """
    return weights / name / "manifest.json"


def choose_output(out: Path | None, default: Path, departs: bool) -> Path:
    """Return where a stage writes: `out`, or the default, which is that of the pipeline.

    Args:
        departs: whether options of this call replace values of params.yaml.

    Raises:
        UserError: such a call would replace the results of the pipeline by default.
    """
    if out is None and departs:
        raise UserError(
            f"{default} is for results with the values of params.yaml, and options of this command"
            " differ from these: say with --out where to write"
        )
    return out or default
