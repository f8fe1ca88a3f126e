"""What can be read off the text of an answer, cheaply? Deterministic features, the same on every machine."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Side

#: Width of the hashed n-grams.
GRAMS = 512
#: Characters of an answer whose n-grams are counted; FrugalGPT's scorer reads 512 tokens.
HEAD = 2000
#: What `Answers.numbers` holds of every answer.
NUMBERS = (
    *("missing", "empty", "log_characters", "log_words", "log_lines"),
    *("digits", "capitals", "punctuation", "fenced_code", "finished"),
)
#: Nonzero n-gram counts kept of earlier texts, some 8 bytes each.
KEPT = 20_000_000

#: How a finished text ends.
_ENDS = ".!?)]}`\"'"


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Features of every answer on a side; they depend on each text alone."""

    #: Queries and models.
    shape: tuple[int, int]
    #: Hashed character n-grams as unit rows, zero where there is no answer; answer of query i and model m in row
    #: i·M + m. scipy CSR, float32 [n·M, GRAMS]
    grams: Any
    #: The features named in `NUMBERS`. [n, M, len(NUMBERS)]
    numbers: Floats

    def dense(self, scale: tuple[Floats, Floats] | None = None) -> npt.NDArray[np.float32]:
        """N-grams and numbers side by side. [n, M, GRAMS + len(NUMBERS)].

        Args:
            scale: What to subtract from the numbers, and to divide them by. Both [len(NUMBERS)]
        """
        shift, unit = scale or (0.0, 1.0)
        grams = self.grams.toarray().reshape(*self.shape, GRAMS)
        return np.concatenate([grams, ((self.numbers - shift) / unit).astype(np.float32)], axis=2)

    def of(self, models: Iterable[int]) -> Answers:
        """The answers of some models only."""
        models = list(models)
        rows = np.arange(self.shape[0])[:, None] * self.shape[1] + models
        return Answers(
            shape=(self.shape[0], len(models)), grams=self.grams[rows.ravel()], numbers=self.numbers[:, models]
        )

    def rows(self, queries: Positions) -> Answers:
        """The answers to some queries only."""
        rows = queries[:, None] * self.shape[1] + np.arange(self.shape[1])
        return Answers(
            shape=(len(queries), self.shape[1]), grams=self.grams[rows.ravel()], numbers=self.numbers[queries]
        )


def answers_of(side: Side) -> Answers:
    """Features of a side's answers; those of texts seen before are looked up.

    Raises:
        RouterError: The side lacks answers, or the router does not declare that it reads them.
    """
    responses = side.extra("response")
    grams, numbers = _seen().rows(responses.ravel().tolist())
    return Answers(shape=responses.shape, grams=grams, numbers=numbers.reshape(*responses.shape, len(NUMBERS)))


class _Seen:
    """Features by text: other splits of a benchmark ask for the same ones. Keyed by content, so never stale."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Start again, with the absent answer alone."""
        from scipy.sparse import csr_array

        self.position: dict[str | None, int] = {None: 0}
        self.grams = csr_array((1, GRAMS), dtype=np.float32)
        self.numbers = np.zeros((1, len(NUMBERS)))
        self.numbers[0, NUMBERS.index("missing")] = 1.0

    def rows(self, texts: list[str | None]) -> tuple[Any, Floats]:
        """N-grams and numbers of every text."""
        from scipy.sparse import vstack

        with self.lock:
            if self.grams.nnz > KEPT:
                self.forget()
            new = [text for text in dict.fromkeys(texts) if text not in self.position and text is not None]
            if new:
                self.position.update(zip(new, range(len(self.position), len(self.position) + len(new)), strict=True))
                self.grams = vstack([self.grams, _grams(new)], format="csr")
                self.numbers = np.concatenate([self.numbers, _numbers(new)])
            index = np.fromiter((self.position[text] for text in texts), np.int64, len(texts))
            return self.grams[index], self.numbers[index]


@cache
def _seen() -> _Seen:
    return _Seen()


def _grams(texts: list[str]) -> Any:
    """Signed counts of the lower-cased text's character 2- to 4-grams, MurmurHash3, as unit rows.

    They are counted as `workers.encoders.hash_ngrams` does, between two spaces: else an answer of one letter has none,
    and "A" and "A" with a newline after it have nothing in common. CSR, float32 [len(texts), GRAMS]
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    counter = HashingVectorizer(analyzer="char", ngram_range=(2, 4), n_features=GRAMS, norm="l2", dtype=np.float32)
    return counter.transform([f" {text.strip()[:HEAD]} " for text in texts])


def _numbers(texts: list[str]) -> Floats:
    """The features named in `NUMBERS`. [len(texts), len(NUMBERS)]."""
    rows = []
    for text in texts:
        plain = text.strip()
        size = max(len(plain), 1)
        letters = sum(map(str.isalnum, plain))
        rows.append(
            (
                0.0,
                float(not plain),
                np.log1p(len(plain)),
                np.log1p(len(plain.split())),
                np.log1p(plain.count("\n")),
                sum(map(str.isdigit, plain)) / size,
                sum(map(str.isupper, plain)) / size,
                (len(plain) - letters - sum(map(str.isspace, plain))) / size,
                float("```" in plain),
                float(plain[-1:] in _ENDS),
            )
        )
    return np.array(rows)
