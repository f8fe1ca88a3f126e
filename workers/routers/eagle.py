"""Who wins battles, in general and near the query? Eagle: global and local Elo ratings, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.growing import appended, new_column, with_model
from workers.routers.labels import TIE, most_voted
from workers.routers.lookup import Lookup, LookupRouter
from workers.routers.parameters import check_number, filled, log_integer
from workers.sides import subset
from workers.training import check_whole

#: Where every model starts; only differences of ratings matter.
START = 1000.0
#: Rating points by which a model wins 10 battles to 1.
SCALE = 400.0
#: Orders of the training queries over which the global ratings are averaged.
ORDERS = 16


class Eagle(LookupRouter):
    """Eagle: rating = P · global Elo + (1 - P) · local Elo, the latter over the battles of the N nearest queries.

    Every two models that were both observed on a query fight there: the higher score wins, equal scores are a draw. Elo
    moves a rating by K · (result - expected result), 1 / (1 + 10^((R' - R) / 400)) being expected against R'.

    Readings of this project.
    - Battles of one query are simultaneous: all are expected from the ratings before the query, and a model moves by K
      times the mean of (result - expected) over its opponents, so neither their order nor that of the models matters.
      With two models this is plain Elo. The sum in place of the mean would swing without end in large pools.
    - Elo remembers some 20 queries at K = 32, so a global rating in the benchmark's order would be about its last task:
      it is the mean over 16 random orders of the training queries.
    - Local ratings start afresh and take the neighbours from the farthest to the nearest, who has the last word.
    - On the scale of scores, ŝ = s̄ + 2·W - 1, where W is the result expected of the model against a random one of the
      pool (itself included) and s̄ the mean over models of the training mean score: exact where scores are 0 or 1, since
      then a battle's expected result is ½ + (s - s') / 2. Costs are the training means; a model that training never
      observed is nobody's choice.
    - As a selector battles are about utility at the given price, and the highest rating is chosen, ties to the cheaper.

    The score and P 0.5, N 20, K 32 were checked in two reimplementations (minki-j/eagle-router and
    AymanMahfuz27/Eagle-Router on GitHub), not in the paper. At P = 1 it is query-blind.

    Args:
        global_weight: P.
        neighbours: N.
        k_factor: K.
    """

    name = "eagle"
    summary = "global and local Elo ratings of the models, training-free"
    source = "Zhao et al. 2024, arXiv 2409.15518 (Eagle), Score(X) = P · Global(X) + (1 - P) · Local(X)"
    formulations = ("utility", "selection")
    tunables = ("global_weight", "neighbours", "k_factor")

    def __init__(self, *, global_weight: float = 0.5, neighbours: int = 20, k_factor: float = 32.0) -> None:
        check_number("global_weight", global_weight, 0.0, 1.0)
        check_whole("neighbours", neighbours, 1)
        check_number("k_factor", k_factor, 0.0, above=True)
        self.global_weight = global_weight
        self.neighbours = neighbours
        self.k_factor = k_factor

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "global_weight": {"uniform": [0.0, 1.0]},
            "neighbours": {"log_integer": [5, 200]},
            "k_factor": {"choices": [4.0, 8.0, 16.0, 32.0, 64.0]},
            "first": [
                {"global_weight": 0.5, "neighbours": 20, "k_factor": 32.0},
                {"global_weight": 1.0, "neighbours": 20, "k_factor": 32.0},
            ],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The paper's setting, global ratings alone (query-blind), then draws."""
        paper = {"global_weight": 0.5, "neighbours": 20, "k_factor": 32.0}

        def draw() -> dict[str, Any]:
            weight, neighbours = float(rng.uniform(0.0, 1.0)), log_integer(rng, 5, 200)
            return {
                "global_weight": weight,
                "neighbours": neighbours,
                "k_factor": float(rng.choice([4.0, 8.0, 16.0, 32.0, 64.0])),
            }

        return filled([paper, {**paper, "global_weight": 1.0}], draw, budget)

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """More weight on the global ratings, then more neighbours, then smaller steps."""
        return (-params["global_weight"], -params["neighbours"], params["k_factor"])

    #: Global ratings in each order of the training queries. [ORDERS, M]
    ratings_: Floats

    def learn(self, rng: np.random.Generator) -> None:
        """Play all battles of the training side in each order."""
        self.ratings_ = np.full((ORDERS, len(self.train_.models)), START)
        self.ratings_ = self._replayed(self.train_, rng)

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Play the further battles from the ratings that there are, and append the queries to the table."""
        self.ratings_ = self._replayed(more, rng)
        self.train_ = appended(self.train_, more)
        return self

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """The new model enters at the mean rating and plays the labelled queries; the others' global ratings stay."""
        column = new_column([model.name for model in self.train_.models], labelled)
        self.train_ = with_model(self.train_, labelled)
        self.ratings_ = np.insert(self.ratings_, column, self.ratings_.mean(axis=1), axis=1)
        tried = subset(self.train_, np.flatnonzero(~np.isnan(self.train_.outcomes[0][:, column])))
        fought = battles(self._outcomes(tried))
        for step in _orders(tried, rng).T:
            self.ratings_[:, column] = played(self.ratings_, fought[step], self.k_factor)[:, column]
        return self

    def _replayed(self, side: Side, rng: np.random.Generator) -> Floats:
        """Global ratings after the battles of a side, in each order."""
        fought, ratings = battles(self._outcomes(side)), self.ratings_
        for step in _orders(side, rng).T:
            ratings = played(ratings, fought[step], self.k_factor)
        return ratings

    def _outcomes(self, side: Side) -> Floats:
        """What battles are about: scores, or utilities at the price of cost. NaN = not observed. [n, M]."""
        scores, costs = side.outcomes
        return scores if self.price_ is None else scores - self.price_ * costs

    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """Local ratings."""
        local = partial(local_ratings, battles(self._outcomes(self.train_)), self.k_factor)
        return [Lookup(train=self.train_, queries=queries, k=self.neighbours, reduce=local)]

    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction | Positions:
        """Expected results on the scale of scores, or the model of the best."""
        ratings = self.global_weight * self.ratings_.mean(axis=0) + (1.0 - self.global_weight) * found[0]
        seen = (~np.isnan(self.train_.outcomes[0])).any(axis=0)
        means, mean_costs = mean_outcomes(self.train_)
        if not seen.any():
            results = np.zeros_like(ratings)
        else:
            results = np.where(seen, expected(ratings)[:, :, seen].mean(axis=2), -1.0)
        if self.price_ is not None:
            return most_voted(results, mean_costs)
        level = means[seen].mean() if seen.any() else 0.0
        scores = np.where(seen, level + 2.0 * results - 1.0, means)
        return Prediction(scores=scores, costs=np.broadcast_to(mean_costs, scores.shape))


def battles(outcomes: Floats) -> Floats:
    """What each model brings home from each query: results summed, opponents counted, and whether it took part.

    Args:
        outcomes: What decides the battles, NaN = takes no part. [n, M]

    Returns:
        [n, 3, M]
    """
    present = ~np.isnan(outcomes)
    results, opponents = np.zeros_like(outcomes), np.zeros_like(outcomes)
    for other in range(outcomes.shape[1]):
        lead = outcomes - outcomes[:, other, None]
        fought = ~np.isnan(lead)
        fought[:, other] = False
        results += np.where(fought, 0.5 + 0.5 * (lead > TIE) - 0.5 * (lead < -TIE), 0.0)
        opponents += fought
    return np.stack([results, opponents, present], axis=1)


def expected(ratings: Floats) -> Floats:
    """Expected result of each model against each other, ½ against itself. [..., M, M]."""
    strength = 10.0 ** ((ratings - START) / SCALE)
    results: Floats = strength[..., :, None] / (strength[..., :, None] + strength[..., None, :])
    return results


def played(ratings: Floats, fought: Floats, k: float) -> Floats:
    """Ratings after one query's battles, all at once. [..., M].

    Args:
        ratings: Before the query. [..., M]
        fought: The query's row of `battles`. [..., 3, M]
        k: Size of a step.
    """
    results, opponents, present = np.moveaxis(fought, -2, 0)
    awaited = (expected(ratings) * present[..., None, :]).sum(axis=-1) - 0.5
    moved: Floats = ratings + k * np.where(opponents > 0, (results - awaited) / np.maximum(opponents, 1), 0.0)
    return moved


def local_ratings(fought: Floats, k: float, index: Positions, similarity: Floats) -> Floats:
    """Ratings after the battles of each row's neighbours, the farthest first. [b, M].

    Args:
        fought: `battles` of the training side. [n_train, 3, M]
        k: Size of a step.
        index: Neighbours, nearest first. [b, N]
        similarity: Not looked at. [b, N]
    """
    ratings = np.full((len(index), fought.shape[2]), START)
    for step in index.T[::-1]:
        ratings = played(ratings, fought[step], k)
    return ratings


def _orders(side: Side, rng: np.random.Generator) -> Positions:
    """Random orders of a side's queries, whatever order they come in. [ORDERS, n]."""
    canonical = np.argsort(side.rows, kind="stable")
    return np.stack([rng.permutation(canonical) for _ in range(ORDERS)])
