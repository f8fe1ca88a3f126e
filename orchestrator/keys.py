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


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and one spelling per number: 2.0 is 2, -0.0 is 0; NaN and infinity are refused.

    Raises:
        ValueError: NaN, infinity or a value that is not JSON.
    """
    return json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _normal(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in a unit's key")
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, Mapping):
        return {str(key): _normal(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((_normal(item) for item in value), key=canonical_json)
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    if hasattr(value, "item"):
        return _normal(value.item())
    raise ValueError(f"{type(value).__name__} has no place in a unit's key")


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def unit_key(spec: Mapping[str, Any]) -> str:
    """Key of a unit: the scheme's version and the digest of its specification."""
    return f"{SCHEME}:{digest(spec)}"
