"""Which encoders are fitted anew on every split's training side, and how are their rows shared within a worker?"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from workers.embed import normalized
from workers.encoders.base import Encoder, Input, Modality, make_encoder
from workers.errors import EncoderError
from workers.routers.base import Positions, Side
from workers.seeding import generator
from workers.sides import subset
from workers.units import EvaluateUnit

#: Bytes of fitted rows that a worker keeps: the splits of a benchmark, for the routers that follow.
KEPT_BYTES = 1 << 29


class FittedEncoder(Encoder):
    """Subclass, set `name`, implement `settings`, `fit` and `transform`; fitted attributes end in `_`.

    It reads the rows of another encoder, `of`, or with `of = None` the texts. No query outside the training side has
    a part in `fit`: neither test nor validation queries, nor the training queries that a smaller size leaves out.
    """

    standalone = False

    def __init__(self, *, of: str | Mapping[str, Any] | None) -> None:
        self.of = of

    @cached_property
    def base(self) -> Encoder | None:
        """The encoder whose rows it reads; None: it reads texts.

        Raises:
            EncoderError: Unknown, or itself fitted.
        """
        if self.of is None:
            return None
        name, params = self.base_entry
        base = make_encoder(name, params)
        if isinstance(base, FittedEncoder):
            raise EncoderError(f"encoder {self.name!r}: of {name!r}, which is fitted itself; name one that is not.")
        return base

    @property
    def base_entry(self) -> tuple[str, dict[str, Any]]:
        """Registered name and parameters of the encoder whose rows it reads.

        Raises:
            EncoderError: `of` is neither a name nor an entry with one.
        """
        if isinstance(self.of, str):
            return self.of, {}
        params = dict(self.of or {})
        name = params.pop("use", params.get("name"))
        params.pop("name", None)
        if not isinstance(name, str):
            raise EncoderError(
                f"encoder {self.name!r}: of is {self.of!r}; give an encoder's name, or an entry with one."
            )
        return name, params

    @property
    def modality(self) -> Modality:  # type: ignore[override]
        """That of the encoder it reads."""
        return "text" if self.base is None else self.base.modality

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, settings, and the recipe of the encoder that it reads."""
        base = self.base
        return {
            "encoder": self.name,
            "version": self.version,
            "fitted_on": "training side",
            **self.settings(),
            "of": None if base is None else dict(base.recipe()),
            "dtype": "float32",
        }

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """All parameters but `of`. JSON values."""

    @abstractmethod
    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Learn from a training side: its texts or `X`, and, if it likes, its outcomes."""

    @abstractmethod
    def transform(self, queries: Side) -> npt.NDArray[np.floating[Any]]:
        """Rows of queries whose outcomes it must not read; need not be normalised. [n, d]."""

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Refuse: without a training side there is nothing to encode by.

        Raises:
            EncoderError: Always.
        """
        raise EncoderError(
            f"encoder {self.name!r} is fitted on each split's training side, so it has no rows outside of a sweep; "
            "use another encoder here."
        )


def fitted_rows(encoder: FittedEncoder, queries: Side) -> npt.NDArray[np.float32]:
    """Unit rows of a fitted encoder, read-only. [n, d].

    Raises:
        EncoderError: It gave an array of another shape, NaN or infinity.
    """
    rows = np.asarray(encoder.transform(queries))
    if rows.ndim != 2 or len(rows) != queries.n or not np.isfinite(rows).all():
        raise EncoderError(f"encoder {encoder.name!r} gave {rows.shape}, or NaN or infinity, for {queries.n} queries.")
    scaled = normalized(rows)
    scaled.flags.writeable = False
    return scaled


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitEncoder:
    """A fitted encoder at work in a worker; rows of a split are kept for the routers that come after."""

    #: Tells benchmarks and embeddings apart in a worker's cache.
    where: str
    name: str
    params: Mapping[str, Any]
    #: What text encoders see of each query of the benchmark; None where it reads rows. [n]
    texts: tuple[str, ...] | None = None

    def encoded(self, everything: Side, unit: EvaluateUnit, train: Positions, fold: int | None = None) -> Side:
        """The whole benchmark under the encoder as fitted on some queries.

        Args:
            everything: Side of the whole benchmark, with the rows of the encoder that this one reads.
            unit: Names root seed, split and protocol.
            train: Positions of the queries to fit on.
            fold: Number of the tuning fold that they belong to; None: the training side.
        """
        key = (
            *(self.where, self.name, json.dumps(dict(self.params), sort_keys=True), unit.root_seed, unit.split, fold),
            *(unit.protocol.cost_normalizer, train.tobytes()),
        )
        rows = _ROWS.get(key)
        if rows is None:
            side = everything if self.texts is None else replace(everything, texts=self.texts)
            encoder = make_encoder(self.name, self.params)
            assert isinstance(encoder, FittedEncoder)
            encoder.fit(subset(side, train), encoder_stream(encoder, unit, fold))
            rows = fitted_rows(encoder, replace(side, scores=None, costs=None, extras={}))
            _ROWS.put(key, rows)
        return replace(everything, matrix=rows)


def encoder_stream(encoder: FittedEncoder, unit: EvaluateUnit, fold: int | None = None) -> np.random.Generator:
    """The stream that an encoder is fitted with: by its name, the split and the fold."""
    return generator(unit.root_seed, "encoder", encoder.name, unit.split, "all" if fold is None else fold)


class _Rows:
    """Rows that were used last, up to so many bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[object, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: object) -> npt.NDArray[np.float32] | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: object, rows: npt.NDArray[np.float32]) -> None:
        with self._lock:
            self._held[key] = rows
            while len(self._held) > 1 and sum(held.nbytes for held in self._held.values()) > self._most:
                self._held.popitem(last=False)


_ROWS = _Rows(KEPT_BYTES)
