"""srt/config/load.py -> workflow/schemas/params.schema.json, which editors and Snakemake read.

Run `python -m workflow.tools.write_schema` after a change of the configuration; a test holds them equal.
"""

import json

from srt.config.load import params_schema
from workflow import REPOSITORY

TARGET = REPOSITORY / "workflow" / "schemas" / "params.schema.json"


def schema_text() -> str:
    """Returns the schema's file as it must be."""
    return json.dumps(params_schema(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(schema_text())
