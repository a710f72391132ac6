"""Scene Representation Transformers: the library behind the pipeline in `workflow/`."""

from pathlib import Path

# The folder of this package. A model in MLflow's registry carries a copy of it.
PACKAGE = Path(__file__).parent
