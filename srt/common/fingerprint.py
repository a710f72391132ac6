"""Which settings something was made with: a short fingerprint, and the difference of two."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(values: dict[str, Any]) -> str:
    """Returns twelve digits that change whenever a value does."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """Returns `key: ours, theirs` for every leaf in which two nested dictionaries differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for name in sorted({*ours, *theirs})
            for line in differences(
                ours.get(name, "absent"), theirs.get(name, "absent"), f"{key}.{name}".lstrip(".")
            )
        ]
    # Tuples become lists on their way through JSON.
    return (
        []
        if json.dumps(ours) == json.dumps(theirs)
        else [f"{key}: {ours!r} here, {theirs!r} there"]
    )
