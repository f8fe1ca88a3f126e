"""Which encoder keeps distances and forgets the rest: a random projection of another one's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from workers.encoders.fitted import FittedEncoder
from workers.routers.base import Side


class RandomProjection(FittedEncoder):
    """Gaussian projection to `dim` dimensions (Johnson and Lindenstrauss 1984); the same matrix on every split.

    It learns nothing: how much of a router's gain survives it shows how few dimensions the gain needs.
    """

    name = "random-projection"
    summary = "Gaussian random projection of another encoder's rows"

    def __init__(self, *, of: str | Mapping[str, Any] = "minilm", dim: int = 64, seed: int = 0) -> None:
        super().__init__(of=of)
        if type(dim) is not int or dim < 1:
            raise ValueError(f"dim is {dim!r}; give a whole number, at least 1.")
        if type(seed) is not int or seed < 0:
            raise ValueError(f"seed is {seed!r}; give a whole number, at least 0.")
        self.dim = dim
        self.seed = seed

    def settings(self) -> Mapping[str, Any]:
        """Dimensions and seed."""
        return {"dim": self.dim, "seed": self.seed}

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Draw the matrix by the seed alone."""
        width = train.embeddings.shape[1]
        drawn = np.random.default_rng([self.seed, width, self.dim]).standard_normal((width, self.dim))
        self.projection_: npt.NDArray[np.float64] = drawn / np.sqrt(self.dim)
        return self

    def transform(self, queries: Side) -> npt.NDArray[np.float64]:
        """Project. [n, dim]."""
        rows: npt.NDArray[np.float64] = queries.X.astype(np.float64) @ self.projection_
        return rows
