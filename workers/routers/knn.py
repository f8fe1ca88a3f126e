"""What did the nearest training queries show? k nearest neighbours, the paper's simple router."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np

from workers.errors import RouterError
from workers.routers.base import Calls, FitJob, Fitted, Mixture, Positions, Prediction, Router, Side
from workers.routers.growing import appended, with_model
from workers.routers.inverted_lists import InvertedLists, lists_for, require_faiss
from workers.routers.neighbour_answers import Question, Weights, answered, table_bytes
from workers.routers.neighbours import Similarity

Index = Literal["exact", "ivf"]

#: Parameters that an exact search does not have.
OF_INDEX = ("index", "nprobe", "index_from")


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
        return table_bytes(self.train_) + (self._lists.n_bytes if self._lists else 0)

    def _answer(self, queries: Side) -> Prediction | Mixture | Calls | Positions:
        self._index()
        job = FitJob(router=self, train=self.train_, queries=queries, rng=np.random.default_rng(0), price=self.price_)
        return next(type(self).predict_many([job])).prediction

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """One neighbour search at the largest k for all jobs of a similarity and split."""
        yield from answered([_question(job) for job in jobs])


def _question(job: FitJob) -> Question:
    router = job.router
    assert isinstance(router, KNN)
    if router.k is None:
        raise RouterError("router 'knn': k is neither given nor tuned; give k.")
    k = min(router.k, job.train.n)  # a tuned k may exceed the training side of a cross-validation fold
    return Question(
        job=job,
        k=k,
        similarity=router.similarity,
        weighting=(router.weights, router.tau if router.weights == "softmax" else 0.0),
        nprobe=router.nprobe if router.approximates(k=k, n_train=job.train.n) else None,
        lists=router._lists,
        tells_recall=router.index == "ivf",
    )
