"""Which text encoder learns nothing but words: TF-IDF and a truncated SVD, both of the training side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from workers.encoders.fitted import FittedEncoder
from workers.errors import EncoderError
from workers.routers.base import Side

ANALYZERS = ("word", "char_wb")


class TfidfSvd(FittedEncoder):
    """Latent semantic analysis (Deerwester et al. 1990): TF-IDF with sublinear counts, then a truncated SVD.

    Vocabulary, document frequencies and components come from the training side alone. `dim` is cut to what the
    training side gives.
    """

    name = "tfidf-svd"
    summary = "TF-IDF and SVD, fitted on each split's training side; no weights"

    def __init__(
        self, *, dim: int = 256, analyzer: str = "word", n_min: int = 1, n_max: int = 2, max_features: int = 50_000
    ) -> None:
        super().__init__(of=None)
        for key, value in (("dim", dim), ("n_min", n_min), ("n_max", n_max), ("max_features", max_features)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{key} is {value!r}; give a whole number, at least 1.")
        if n_min > n_max:
            raise ValueError(f"n_min {n_min} is above n_max {n_max}.")
        if analyzer not in ANALYZERS:
            raise ValueError(f"analyzer is {analyzer!r}; known: {', '.join(ANALYZERS)}.")
        self.dim = dim
        self.analyzer = analyzer
        self.n_min = n_min
        self.n_max = n_max
        self.max_features = max_features

    def settings(self) -> Mapping[str, Any]:
        """Dimensions, and what counts as a term."""
        return {
            "dim": self.dim,
            "analyzer": self.analyzer,
            "n_min": self.n_min,
            "n_max": self.n_max,
            "max_features": self.max_features,
        }

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Learn vocabulary, document frequencies and components from the distinct texts.

        Raises:
            EncoderError: The texts hold no term.
        """
        from sklearn.decomposition import TruncatedSVD

        vectorizer = self._vectorizer()
        try:
            counts = vectorizer.fit_transform(sorted(set(train.texts or ())))
        except ValueError as error:
            raise EncoderError(f"encoder {self.name!r}: the training texts hold no term ({error}).") from error
        self.vocabulary_: list[str] = vectorizer.get_feature_names_out().tolist()
        self.idf_: npt.NDArray[np.float64] = np.asarray(vectorizer.idf_, dtype=np.float64)
        dim = min(self.dim, *counts.shape)
        svd = TruncatedSVD(dim, random_state=int(rng.integers(2**31)))
        self.components_ = svd.fit(counts).components_.astype(np.float32)
        return self

    def transform(self, queries: Side) -> npt.NDArray[np.float32]:
        """Weigh the known terms and project. [n, dim]."""
        rows: npt.NDArray[np.float32] = self._fitted.transform(queries.texts or ()) @ self.components_.T
        return rows

    def _vectorizer(self, **known: Any) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            analyzer=self.analyzer,
            ngram_range=(self.n_min, self.n_max),
            max_features=self.max_features,
            sublinear_tf=True,
            dtype=np.float32,
            **known,
        )

    @cached_property
    def _fitted(self) -> Any:
        vectorizer = self._vectorizer(vocabulary=self.vocabulary_)
        vectorizer.idf_ = self.idf_.astype(np.float32)
        return vectorizer
