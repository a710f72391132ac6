"""Write workflow/schemas/params.schema.json, by which editors and Snakemake check params.yaml.

The schema comes from the classes of srt/config. Run `python -m workflow.tools.write_schema` after
these have changed; a test fails until the file is up to date.
"""

from __future__ import annotations

import json

from srt.config.params_schema import params_schema
from workflow import REPOSITORY
from workflow.common.cli import run

TARGET = REPOSITORY / "workflow" / "schemas" / "params.schema.json"


def schema_text() -> str:
    """Return the text of the schema's file."""
    return json.dumps(params_schema(), indent=2) + "\n"


def write_schema() -> None:
    """Write the JSON schema of params.yaml, after the classes of srt/config have changed.

    python -m workflow.tools.write_schema
    """
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(schema_text())


if __name__ == "__main__":
    run(write_schema)
