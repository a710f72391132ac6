"""Write workflow/schemas/params.schema.json, by which editors and Snakemake check params.yaml.

The schema comes from the classes of srt/config. Run `python -m workflow.tools.write_schema` after
these have changed; a test fails until the file is up to date.
"""

import json

from srt.config.params_schema import params_schema
from workflow import REPOSITORY

TARGET = REPOSITORY / "workflow" / "schemas" / "params.schema.json"


def schema_text() -> str:
    """Return the text of the schema's file."""
    return json.dumps(params_schema(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(schema_text())
