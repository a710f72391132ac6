"""The JSON schema of params.yaml is up to date, and refuses the same values as Python."""

import jsonschema
import pytest
import yaml
from support.broken_params import ABSENT, LEVELS, MISSING, PARAMS, WRONG_VALUES, write_edited_params

from srt.config.load import load_params
from srt.config.params_schema import params_schema
from srt.config.strict import ConfigError
from workflow.tools.write_schema import TARGET, schema_text


def schema_errors(path):
    validator = jsonschema.Draft202012Validator(params_schema())
    return list(validator.iter_errors(yaml.safe_load(path.read_text())))


def test_the_schemas_file_is_up_to_date_and_valid():
    assert TARGET.read_text() == schema_text(), "run `python -m workflow.tools.write_schema`"
    jsonschema.Draft202012Validator.check_schema(params_schema())


def test_the_schema_accepts_the_file_that_python_accepts(tmp_path):
    load_params(PARAMS)
    assert schema_errors(PARAMS) == []
    path = write_edited_params(tmp_path, ("experiments.nmr_srt.train", {"log_every": 2}))
    load_params(path)
    assert schema_errors(path) == []


@pytest.mark.parametrize(
    "edit",
    # Without 24.0, which is an integer for JSON Schema.
    [edit for edit in WRONG_VALUES if edit[1] not in (24.0, 64.0)]
    + [(key, ABSENT) for key in MISSING]
    + [(f"{level}lerning_rate", 1) for level in LEVELS],
    ids=lambda edit: edit[0],
)
def test_the_schema_refuses_what_python_refuses_at_the_same_key(tmp_path, edit):
    path = write_edited_params(tmp_path, edit)
    with pytest.raises(ConfigError):
        load_params(path)

    # The schema may name the key itself, or the section that has it.
    keys = edit[0].split(".")
    errors = [list(map(str, error.absolute_path)) for error in schema_errors(path)]
    assert any(error == keys[: len(error)] and len(error) >= len(keys) - 1 for error in errors)
