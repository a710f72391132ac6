"""The JSON schema of params.yaml, for editors and for Snakemake's `validate`.

`srt.config.load` reads the file in Python, and refuses the same values and more.
"""

from __future__ import annotations

from typing import Any

from srt.config.load import SECTIONS
from srt.config.model_schema import MODELS
from srt.config.schema import DatasetConfig, Params, WeightsConfig
from srt.config.strict import json_schema


def params_schema() -> dict[str, Any]:
    """Return the JSON schema of params.yaml."""
    # `Params` gives the outline. Its sections are dictionaries there, and get their keys here.
    schema = json_schema(Params)
    properties = schema["properties"]
    section = {"type": "object", "additionalProperties": False}
    complete = {key: json_schema(config) for key, config in SECTIONS.items()}
    partial = {key: json_schema(config, partial=True) for key, config in SECTIONS.items()}

    # The defaults are complete, except those of datasets.
    defaults = {"dataset": json_schema(DatasetConfig, partial=True), **complete}
    properties["defaults"] = {**section, "properties": defaults, "required": list(defaults)}

    # Datasets and experiments hold differences from the defaults.
    properties["datasets"]["additionalProperties"] = json_schema(DatasetConfig, partial=True)
    properties["models"] = _models_schema()
    references = {"dataset": {"type": "string"}, "model": _experiment_model_schema()}
    properties["experiments"]["additionalProperties"] = {
        **section,
        "properties": {**references, **partial},
        "required": list(references),
    }

    # Profiles hold further differences.
    any_profile = properties["profiles"]["additionalProperties"]
    changes = {"model": _profile_model_schema(), **partial}
    _complete_profile_schema(any_profile, {**section, "properties": changes})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _complete_profile_schema(schema: dict[str, Any], sections: dict[str, Any]) -> None:
    """Add to the schema of a profile the keys of its sections, of which it may leave out any."""
    # A profile that changes nothing may be empty.
    schema["type"] = ["object", "null"]
    del schema["required"]
    profile = schema["properties"]
    profile.update(sections["properties"])
    profile["extends"] = {"type": "string", "description": "the profile that this one changes"}
    profile["experiments"]["additionalProperties"] = sections
    for group, config in (("datasets", DatasetConfig), ("weights", WeightsConfig)):
        profile[group]["additionalProperties"] = json_schema(config, partial=True)


def _models_schema() -> dict[str, Any]:
    """Return the JSON schema of the section `models`."""
    # Each entry has all keys of its model but the name, which is the entry's own.
    properties = {}
    for name, config in MODELS.items():
        schema = json_schema(config)
        del schema["properties"]["name"]
        schema["required"].remove("name")
        properties[name] = schema
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _experiment_model_schema() -> dict[str, Any]:
    """Return the JSON schema of an experiment's model: a name, or a name with differences."""
    choices: list[dict[str, Any]] = [{"enum": list(MODELS)}]
    for config in MODELS.values():
        choices.append(json_schema(config, partial=True) | {"required": ["name"]})
    return {"anyOf": choices}


def _profile_model_schema() -> dict[str, Any]:
    """Return the JSON schema of what a profile changes: keys of all models."""
    # The schema of an experiment's section cannot know which model the experiment has.
    properties: dict[str, Any] = {}
    for config in MODELS.values():
        properties |= json_schema(config, partial=True)["properties"]
    del properties["name"]
    return {"type": "object", "properties": properties, "additionalProperties": False}
