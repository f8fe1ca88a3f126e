"""What does it bring to draw the model at random from a small set? Blending."""

from __future__ import annotations

from itertools import combinations
from typing import Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Calls, Positions, Router, Side, mean_outcomes
from workers.routers.chains import DECIMALS
from workers.routers.pairs import frontier_chain
from workers.training import check_whole


class Blending(Router):
    """Every answer comes from a model that is drawn uniformly from a fixed small set, whatever the query.

    The original blends three chat models turn by turn, each answering to what the others said before; of single prompts
    the draw is what remains. Here it is its expectation: one call a query, of each member with equal probability.

    Readings of this project: a setting is a set of up to `size` models of the frontier of the training means, a single
    model among them; those settings are kept that no other one equals or beats in both training means. A uniform blend
    lies on or below the frontier of its members, so blending can at best follow the zero-router.

    Args:
        size: Models of the largest sets; the original blends three.
    """

    name = "blending"
    summary = "a model drawn at random from a fixed small set"
    source = "Lu et al. 2024, Blending Is All You Need, arXiv 2401.02994, section 3"
    needs_embedding = False
    query_blind = True

    def __init__(self, *, size: int = 3) -> None:
        check_whole("size", size, 1)
        self.size = size

    #: Probability of each model in each setting, the dearest first. [K, M]
    shares_: Floats
    train_scores_: Floats
    train_costs_: Floats

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Find the sets that are worth their cost."""
        means = mean_outcomes(train)
        chain = frontier_chain(train)
        sets = [blend for k in range(1, self.size + 1) for blend in combinations(chain, k)]
        shares = np.zeros((len(sets), len(means[0])))
        for row, blend in zip(shares, sets, strict=True):
            row[list(blend)] = 1.0 / len(blend)
        scores, costs = (shares @ values for values in means)
        kept = undominated(np.round(scores, DECIMALS), np.round(costs, DECIMALS))
        self.shares_, self.train_scores_, self.train_costs_ = shares[kept], scores[kept], costs[kept]
        return self

    def predict(self, queries: Side) -> Calls:
        """The same shares for every query, answered and called."""
        shares = np.broadcast_to(self.shares_[:, None], (len(self.shares_), queries.n, self.shares_.shape[1]))
        return Calls(answers=shares, called=shares, train_scores=self.train_scores_, train_costs=self.train_costs_)


def undominated(scores: Floats, costs: Floats) -> Positions:
    """Settings that no other equals or beats in both score and cost, the dearest first; of equals the first. [K].

    Args:
        scores: [S]
        costs: [S]
    """
    order = np.lexsort((-scores, costs))
    before = np.append(-np.inf, np.maximum.accumulate(scores[order])[:-1])
    return order[scores[order] > before][::-1]
