"""Plain YAML values -> frozen dataclasses, strictly, and the JSON schema of the same dataclasses.

dacite and pydantic do this too; neither is on every machine that trains, neither checks a partial
layer (an experiment's differences) key by key, and both name the key less well.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from srt.common.errors import UserError


class ConfigError(UserError, ValueError):
    """params.yaml does not say what it must; the text names the file, the key and the value."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        for key_node, _ in node.value:
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
            if key in keys:
                raise ConfigError(
                    f"{mark.name}, line {mark.line + 1}: the key {key!r} stands here a second time"
                )
            keys.append(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """Returns a YAML file's values; raises ConfigError for a missing, broken or ambiguous one."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        with path.open() as file:  # errors name the file, as they could not for a string
            return yaml.load(file, _UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error


def read(kind: Any, value: Any, where: str, partial: bool = False) -> Any:
    """Returns `value` as `kind`; raises ConfigError naming `where` if it is something else.

    A partial dataclass is checked key by key, returns the dictionary and may leave keys out.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, where, partial)
    if origin is Literal and value in arguments:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        if len(choices) == 1:
            return read(choices[0], value, where, partial)
        if type(value) in choices:
            return value
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(kinds) == len(value):
            return tuple(read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if origin is dict and isinstance(value, dict):
        for key in value:  # YAML reads `no` and 2026 as something else than a name
            if not isinstance(key, str):
                raise ConfigError(f"{where}.{key}: the key {key!r} is not text; put it in quotes")
        return {k: read(arguments[1], v, f"{where}.{k}", partial) for k, v in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise ConfigError(f"{where}: {value!r} is not {_describe(kind, value)}")


def _read_dataclass(kind: type, value: Any, where: str, partial: bool) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {value!r} is not a mapping of keys to values")
    hints = get_type_hints(kind)
    separator = "." if not where.endswith((".yaml", ".yml")) else ": "
    for key in value:
        if key not in hints:
            raise ConfigError(
                f"{where}{separator}{key}: unknown key; known here: {', '.join(hints)}"
            )
    missing = [key for key in hints if key not in value]
    if missing and not partial:
        raise ConfigError(f"{where}: the key {missing[0]} is missing")
    values = {k: read(hints[k], v, f"{where}{separator}{k}", partial) for k, v in value.items()}
    if partial:
        return values
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _describe(kind: Any, value: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    if kind is float and isinstance(value, str):
        return "a float: YAML reads 1e-4 as text, write it with a dot (1.0e-4)"
    return "a finite number" if kind is float else f"of type {name}"


def json_schema(kind: Any, partial: bool = False) -> dict[str, Any]:
    """Returns the JSON schema of what `read` accepts as `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        schema = {
            "type": "object",
            "description": (kind.__doc__ or "").strip(),
            "properties": {key: json_schema(hint, partial) for key, hint in hints.items()},
            "additionalProperties": False,
        }
        return schema if partial else {**schema, "required": list(hints)}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [json_schema(choice, partial) for choice in arguments]}
    if origin is tuple:
        items = {"type": "array", "items": json_schema(arguments[0])}
        size = (
            {} if arguments[-1] is ... else {"minItems": len(arguments), "maxItems": len(arguments)}
        )
        return {**items, **size}
    if origin is dict:
        return {"type": "object", "additionalProperties": json_schema(arguments[1], partial)}
    names = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
    return {"type": names[kind]} if kind in names else {}
