"""Which values may a parameter have, and which configurations does tuning try?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

#: Draws for each configuration of the budget, after which a small space is given up.
PATIENCE = 100


def check_number(key: str, value: object, least: float, most: float = math.inf, *, above: bool = False) -> None:
    """Refuse what is not a finite number from `least` to `most`.

    Args:
        key: Name of the parameter.
        value: What was given.
        least: Lower bound.
        most: Upper bound, included.
        above: Whether the lower bound itself is refused.

    Raises:
        ValueError: Names the parameter.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (least < value if above else least <= value) or value > most:  # type: ignore[operator]
        bound = f"{'above' if above else 'at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
        raise ValueError(f"{key} must be a number, {bound}, not {value!r}.")


def filled(
    first: Sequence[Mapping[str, Any]], draw: Callable[[], Mapping[str, Any]], budget: int
) -> list[dict[str, Any]]:
    """The first configurations without repetitions, then draws that differ from all before, `budget` in all.

    Args:
        first: Configurations that are tried in any case, most important first.
        draw: Draws one.
        budget: How many; fewer where the space holds no more.
    """
    found: list[dict[str, Any]] = []
    for config in first:
        if dict(config) not in found:
            found.append(dict(config))
    for _ in range(PATIENCE * budget):
        if len(found) >= budget:
            break
        drawn = dict(draw())
        if drawn not in found:
            found.append(drawn)
    return found[:budget]


def log_integer(rng: np.random.Generator, least: int, most: int) -> int:
    """A whole number from `least` to `most` (at least `least`), both included, log-uniform."""
    return min(max(least, most), int(np.exp(rng.uniform(np.log(least), np.log(max(least, most) + 1)))))


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """A number between `least` and `most`, log-uniform."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))
