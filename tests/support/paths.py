"""Paths of the repository, its configuration and the recorded outputs that tests compare with."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PARAMS = REPOSITORY / "params.yaml"
REFERENCE = REPOSITORY / "tests" / "reference"
