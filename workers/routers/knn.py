"""What did the nearest training queries show? k nearest neighbours, the paper's simple router."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.routers.base import Calls, FitJob, Fitted, Mixture, Positions, Prediction, Router, Side, mean_outcomes
from workers.routers.growing import appended, with_model
from workers.routers.labels import most_voted, spread_labels
from workers.routers.neighbours import Neighbours, Search, Similarity, nearest
from workers.routers.sums import Summed, is_dense, running_sums, weighted_sums

Weights = Literal["uniform", "distance", "softmax"]

#: Distances below this are float32 noise on unit rows.
COINCIDENT = 1e-3
#: Queries whose neighbours are summed at once.
SUMMED_TOGETHER = 512


class KNN(Router):
    """Means over the k nearest training queries; as a selector, their votes for their best-utility models.

    The mean of a model is over the neighbours that observed it; without one it is the model's training mean. At
    k = n_train with uniform weights it is the zero-router.

    Args:
        k: Number of neighbours; None: tuned.
        similarity: `cosine`; `centered`: cosine after removing the training mean; `whitened`: cosine after PCA
            whitening on the training side.
        weights: `uniform`; `distance`: inverse Euclidean distance of the unit rows; `softmax`: of similarity / tau.
        tau: Temperature of `softmax`.
    """

    name = "knn"
    summary = "mean outcome of the k nearest training queries"
    source = "Li 2025, arXiv 2505.12601, section 4 (k = 10 and 100)"
    formulations = ("utility", "selection")
    tunables = ("k", "similarity", "weights", "tau")

    def __init__(
        self, *, k: int | None = None, similarity: Similarity = "cosine", weights: Weights = "uniform", tau: float = 0.1
    ) -> None:
        if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
            raise ValueError(f"k must be a whole number, at least 1, not {k!r}.")
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity must be one of {', '.join(get_args(Similarity))}, not {similarity!r}.")
        if weights not in get_args(Weights):
            raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}, not {weights!r}.")
        if not (isinstance(tau, int | float) and 0 < tau < math.inf):
            raise ValueError(f"tau must be a number above 0, not {tau!r}.")
        if k is None and (similarity, weights, tau) != ("cosine", "uniform", 0.1):
            raise ValueError(
                "give k too: fixing one of k, similarity, weights and tau means that none of them is tuned."
            )
        self.k = k
        self.similarity: Similarity = similarity
        self.weights: Weights = weights
        self.tau = tau

    def check(self, *, n_train: int) -> None:
        """Refuse k above the training side."""
        if self.k is not None and self.k > n_train:
            raise RouterError(
                f"router 'knn': k = {self.k} is above the {n_train} queries of the training side; lower k."
            )

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "k": {"log_integer": [1, "n_train"]},
            "similarity": list(get_args(Similarity)),
            "weights": list(get_args(Weights)),
            "tau": {"log": [0.01, 1.0], "where": "weights = softmax"},
            "first": [{"k": 100}, {"k": "n_train"}, {"k": 10}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The paper's k = 100, the query-blind k = n_train, the paper's k = 10, then draws from the space."""
        plain = {"similarity": "cosine", "weights": "uniform", "tau": 0.1}
        drawn = [{"k": k, **plain} for k in dict.fromkeys((min(100, n_train), n_train, min(10, n_train)))][:budget]
        for _ in range(100 * budget):
            if len(drawn) == budget:
                break
            k = min(n_train, int(np.exp(rng.uniform(0.0, np.log(n_train + 1)))))
            similarity, weights = str(rng.choice(get_args(Similarity))), str(rng.choice(get_args(Weights)))
            tau = float(np.exp(rng.uniform(np.log(0.01), 0.0)))
            config = {"k": k, "similarity": similarity, "weights": weights, "tau": tau if weights == "softmax" else 0.1}
            if config not in drawn:
                drawn.append(config)
        return drawn

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """More neighbours, then plainer weights, then a plainer similarity."""
        weights, similarity = get_args(Weights), get_args(Similarity)
        return (-params["k"], weights.index(params["weights"]), similarity.index(params["similarity"]), -params["tau"])

    train_: Side
    price_: float | None

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Keep the training side."""
        self.train_, self.price_ = train, None
        return self

    def predict(self, queries: Side) -> Prediction:
        """Weighted means over the neighbours. [n, M]."""
        answer = self._answer(queries)
        assert isinstance(answer, Prediction)
        return answer

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Keep the training side and the price that its votes depend on."""
        self.train_, self.price_ = train, price
        return self

    def select(self, queries: Side) -> Positions:
        """The model with most of the neighbours' votes. [n]."""
        answer = self._answer(queries)
        assert isinstance(answer, np.ndarray)
        return answer

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Append labelled queries to the table: the same as a fit on all of them."""
        return self.fit(appended(self.train_, more), rng)

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """Add a column to the table: the same as a fit where the new model is observed on the labelled queries."""
        return self.fit(with_model(self.train_, labelled), rng)

    @property
    def n_bytes(self) -> int:
        """Bytes of the training side's embeddings and outcomes."""
        return _n_bytes(self.train_)

    def _answer(self, queries: Side) -> Prediction | Mixture | Calls | Positions:
        job = FitJob(router=self, train=self.train_, queries=queries, rng=np.random.default_rng(0), price=self.price_)
        return next(type(self).predict_many([job])).prediction

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """One neighbour search at the largest k for all jobs of a similarity and split."""
        tables: dict[tuple[int, float | None], _Table] = {}
        for job in jobs:
            if (id(job.train), job.price) not in tables:
                tables[id(job.train), job.price] = _Table(job)
        answers = [_Answer(job, tables[id(job.train), job.price]) for job in jobs]
        searches: dict[tuple[str, int, int], list[_Answer]] = {}
        for answer in answers:
            key = (answer.router.similarity, id(answer.job.train), id(answer.job.queries))
            searches.setdefault(key, []).append(answer)
        shared = [_Shared(group) for group in searches.values()]
        begin = perf_counter()
        for found in nearest([each.search for each in shared]):
            shared[found.search].add(found)
        for each in shared:
            each.flush()
        seconds = (perf_counter() - begin) / len(jobs)
        for answer in answers:
            yield answer.finish(seconds)


