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
from workers.routers.inverted_lists import InvertedLists, lists_for, part_of, recall, require_faiss, sampled
from workers.routers.labels import most_voted, spread_labels
from workers.routers.neighbours import Neighbours, Search, Similarity, nearest
from workers.routers.sums import Summed, is_dense, running_sums, weighted_sums

Weights = Literal["uniform", "distance", "softmax"]

Index = Literal["exact", "ivf"]

#: Parameters that an exact search does not have.
OF_INDEX = ("index", "nprobe", "index_from")
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
        index: `exact`: every similarity; `ivf`: faiss's inverted lists, whose recall is measured.
        nprobe: Lists that `ivf` looks into.
        index_from: Training queries from which on there is an index; `ivf` searches fewer exactly.
    """

    name = "knn"
    summary = "mean outcome of the k nearest training queries"
    source = "Li 2025, arXiv 2505.12601, section 4 (k = 10 and 100)"
    formulations = ("utility", "selection")
    tunables = ("k", "similarity", "weights", "tau")

    def __init__(
        self,
        *,
        k: int | None = None,
        similarity: Similarity = "cosine",
        weights: Weights = "uniform",
        tau: float = 0.1,
        index: Index = "exact",
        nprobe: int = 32,
        index_from: int = 100_000,
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
        if index not in get_args(Index):
            raise ValueError(f"index must be one of {', '.join(get_args(Index))}, not {index!r}.")
        for name, value in (("nprobe", nprobe), ("index_from", index_from)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, not {value!r}.")
        if index == "exact" and (nprobe, index_from) != (32, 100_000):
            raise ValueError("nprobe and index_from mean something with `index: ivf` only; give it too.")
        self.k = k
        self.similarity: Similarity = similarity
        self.weights: Weights = weights
        self.tau = tau
        self.index: Index = index
        self.nprobe = nprobe
        self.index_from = index_from

    def params(self) -> dict[str, Any]:
        """Without those of the index where there is none: units that were keyed before there was one keep their key."""
        given = super().params()
        return given if self.index == "ivf" else {name: given[name] for name in given if name not in OF_INDEX}

    def approximates(self, *, k: int, n_train: int) -> bool:
        """Whether an index answers: not below `index_from`, nor where its lists hold fewer than k rows on average."""
        return self.index == "ivf" and n_train >= self.index_from and k * lists_for(n_train) <= self.nprobe * n_train

    def check(self, *, n_train: int) -> None:
        """Refuse k above the training side, and an index without its library."""
        if self.index == "ivf":
            require_faiss()
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
    #: Not saved: the same rows give the same index.
    _lists: InvertedLists | None = None

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Keep the training side, and index it if an index is to answer."""
        return self._kept(train, None)

    def predict(self, queries: Side) -> Prediction:
        """Weighted means over the neighbours. [n, M]."""
        answer = self._answer(queries)
        assert isinstance(answer, Prediction)
        return answer

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Keep the training side and the price that its votes depend on."""
        return self._kept(train, price)

    def _kept(self, train: Side, price: float | None) -> Self:
        self.train_, self.price_, self._lists = train, price, None
        self._index()
        return self

    def _index(self) -> None:
        """Build the index if one is to answer and there is none, as after a fit or in a router that was loaded."""
        train, k = self.train_, self.k
        if self._lists is None and k is not None and self.approximates(k=min(k, train.n), n_train=train.n):
            self._lists = InvertedLists(train, self.similarity)

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
        """Bytes of the training side's embeddings and outcomes, and of their index."""
        return _n_bytes(self.train_) + (self._lists.n_bytes if self._lists else 0)

    def _answer(self, queries: Side) -> Prediction | Mixture | Calls | Positions:
        self._index()
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
        searches: dict[tuple[object, ...], list[_Answer]] = {}
        for answer in answers:
            searches.setdefault(answer.space, []).append(answer)
        shared = [_Shared(group) for group in searches.values()]
        _search_exactly([each for each in shared if not each.approximate])
        _search_lists([each for each in shared if each.approximate])
        for answer in answers:
            yield answer.finish()


def _search_exactly(shared: Sequence[_Shared]) -> None:
    """All searches at once, so that they share what they can."""
    begin = perf_counter()
    for found in nearest([each.search for each in shared]):
        shared[found.search].add(found)
    for each in shared:
        each.flush()
    seconds, answers = perf_counter() - begin, [answer for each in shared for answer in each.answers]
    for answer in answers:
        answer.route_seconds = seconds / len(answers)


def _search_lists(shared: Sequence[_Shared]) -> None:
    """One index of a training side and similarity after the other: each holds a copy of the side's rows."""
    spaces: dict[tuple[object, ...], list[_Shared]] = {}
    for each in shared:
        spaces.setdefault((each.search.similarity, id(each.search.train)), []).append(each)
    for members in spaces.values():
        first, begin = members[0].search, perf_counter()
        lists = members[0].answers[0].router._lists or InvertedLists(first.train, first.similarity)
        built = (perf_counter() - begin) / sum(len(each.answers) for each in members)
        for each in members:
            begin = perf_counter()
            for found in lists.search(each.search.queries, each.search.k, each.answers[0].router.nprobe):
                each.add(found)
            each.flush()
            seconds = (perf_counter() - begin) / len(each.answers)
            for answer in each.answers:
                answer.fit_seconds += built
                answer.route_seconds, answer.n_bytes = seconds, answer.n_bytes + lists.n_bytes


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
        self.approximate = self.router.approximates(k=self.k, n_train=job.train.n)
        self.fit_seconds, self.route_seconds, self.n_bytes = table.seconds, 0.0, _n_bytes(job.train)
        #: The search of the index; None: it was not asked.
        self.searched: _Shared | None = None
        shape = (job.queries.n, table.n_models)
        self.prediction: Prediction | Positions
        if job.price is None:
            self.prediction = Prediction(scores=np.empty(shape), costs=np.empty(shape))
        else:
            self.prediction = np.empty(job.queries.n, dtype=np.int64)

    @property
    def space(self) -> tuple[object, ...]:
        """What answers of one search have in common; an index's k nearest are not the first of a larger k's."""
        key = (self.router.similarity, id(self.job.train), id(self.job.queries))
        return (*key, self.k, self.router.nprobe) if self.approximate else key

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

    def finish(self) -> Fitted:
        """The means, or the choice by votes, with what they cost."""
        return Fitted(
            prediction=self.prediction,
            fit_seconds=self.fit_seconds,
            route_seconds=self.route_seconds,
            n_bytes=self.n_bytes,
            more_metrics=self._neighbour_recall if self.router.index == "ivf" else None,
        )

    def _neighbour_recall(self) -> dict[str, float]:
        return {"neighbour_recall": self.searched.recall if self.searched else 1.0}


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
        self.answers = answers
        self.approximate, job = answers[0].approximate, answers[0].job
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
        if self.approximate:
            self.sample = sampled(job.queries.n)
            self.similarity = np.empty((len(self.sample), self.search.k), dtype=np.float32)
            for answer in answers:
                answer.searched = self

    @cached_property
    def recall(self) -> float:
        """How often the index was right, by the queries of the sample."""
        queries = part_of(self.search.queries, self.sample)
        return recall(replace(self.search, queries=queries), self.similarity)

    def add(self, found: Neighbours) -> None:
        """Take a part of the search's answer."""
        if self.approximate:
            _, there, here = np.intersect1d(self.sample, found.rows, assume_unique=True, return_indices=True)
            self.similarity[there] = found.similarity[here]
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
