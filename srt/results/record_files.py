"""Reads and writes the JSON files whose content `srt.results.records` describes.

A file says its format. Files from before there were formats are read too. Whatever is damaged is
refused with one line that names the file, the key and the value.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from srt.common.errors import DataError
from srt.common.files import write_atomically

# The format that is written. It becomes 2 when files change so that this code misreads them.
FORMAT = 1

# A value in an error message has at most so many characters.
LONGEST_VALUE = 60

Record = TypeVar("Record")


class NewerFormatError(DataError):
    """A file is of a later version of this repository. Making it again would not help."""


def write_record(path: Path, record: object) -> None:
    """Write a record as JSON. Equal records give equal bytes.

    Raises:
        DataError: a number is not finite; nothing is written then.
    """
    values = {"format": FORMAT, **_to_json(record, f"{path}: ")}
    write_atomically(path, f"{json.dumps(values, indent=1)}\n".encode())


def _to_json(value: Any, key: str) -> Any:
    """Return a value of a record as JSON has it: records are objects by the keys of the file.

    Args:
        key: the file and the dotted name of the value, for errors.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            name: _to_json(getattr(value, field.name), _join(key, name))
            for name, field in _fields_by_key(type(value)).items()
        }
    if isinstance(value, dict):
        return {name: _to_json(item, _join(key, name)) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{key}: {value} is not a finite number, so the file is not written")
    if isinstance(value, tuple):
        return [_to_json(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return value


def read_record(path: Path, kind: type[Record]) -> Record:
    """Return the content of a file as a record of this class.

    Raises:
        DataError: the file is missing or damaged; the text names the key and the value.
        NewerFormatError: the file is of a newer format.
    """
    values = _load_object(path)
    check_format(path, values.get("format", FORMAT))
    old = "format" not in values
    return typing.cast(Record, _read(kind, values, f"{path}: ", old))


def _load_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, which must be an object."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: {shorten(values)} is not an object of keys and values")
    return values


def check_format(path: Path, version: Any) -> None:
    """Raise DataError for a format that is none, and NewerFormatError for one of the future."""
    if type(version) is not int or version < 1:
        raise DataError(f"{path}: format: {shorten(version)} is no format")
    if version > FORMAT:
        raise NewerFormatError(
            f"{path}: format {version} is newer than {FORMAT}, the newest that this version reads;"
            " update this repository"
        )


def _read(expected: Any, value: Any, key: str, old: bool) -> Any:
    """Return a value of a file as an object of the expected type.

    Args:
        key: the file and the dotted name of the value, for errors.
        old: whether the file is from before there were formats, so that it may lack keys.
    """
    arguments = get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _read_object(typing.cast(type, expected), value, key, old)

    # The only unions are with None.
    if get_origin(expected) is types.UnionType:
        return None if value is None else _read(arguments[0], value, key, old)
    if get_origin(expected) is dict:
        if not isinstance(value, dict):
            raise _refusal(value, "an object of keys and values", key)
        return {
            name: _read(arguments[1], item, _join(key, name), old) for name, item in value.items()
        }

    # The only tuples are of a fixed length.
    if get_origin(expected) is tuple:
        if not isinstance(value, list) or len(value) != len(arguments):
            raise _refusal(value, f"a list of {len(arguments)} values", key)
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(_read(kind, item, f"{key}[{index}]", old) for index, (kind, item) in pairs)
    return _read_plain(expected, value, key)


def _read_object(kind: type, value: Any, key: str, old: bool) -> Any:
    """Return a JSON object as a record. Keys that the class does not have are ignored."""
    if not isinstance(value, dict):
        raise _refusal(value, "an object of keys and values", key)
    hints = _type_hints(kind)
    values = {}
    for name, field in _fields_by_key(kind).items():
        if name in value:
            values[field.name] = _read(hints[field.name], value[name], _join(key, name), old)
        elif not old or field.default is dataclasses.MISSING:
            raise DataError(f"{_join(key, name)}: this key is missing")
    return kind(**values)


def _read_plain(expected: Any, value: Any, key: str) -> Any:
    """Return a number, a text or a boolean. A whole number may stand for a float."""
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    if expected is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if expected is float or type(value) is not expected:
        raise _refusal(value, names[expected], key)
    return value


def _refusal(value: Any, expected: str, key: str) -> DataError:
    return DataError(f"{key}: {shorten(value)} is not {expected}")


def shorten(value: Any) -> str:
    """Return a value as Python writes it, on one line and without the end if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _join(key: str, name: str) -> str:
    """Return the dotted name of a key. After the name of the file stands no dot."""
    return f"{key}{name}" if key.endswith(": ") else f"{key}.{name}"


@functools.cache
def _fields_by_key(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a class by their keys in the file."""
    fields = dataclasses.fields(typing.cast(Any, kind))
    return {field.metadata.get("key", field.name): field for field in fields}


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
