"""The pipeline: raw -> packed -> train -> evaluate -> render -> tables.

Each stage is one module of this folder. `common` has what several stages need, and `tools` has the
commands that a person runs beside the pipeline.
"""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]  # the checkout that this file is in