class _Table:
    """What the neighbours of one training side and price say: outcomes and whether observed, or votes."""

    def __init__(self, job: FitJob) -> None:
        begin = perf_counter()
        scores, costs = job.train.outcomes
        self.means, self.n_models = mean_outcomes(job.train), scores.shape[1]
        if job.price is None:
            observed = ~np.isnan(scores)
            # Models that were tried on the same queries share a column.
            numbers: dict[bytes, int] = {}
            self.pattern = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in observed.T])
            firsts = np.unique(self.pattern, return_index=True)[1]
            self.rows = np.hstack(
                [np.where(observed, scores, 0.0), np.where(observed, costs, 0.0), observed[:, firsts]]
            )
            #: What each column of `all` is a copy of.
            self.copied = np.concatenate([np.arange(2 * self.n_models), 2 * self.n_models + self.pattern])
            self.columns = np.concatenate([np.arange(2 * self.n_models), 2 * self.n_models + firsts])
        else:
            self.rows = spread_labels(scores, costs, job.price)
            self.copied = self.columns = np.arange(self.n_models)
        self.summed = Summed(self.rows)
        self.seconds = perf_counter() - begin

    @cached_property
    def all(self) -> Floats:
        """The rows with a column for each model's observations: a dense product's bits depend on how many there are."""
        return self.rows if len(self.copied) == self.rows.shape[1] else self.rows.take(self.copied, axis=1)

    def outcomes(self, sums: Floats, mean_scores: Floats, mean_costs: Floats) -> None:
        """Write mean scores and costs of every model [b, M] from sums over neighbours' rows [b, columns]."""
        scores, costs = sums[:, : self.n_models], sums[:, self.n_models : 2 * self.n_models]
        of_pattern = sums[:, 2 * self.n_models :]
        weight = of_pattern if of_pattern.shape[1] == 1 else of_pattern.take(self.pattern, axis=1)
        some: npt.NDArray[np.bool_] | bool = True
        if of_pattern.shape[1] > 1 and not (of_pattern > 0).all():
            some = weight > 0
            mean_scores[:], mean_costs[:] = self.means
        np.divide(scores, weight, out=mean_scores, where=some)
        np.divide(costs, weight, out=mean_costs, where=some)

    def votes(self, sums: Floats) -> Positions:
        """The model of the most votes [b] from sums over neighbours' labels [b, M]."""
        votes = np.where(sums.sum(axis=1, keepdims=True) > 0, sums, self.rows.mean(axis=0))
        total = votes.sum(axis=1, keepdims=True)
        return most_voted(votes / np.where(total > 0, total, 1.0), self.means[1])


