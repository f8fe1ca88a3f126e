"""Do models, or queries, that were rated alike predict each other? Collaborative filtering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Prediction, Side, mean_outcomes
from workers.routers.labels import TIE
from workers.routers.lookup import Lookup, LookupRouter, alike, sums
from workers.routers.parameters import filled, log_integer
from workers.training import check_whole

Weights = Literal["similarity", "uniform"]


class CFItem(LookupRouter):
    """Item-based collaborative filtering: a model's score on a query from those of the models most like it.

    Models are alike by adjusted cosine: the cosine of their training scores after each query's mean score is taken
    off, over the queries that observed both (Sarwar et al. 2001, section 3.1.3). The prediction is the weighted sum
    over the k most similar models (section 3.2.1).

    Readings of this project: a query to route is cold, rated by nobody, so its ratings are first filled in through x,
    by the means of its `cold` nearest training queries; the sum is over deviations from each model's training mean;
    the model itself (similarity 1) is among the k; only positive similarities count; models that tie with the k-th all
    count. So k = 1 is kNN, and with all training queries as neighbours it is the zero-router. Costs are the means of
    the same nearest queries.

    Args:
        k: Models that a prediction is made from; Sarwar et al. settle on 30.
        cold: Nearest training queries that fill in a query's ratings.
    """

    name = "cf-item"
    summary = "item-based collaborative filtering over models; cold queries through x"
    source = "Sarwar et al. 2001 (item-based collaborative filtering), sections 3.1.3 and 3.2.1"
    tunables = ("k", "cold")

    def __init__(self, *, k: int = 30, cold: int = 100) -> None:
        check_whole("k", k, 1)
        check_whole("cold", cold, 1)
        self.k = k
        self.cold = cold

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "k": {"log_integer": [1, 30]},
            "cold": {"log_integer": [1, "n_train"]},
            "first": [{"k": 30, "cold": 100}, {"k": 30, "cold": "n_train"}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The defaults, the query-blind limit that averages all queries, then draws."""
        return filled(
            [{"k": 30, "cold": min(100, n_train)}, {"k": 30, "cold": n_train}],
            lambda: {"k": log_integer(rng, 1, 30), "cold": log_integer(rng, 1, n_train)},
            budget,
        )

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """More queries, then fewer models."""
        return (-params["cold"], params["k"])

    def learn(self, rng: np.random.Generator) -> None:
        """Weights of the models in each other's predictions."""
        self.weights_ = _nearest_models(adjusted_cosine(self.train_.outcomes[0]), self.k)

    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """Sums of the nearest queries' outcomes."""
        return [Lookup(train=self.train_, queries=queries, k=self.cold, reduce=sums(_outcome_table(self.train_)))]

    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction:
        """Weighted deviations of the filled-in scores. [n, M]."""
        means = mean_outcomes(self.train_)
        scores, costs, observed = np.hsplit(found[0], 3)
        filled_in, costs = (
            np.where(observed > 0, total / np.maximum(observed, 1), mean)
            for total, mean in zip((scores, costs), means, strict=True)
        )
        return Prediction(scores=means[0] + (filled_in - means[0]) @ self.weights_.T, costs=costs)


