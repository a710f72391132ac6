"""Scene Representation Transformers: the library behind the pipeline in `workflow/`."""

from pathlib import Path

PACKAGE = Path(__file__).parent  # this folder, which a registered model carries with it