class _Answer:
    """One job's answer, filled as neighbours are found."""

    def __init__(self, job: FitJob, table: _Table) -> None:
        assert isinstance(job.router, KNN)
        self.job, self.router, self.table = job, job.router, table
        if self.router.k is None:
            raise RouterError("router 'knn': k is neither given nor tuned; give k.")
        #: A tuned k may exceed the training side of a cross-validation fold.
        self.k = min(self.router.k, job.train.n)
        shape = (job.queries.n, table.n_models)
        self.prediction: Prediction | Positions
        if job.price is None:
            self.prediction = Prediction(scores=np.empty(shape), costs=np.empty(shape))
        else:
            self.prediction = np.empty(job.queries.n, dtype=np.int64)

    @property
    def weighting(self) -> Weighting:
        """How it weighs neighbours."""
        return self.router.weights, self.router.tau if self.router.weights == "softmax" else 0.0

    def add(self, rows: Positions | slice, sums: Floats) -> None:
        """Take the sums of some queries' neighbours over the table's columns. [b] and [b, columns]."""
        if isinstance(self.prediction, Prediction):
            scores, costs = self.prediction.scores[rows], self.prediction.costs[rows]
            self.table.outcomes(sums, scores, costs)
            if not isinstance(rows, slice):  # then these are copies
                self.prediction.scores[rows], self.prediction.costs[rows] = scores, costs
        else:
            self.prediction[rows] = self.table.votes(sums)

    def finish(self, search_seconds: float) -> Fitted:
        """The means, or the choice by votes, with what they cost."""
        return Fitted(
            prediction=self.prediction,
            fit_seconds=self.table.seconds,
            route_seconds=search_seconds,
            n_bytes=_n_bytes(self.job.train),
        )


#: A kind of weights and its temperature.
Weighting = tuple[Weights, float]


def weigh(similarity: Floats, weighting: Weighting) -> Floats:
    """Weights of neighbours, nearest first, up to a factor per row. Both [b, k]."""
    kind, tau = weighting
    if kind == "distance":
        return 1.0 / np.maximum(np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0)), COINCIDENT)
    if kind == "softmax":
        return np.exp((similarity - similarity[:, :1]) / tau)
    return np.ones_like(similarity)


class _Shared:
    """Answers of one search: neighbours come in small parts, and are summed in larger ones."""

    def __init__(self, answers: list[_Answer]) -> None:
        job = answers[0].job
        self.search = Search(
            similarity=answers[0].router.similarity,
            train=job.train,
            queries=job.queries,
            k=max(answer.k for answer in answers),
        )
        #: Those that a dense product serves, part by part: its bits depend on which part.
        self.wide = [answer for answer in answers if is_dense(answer.k, job.train.n)]
        self.narrow: dict[int, list[_Answer]] = {}
        for answer in answers:
            if not is_dense(answer.k, job.train.n):
                self.narrow.setdefault(id(answer.table), []).append(answer)
        self.waiting: list[Neighbours] = []

    def add(self, found: Neighbours) -> None:
        """Take a part of the search's answer."""
        for answer in self.wide:
            weights = weigh(found.similarity[:, : answer.k].astype(np.float64), answer.weighting)
            sums = weighted_sums(found.index[:, : answer.k], weights, answer.table.all)
            answer.add(found.rows, sums[:, answer.table.columns])
        if self.narrow:
            k = max(answer.k for group in self.narrow.values() for answer in group)
            index, similarity = found.index[:, :k], found.similarity[:, :k]
            self.waiting.append(replace(found, index=index.astype(np.int32), similarity=similarity))
            if sum(len(part.rows) for part in self.waiting) >= SUMMED_TOGETHER:
                self.flush()

    def flush(self) -> None:
        """Sum what waits."""
        if not self.waiting:
            return
        rows, index, similarity = (
            np.concatenate([getattr(part, name) for part in self.waiting]) for name in ("rows", "index", "similarity")
        )
        self.waiting = []
        places = slice(rows[0], rows[-1] + 1) if (np.diff(rows) == 1).all() else rows
        similarity = similarity.astype(np.float64)
        for group in self.narrow.values():
            kinds: dict[Weighting, list[_Answer]] = {}
            for answer in group:
                kinds.setdefault(answer.weighting, []).append(answer)
            weights = [
                weigh(similarity[:, : max(answer.k for answer in members)], kind) for kind, members in kinds.items()
            ]
            ends = sorted({answer.k for answer in group})
            for end, sums in zip(ends, running_sums(index, weights, group[0].table.summed, ends), strict=True):
                for number, members in enumerate(kinds.values()):
                    for answer in members:
                        if answer.k == end:
                            answer.add(places, sums[number])


def _n_bytes(train: Side) -> int:
    scores, costs = train.outcomes
    return train.n * int(train.embeddings[0].nbytes) + scores.nbytes + costs.nbytes
