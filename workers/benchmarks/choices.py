"""Which options does a question offer, and how are they shown?"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

#: Characters of options that are Python's spelling of a list or mapping.
_MOST = 1 << 20


def options_of(value: Any) -> list[str]:
    """Choices: a list, a mapping with their `text`, or Python's spelling of either as text; [] where there are none."""
    value = _literal(value)
    if isinstance(value, dict):
        value = _literal(value.get("text"))
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def with_options(question: str, options: Sequence[str]) -> str:
    """The question, and a line for each of its first 26 options: `A. option`."""
    return "\n".join([question, *(f"{chr(65 + i)}. {option}" for i, option in enumerate(options[:26]))])


def _literal(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("[", "{") or len(value) >= _MOST:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value
