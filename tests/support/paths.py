"""Where tests find the repository, its configuration and recorded outputs."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PARAMS = REPOSITORY / "params.yaml"
REFERENCE = REPOSITORY / "tests" / "reference"
