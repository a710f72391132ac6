"""Settings in short: a fingerprint that changes with every value, and the difference of two."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(values: dict[str, Any]) -> str:
    """Return twelve hexadecimal digits that change whenever a value changes."""
    # Sorted keys and fixed separators: the order in which keys were added does not count.
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """Return a line such as `model.heads: 2 here, 4 there` for each value that differs.

    Args:
        ours, theirs: nested dictionaries, or values in them.
        key: the dotted name of these values, which the lines begin with.
    """
    # Of two dictionaries, compare the values of all keys that either of them has.
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lines = []
        for name in sorted({*ours, *theirs}):
            full_key = f"{key}.{name}".lstrip(".")
            lines += differences(ours.get(name, "absent"), theirs.get(name, "absent"), full_key)
        return lines

    # Compare values as JSON, because tuples become lists when a configuration is saved.
    if json.dumps(ours) == json.dumps(theirs):
        return []
    return [f"{key}: {ours!r} here, {theirs!r} there"]
