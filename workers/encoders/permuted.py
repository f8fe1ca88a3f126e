"""What is left of an embedding when a part of its rows is dealt out anew? The dose of the locality experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from workers.encoders.fitted import FittedEncoder
from workers.routers.base import Side


class Permuted(FittedEncoder):
    """Another encoder's rows, those of a fraction of the queries permuted among them, the same on every split.

    Distinct rows are permuted, so that queries with equal ones still have equal ones (protocol 6).
    """

    name = "permuted"
    summary = "another encoder's rows, those of a fraction of the queries permuted among them"

    def __init__(self, *, of: str | Mapping[str, Any] = "minilm", fraction: float = 1.0, seed: int = 0) -> None:
        super().__init__(of=of)
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction!r}; give a number from 0 to 1.")
        if type(seed) is not int or seed < 0:
            raise ValueError(f"seed is {seed!r}; give a whole number, at least 0.")
        self.fraction = float(fraction)
        self.seed = seed

    def settings(self) -> Mapping[str, Any]:
        """Fraction and seed."""
        return {"fraction": self.fraction, "seed": self.seed}

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Learn nothing: the permutation goes by the seed alone."""
        return self

    def transform(self, queries: Side) -> npt.NDArray[np.float32]:
        """Deal the rows of the drawn queries out among them. [n, d]."""
        return dealt_out(queries.X, self.fraction, self.seed)


def dealt_out(X: npt.NDArray[np.float32], fraction: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows of which a fraction of the distinct ones are permuted among them. [n, d]."""
    _, first, of = np.unique(np.ascontiguousarray(X), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # distinct rows by first occurrence, not by their bytes
    number = np.argsort(order)[of.ravel()]
    rng = np.random.default_rng([seed, len(first)])
    drawn = rng.permutation(len(first))[: round(fraction * len(first))]
    source = np.arange(len(first))
    source[np.sort(drawn)] = drawn
    return np.asarray(X[first[order][source[number]]])
