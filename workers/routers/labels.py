"""Which models does a training query vote for? Ties are spread, never given to the first listed (protocol 1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats

#: Utilities, costs and shares of votes closer than this are equal.
TIE = 1e-9


def spread_labels(scores: Floats, costs: Floats, price: float) -> Floats:
    """Each query's vote, shared equally by its cheapest best-utility models.

    Args:
        scores: Observed scores, NaN = not observed. [n, M]
        costs: Observed costs in units of c_ref. [n, M]
        price: Price of cost λ; utility is score - λ·cost.

    Returns:
        Shares; a row sums to 1, or to 0 where no model is observed. [n, M]
    """
    observed = ~np.isnan(scores)
    utility = np.where(observed, scores - price * costs, -np.inf)
    best = observed & (utility >= utility.max(axis=1, keepdims=True) - TIE)
    cost = np.where(best, costs, np.inf)
    chosen = best & (cost <= cost.min(axis=1, keepdims=True) + TIE)
    labels: Floats = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
    return labels


def most_voted(votes: Floats, mean_costs: Floats) -> npt.NDArray[np.int64]:
    """The model with most votes in each row; ties to the lower mean training cost, then the earlier model. [n].

    Args:
        votes: Shares of the votes; rows sum to 1. [n, M]
        mean_costs: Mean training cost of every model. [M]
    """
    tied = votes >= votes.max(axis=1, keepdims=True) - TIE
    models: npt.NDArray[np.int64] = np.where(tied, mean_costs, np.inf).argmin(axis=1)
    return models


def most_probable(logits: Floats, mean_costs: Floats) -> npt.NDArray[np.int64]:
    """The model of the largest softmax in each row; ties as in `most_voted`. [n].

    Args:
        logits: [n, M]
        mean_costs: Mean training cost of every model. [M]
    """
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return most_voted(odds / odds.sum(axis=1, keepdims=True), mean_costs)