class CFUser(LookupRouter):
    """User-based collaborative filtering: queries are users, and a query's most similar ones rate the models for it.

    ŝ(x, m) = r̄ + Σ w (s(u, m) - r̄_u) / Σ |w| over the k most similar training queries u that observed m (Su &
    Khoshgoftaar 2009, section 2.1.2; Resnick et al. 1994), where r̄_u is a query's mean observed score: a neighbour that
    observed only weak models does not speak against the others.

    Readings of this project: a query to route is cold, so similarity is the cosine of the embeddings where the source
    has the correlation of ratings, 0 where it is negative, and its mean score r̄ is the weighted mean of r̄_u; a model
    that none of the k observed has its mean training deviation; costs are the neighbours' weighted means, not
    adjusted. On complete data it is the similarity-weighted kNN. Uniform weights over all training queries are the
    query-blind limit.

    Args:
        k: Neighbours.
        weights: `similarity`, or `uniform`.
    """

    name = "cf-user"
    summary = "user-based collaborative filtering over queries, similar by x"
    source = "Su & Khoshgoftaar 2009 (survey of collaborative filtering), section 2.1; Resnick et al. 1994"
    tunables = ("k", "weights")

    def __init__(self, *, k: int = 30, weights: Weights = "similarity") -> None:
        check_whole("k", k, 1)
        if weights not in get_args(Weights):
            raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}, not {weights!r}.")
        self.k = k
        self.weights: Weights = weights

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "k": {"log_integer": [1, "n_train"]},
            "weights": list(get_args(Weights)),
            "first": [{"k": 30, "weights": "similarity"}, {"k": "n_train", "weights": "uniform"}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The defaults, the query-blind limit, then draws."""
        return filled(
            [{"k": min(30, n_train), "weights": "similarity"}, {"k": n_train, "weights": "uniform"}],
            lambda: {"k": log_integer(rng, 1, n_train), "weights": str(rng.choice(get_args(Weights)))},
            budget,
        )

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """More neighbours, then plainer weights."""
        return (-params["k"], params["weights"] != "uniform")

    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """Weighted sums of the neighbours' deviations, outcomes and mean scores."""
        means, rated = query_means(self.train_.outcomes[0])
        deviations = np.nan_to_num(self.train_.outcomes[0] - means[:, None])
        table = np.column_stack([deviations, _outcome_table(self.train_), means, rated])
        weigh = alike if self.weights == "uniform" else _positive
        return [Lookup(train=self.train_, queries=queries, k=self.k, reduce=sums(table, weigh))]

    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction:
        """Means of the neighbours, adjusted for how each query is scored. [n, M]."""
        overall = mean_outcomes(self.train_)
        means, rated = query_means(self.train_.outcomes[0])
        deviations, _, costs, weight = np.hsplit(found[0][:, :-2], 4)
        mean, total = found[0][:, -2:-1], found[0][:, -1:]
        level = np.where(total > 0, mean / np.where(total > 0, total, 1.0), means[rated].mean() if rated.any() else 0.0)
        typical = overall[0] - (means[rated].mean() if rated.any() else 0.0)
        some, safe = weight > 0, np.where(weight > 0, weight, 1.0)
        return Prediction(
            scores=level + np.where(some, deviations / safe, typical), costs=np.where(some, costs / safe, overall[1])
        )


def query_means(scores: Floats) -> tuple[Floats, Floats]:
    """Mean observed score of every query, 0 where there is none, and whether there is one. Both [n]."""
    observed = ~np.isnan(scores)
    counts = observed.sum(axis=1)
    return np.where(observed, scores, 0.0).sum(axis=1) / np.maximum(counts, 1), counts > 0


def adjusted_cosine(scores: Floats) -> Floats:
    """Cosine of every two models' scores after each query's mean is taken off, over queries that observed both.

    0 where nothing varies; 1 of a model with itself. [M, M].
    """
    means, _ = query_means(scores)
    observed = (~np.isnan(scores)).astype(np.float64)
    deviations = np.nan_to_num(scores - means[:, None])
    squares = (deviations**2).T @ observed
    norms = np.sqrt(squares * squares.T)
    varied = norms > TIE
    cosine: Floats = np.where(varied, deviations.T @ deviations / np.where(varied, norms, 1.0), 0.0)
    np.fill_diagonal(cosine, 1.0)
    return cosine


def _nearest_models(similarity: Floats, k: int) -> Floats:
    """Positive similarities of each model's k nearest and those that tie with the k-th; rows sum to 1. [M, M]."""
    if k < len(similarity):
        last = np.sort(similarity, axis=1)[:, -k, None]
        similarity = np.where(similarity >= last - TIE, similarity, 0.0)
    positive = np.maximum(similarity, 0.0)
    weights: Floats = positive / positive.sum(axis=1, keepdims=True)
    return weights


def _outcome_table(train: Side) -> Floats:
    """Scores, costs and whether observed; 0 where not. [n, 3M]."""
    scores, costs = train.outcomes
    return np.hstack([np.nan_to_num(scores), np.nan_to_num(costs), ~np.isnan(scores)])


def _positive(similarity: Floats) -> Floats:
    return np.maximum(similarity, 0.0)
