"""Strict reading: values of a YAML file become frozen dataclasses, and each class a JSON schema.

dacite and pydantic do this too. But neither is on every machine that trains, and neither checks the
keys of a partial section, such as an experiment's differences from the defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from srt.common.errors import UserError


class ConfigError(UserError, ValueError):
    """params.yaml has a wrong value. The text names the file, the key and the value."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping with two equal keys, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        for key_node, _ in node.value:
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
            if key in keys:
                raise ConfigError(
                    f"{mark.name}, line {mark.line + 1}: the key {key!r} occurs a second time"
                )
            keys.append(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """Return the values of a YAML file.

    Raises:
        ConfigError: if the file is missing, is no YAML, or has a key twice.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")

    # PyYAML's errors name the file because it gets the open file and not its text.
    try:
        with path.open() as file:
            return yaml.load(file, _UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error


def read(expected: Any, value: Any, where: str, partial: bool = False) -> Any:
    """Return a value of a YAML file as an object of the expected type.

    Args:
        expected: a dataclass or any type that one of its fields may have.
        where: file and key of the value, for errors.
        partial: a dataclass may lack keys. Its keys and values are checked, and the dictionary is
            returned.

    Raises:
        ConfigError: if the value has another type.
    """
    origin, arguments = get_origin(expected), get_args(expected)
    if expected is Any:
        return value
    if dataclasses.is_dataclass(expected):
        return _read_dataclass(typing.cast(type, expected), value, where, partial)
    if origin in (types.UnionType, typing.Union):
        return _read_union(expected, value, where, partial)
    if origin is tuple and isinstance(value, list):
        return _read_tuple(expected, value, where)
    if origin is dict and isinstance(value, dict):
        return _read_dict(arguments[1], value, where, partial)
    if origin is Literal and value in arguments:
        return value
    return _read_plain(expected, value, where)


def _read_plain(expected: Any, value: Any, where: str) -> Any:
    """Read a number, a text or a boolean."""
    # A whole number is accepted as a float, but True is never accepted as 1.
    if expected is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if expected is not float and type(value) is expected:
        return value
    raise _refusal(expected, value, where)


def _read_union(expected: Any, value: Any, where: str, partial: bool) -> Any:
    """Read an optional value, or one that may have several plain types."""
    arguments = get_args(expected)
    if value is None and type(None) in arguments:
        return None
    choices = [choice for choice in arguments if choice is not type(None)]
    if len(choices) == 1:
        return read(choices[0], value, where, partial)
    if type(value) in choices:
        return value
    raise _refusal(expected, value, where)


def _read_tuple(expected: Any, values: list[Any], where: str) -> tuple[Any, ...]:
    """Read a list of any length (`tuple[int, ...]`) or of a fixed one (`tuple[int, int]`)."""
    arguments = get_args(expected)
    item_types = [arguments[0]] * len(values) if arguments[-1] is ... else list(arguments)
    if len(item_types) != len(values):
        raise _refusal(expected, values, where)
    items = [
        read(item_type, item, f"{where}[{index}]")
        for index, (item_type, item) in enumerate(zip(item_types, values))
    ]
    return tuple(items)


def _read_dict(value_type: Any, values: dict[Any, Any], where: str, partial: bool) -> Any:
    # YAML reads names such as `no` and 2026 as something else than text.
    for key in values:
        if not isinstance(key, str):
            raise ConfigError(f"{where}.{key}: the key {key!r} is not text; put it in quotes")
    return {key: read(value_type, x, f"{where}.{key}", partial) for key, x in values.items()}


def _read_dataclass(expected: type, value: Any, where: str, partial: bool) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {value!r} is not a mapping of keys to values")

    # After the name of a file, a key stands behind a colon.
    hints = get_type_hints(expected)
    separator = "." if not where.endswith((".yaml", ".yml")) else ": "
    _check_keys(value, hints, where, separator, partial)

    # Read the values one by one, so that each error names its key.
    values = {
        key: read(hints[key], x, f"{where}{separator}{key}", partial) for key, x in value.items()
    }
    if partial:
        return values

    # The class checks what must hold between its values. It does not know the file and the section.
    try:
        return expected(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_keys(
    value: dict[str, Any], hints: dict[str, Any], where: str, separator: str, partial: bool
) -> None:
    """Raise ConfigError for a key that a class lacks and, unless partial, for a missing one."""
    # Refuse unknown keys first: a missing key is often only misspelt.
    refuse_unknown_keys(value, hints, f"{where}{separator}")
    missing = [key for key in hints if key not in value]
    if missing and not partial:
        raise ConfigError(f"{where}: the key {missing[0]} is missing")


def refuse_unknown_keys(keys: Iterable[Any], possible: Iterable[str], prefix: str) -> None:
    """Raise ConfigError for the first key that is not a possible one.

    Args:
        prefix: what stands before the key in the error: the file and the section.
    """
    names = list(possible)
    for key in keys:
        if key not in names:
            text = f"possible keys: {', '.join(names)}{_suggestion(key, names)}"
            raise ConfigError(f"{prefix}{key}: unknown key; {text}")


def check_name(name: Any, names: Iterable[str], where: str) -> str:
    """Return a name, or raise ConfigError if it is not one of these."""
    possible = list(names)
    if name not in possible:
        text = f"{', '.join(possible)}{_suggestion(name, possible)}"
        raise ConfigError(f"{where}: {name!r} is not one of {text}")
    return str(name)


def _suggestion(name: Any, names: list[str]) -> str:
    """Return the end of an error: which of these names was meant, or "" if none is similar."""
    similar = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def _refusal(expected: Any, value: Any, where: str) -> ConfigError:
    """Return the error for a value that does not have the expected type."""
    return ConfigError(f"{where}: {value!r} is not {_describe(expected, value)}")


def _describe(expected: Any, value: Any) -> str:
    """Return what a value should have been, and how to write it if YAML is the reason."""
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(repr, get_args(expected)))
    if expected is float and isinstance(value, str):
        return "a float: YAML reads 1e-4 as text, write it with a dot (1.0e-4)"
    if expected is float:
        return "a finite number"
    is_plain = isinstance(expected, type) and not get_args(expected)
    return f"of type {expected.__name__ if is_plain else expected}"


def check_positive(config: Any, *exempt: str) -> None:
    """Raise ConfigError for the first number of a dataclass that is not above 0.

    Args:
        exempt: names of fields that are not checked.
    """
    for key, value in vars(config).items():
        if type(value) in (int, float) and value <= 0 and key not in exempt:
            raise ConfigError(f"{key} {value} is not positive")


def json_schema(expected: Any, partial: bool = False) -> dict[str, Any]:
    """Return the JSON schema of the values that `read` accepts for a type."""
    origin, arguments = get_origin(expected), get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _dataclass_schema(expected, partial)

    # Types with arguments.
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [json_schema(choice, partial) for choice in arguments]}
    if origin is tuple:
        return _tuple_schema(arguments)
    if origin is dict:
        return {"type": "object", "additionalProperties": json_schema(arguments[1], partial)}

    # Plain types. Everything is accepted as Any.
    names = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
    return {"type": names[expected]} if expected in names else {}


def _dataclass_schema(expected: Any, partial: bool) -> dict[str, Any]:
    """Return the JSON schema of a section, with the class' docstring, which editors display."""
    hints = get_type_hints(expected)
    schema = {
        "type": "object",
        "description": (expected.__doc__ or "").strip(),
        "properties": {key: json_schema(hint, partial) for key, hint in hints.items()},
        "additionalProperties": False,
    }
    return schema if partial else {**schema, "required": list(hints)}


def _tuple_schema(item_types: tuple[Any, ...]) -> dict[str, Any]:
    """Return the JSON schema of a list of any or of a fixed length."""
    items = {"type": "array", "items": json_schema(item_types[0])}
    if item_types[-1] is ...:
        return items
    return {**items, "minItems": len(item_types), "maxItems": len(item_types)}
