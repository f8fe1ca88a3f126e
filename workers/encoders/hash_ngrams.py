"""Which encoder needs no training and no weights: hashed character n-grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Encoder, Input


class HashNgrams(Encoder):
    """Signed counts of the lower-cased text's character n-grams (Weinberger et al. 2009), MurmurHash3."""

    name = "hash-ngrams"
    summary = "hashed character n-grams; no training, no weights"

    def __init__(self, *, n_min: int = 2, n_max: int = 4, dim: int = 512) -> None:
        for key, value in (("n_min", n_min), ("n_max", n_max), ("dim", dim)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{key} is {value!r}; give a whole number, at least 1.")
        if n_min > n_max:
            raise ValueError(f"n_min {n_min} is above n_max {n_max}.")
        self.n_min = n_min
        self.n_max = n_max
        self.dim = dim

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, range of n, dimensions."""
        return {
            "encoder": self.name,
            "version": self.version,
            "n_min": self.n_min,
            "n_max": self.n_max,
            "dim": self.dim,
            "dtype": "float32",
        }

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            analyzer="char",
            ngram_range=(self.n_min, self.n_max),
            n_features=self.dim,
            norm=None,
            dtype=np.float32,
        )

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Hash and count [len(batch), dim]."""
        rows: npt.NDArray[np.float32] = self._vectorizer.transform([item.text for item in batch]).toarray()
        return rows
