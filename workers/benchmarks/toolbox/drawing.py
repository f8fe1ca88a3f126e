"""How are a question's parameters drawn? From one random stream per template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Picks a template's parameters from one stream."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self._rng.integers(low, high + 1))

    def one(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.between(0, len(choices) - 1)]

    def some(self, choices: Sequence[T], n: int) -> list[T]:
        """Several different choices, in random order."""
        return [choices[i] for i in self._rng.permutation(len(choices))[:n]]


#: Draws a question's text and its answer.
Template = Callable[[Draw], tuple[str, str]]
