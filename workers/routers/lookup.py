"""What do routers make of their nearest training queries? One search for all that look neighbours up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Positions, Prediction, Router, Side
from workers.routers.growing import appended, with_model
from workers.routers.neighbours import Search, nearest
from workers.routers.sums import weighted_sums

#: From positions on the training side and cosine similarities, nearest first (both [b, k]), to values [b, c].
Reduce = Callable[[Positions, Floats], Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup:
    """What is wanted of the k nearest training queries (by cosine) of every query."""

    train: Side
    queries: Side
    #: Cut to the size of the training side.
    k: int
    reduce: Reduce


def look_up(lookups: Sequence[Lookup]) -> list[Floats]:
    """Values [n_queries, c] of each lookup; those of one pair of sides share one search at the largest k."""
    shared: dict[tuple[int, ...], list[int]] = {}
    for i, lookup in enumerate(lookups):
        rows = (lookup.train.embedding_rows, lookup.queries.embedding_rows)
        matrices = (lookup.train.matrix, lookup.queries.matrix)
        shared.setdefault(tuple(map(id, (*rows, *matrices))), []).append(i)
    members = list(shared.values())
    searches = []
    for group in members:
        first = lookups[group[0]]
        k = min(max(lookups[i].k for i in group), first.train.n)
        searches.append(Search(similarity="cosine", train=first.train, queries=first.queries, k=k))
    values: dict[int, Floats] = {}
    for found in nearest(searches):
        similarity = found.similarity.astype(np.float64)
        for i in members[found.search]:
            lookup = lookups[i]
            part = lookup.reduce(found.index[:, : lookup.k], similarity[:, : lookup.k])
            values.setdefault(i, np.empty((lookup.queries.n, part.shape[1])))[found.rows] = part
    return [values[i] for i in range(len(lookups))]


def alike(similarity: Floats) -> Floats:
    """The same weight for every neighbour."""
    return np.ones_like(similarity)


def sums(table: Floats, weigh: Callable[[Floats], Floats] = alike) -> Reduce:
    """Sums over the neighbours' rows of a table [n_train, c], by weights that depend on their similarity."""
    return lambda index, similarity: weighted_sums(index, weigh(similarity), table)


def bare(train: Side) -> Side:
    """A training side without texts and extras, which no table of neighbours needs."""
    return replace(train, texts=None, extras={})


class LookupRouter(Router, ABC):
    """A router that keeps its training side and answers from what lookups of a query's neighbours find."""

    train_: Side
    #: Price of cost of a selector; None: utility prediction.
    price_: float | None

    @abstractmethod
    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """What is wanted of the neighbours of queries."""

    @abstractmethod
    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction | Positions:
        """Predictions, or the models named if there is a price of cost, from what `lookups` found."""

    def learn(self, rng: np.random.Generator) -> None:
        """What there is to learn from `train_` beside the table itself."""

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Keep the training side."""
        self.train_, self.price_ = bare(train), None
        self.learn(rng)
        return self

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Keep the training side and the price of cost."""
        if "selection" not in self.formulations:
            return super().fit_selector(train, price, rng)
        self.train_, self.price_ = bare(train), price
        self.learn(rng)
        return self

    def predict(self, queries: Side) -> Prediction:
        """Predict from the neighbours. [n, M]."""
        answer = self.answer(queries, look_up(self.lookups(queries)))
        assert isinstance(answer, Prediction)
        return answer

    def select(self, queries: Side) -> Positions:
        """Name a model by the neighbours. [n]."""
        if "selection" not in self.formulations:
            super().select(queries)
        answer = self.answer(queries, look_up(self.lookups(queries)))
        assert isinstance(answer, np.ndarray)
        return answer

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Append labelled queries to the table: the same as a fit on all of them."""
        return self.fit(appended(self.train_, more), rng)

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """Add a column to the table: the same as a fit where the new model is observed on the labelled queries."""
        return self.fit(with_model(self.train_, labelled), rng)

    @classmethod
    def fit_many(cls, jobs: Sequence[FitJob]) -> list[LookupRouter]:
        """Fit the jobs' routers; a family overrides this to share work."""
        routers = []
        for job in jobs:
            router = job.fit()
            assert isinstance(router, LookupRouter)
            routers.append(router)
        return routers

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """One search for all jobs of a pair of sides."""
        begin = perf_counter()
        routers = cls.fit_many(jobs)
        fitted = perf_counter()
        asked = [list(router.lookups(job.queries)) for router, job in zip(routers, jobs, strict=True)]
        found = iter(look_up([lookup for lookups in asked for lookup in lookups]))
        searched = (perf_counter() - fitted) / max(len(jobs), 1)
        for router, job, lookups in zip(routers, jobs, asked, strict=True):
            start = perf_counter()
            answer = router.answer(job.queries, [next(found) for _ in lookups])
            yield Fitted(
                prediction=answer,
                fit_seconds=(fitted - begin) / len(jobs),
                route_seconds=searched + perf_counter() - start,
                n_bytes=router.n_bytes,
            )
