"""What makes two units the same unit? The sha256 of canonical JSON of all that may change a result.

In it: content of the benchmark and the source's groups, recipe of the embedding, router with version and resolved
parameters, split, protocol options, versions of protocol and metrics. Out: workers, shard sizes, hosts, executors,
threads, library versions and every display name, because they must not change a result (design 2).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Set
from typing import Any

#: Version of the scheme; results under another scheme are never reused silently.
SCHEME = "u1"

#: JSON of normal values; one encoder for all, `json.dumps` makes another for every call with these options.
encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and one spelling per number: 2.0 is 2, -0.0 is 0; NaN and infinity are refused.

    Raises:
        ValueError: NaN, infinity or a value that is not JSON.
    """
    if type(value) is int:  # the only part of a million keys that is not shared
        return str(value)
    return encode(normal(value))


def normal(value: Any) -> Any:
    """A value as JSON values with one spelling per number.

    Raises:
        ValueError: NaN, infinity or a value that is not JSON.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in a unit's key")
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, Mapping):
        return {str(key): normal(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((normal(item) for item in value), key=canonical_json)
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    if hasattr(value, "item"):
        return normal(value.item())
    raise ValueError(f"{type(value).__name__} has no place in a unit's key")


def text_digest(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return text_digest(canonical_json(value))


def unit_key(spec: Mapping[str, Any]) -> str:
    """Key of a unit: the scheme's version and the digest of its specification."""
    return text_key(canonical_json(spec))


def text_key(text: str) -> str:
    """Key of a unit whose specification is already written as canonical JSON."""
    return f"{SCHEME}:{text_digest(text)}"


class SpecFamily:
    """Specifications that differ in one top-level field alone: what they share is normalised and written once."""

    def __init__(self, shared: Mapping[str, Any], field: str) -> None:
        """Take the shared part, without `field`."""
        self._shared = shared
        self._field = field
        before = canonical_json({key: value for key, value in shared.items() if key < field})[1:-1]
        after = canonical_json({key: value for key, value in shared.items() if key > field})[1:-1]
        self._head = f"{{{before}{',' if before else ''}{encode(field)}:"
        self._tail = f"{',' if after else ''}{after}}}"

    def spec(self, value: Any) -> dict[str, Any]:
        """The specification whose field has this value."""
        return {**self._shared, self._field: value}

    def text(self, value: Any) -> str:
        """`canonical_json(self.spec(value))`."""
        return f"{self._head}{canonical_json(value)}{self._tail}"
