"""What does a cascade call and answer, and which of its settings would some price of cost choose?"""

from __future__ import annotations

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics.areas import hull
from workers.metrics.frontier import Path
from workers.routers.base import Positions, Side, mean_outcomes

#: Training means are compared after rounding to so many decimals: the order of rows moves their last bits.
DECIMALS = 9


def filled_outcomes(train: Side) -> tuple[Floats, Floats]:
    """Scores and costs where a call that was not observed has its model's training means. Both [n, M]."""
    scores, costs = (
        np.where(np.isnan(values), means, values)
        for values, means in zip(train.outcomes, mean_outcomes(train), strict=True)
    )
    return scores, costs


def by_cost(train: Side) -> Positions:
    """All models by mean training cost, the cheapest first; of equals the better first. [M]."""
    scores, costs = (np.round(means, DECIMALS) for means in mean_outcomes(train))
    return np.lexsort((-scores, costs))


def calls_along(chain: Positions, accepted: Floats, n_models: int) -> tuple[Floats, Floats]:
    """Who answers and who is called when models are asked in turn until an answer is accepted. Both [..., n, M].

    Args:
        chain: Models in the order in which they are asked. [L]
        accepted: Probability that each one's answer is accepted once it is there; that of the last is given anyway.
            [..., n, L]
        n_models: M.
    """
    accepted = np.array(accepted, dtype=np.float64)
    accepted[..., -1] = 1.0
    reached = np.cumprod(np.concatenate([np.ones_like(accepted[..., :1]), 1.0 - accepted[..., :-1]], axis=-1), axis=-1)
    answers, called = (np.zeros((*accepted.shape[:-1], n_models)) for _ in range(2))
    for place, model in enumerate(chain):
        answers[..., model] += reached[..., place] * accepted[..., place]
        called[..., model] += reached[..., place]
    return answers, called


def mean_of_settings(answers: Floats, called: Floats, scores: Floats, costs: Floats) -> tuple[Floats, Floats]:
    """Mean score and cost of every setting. Both [K].

    Args:
        answers: As in `Calls`. [K, n, M]
        called: As in `Calls`. [K, n, M]
        scores: Complete. [n, M]
        costs: Complete. [n, M]
    """
    return np.einsum("knm,nm->k", answers, scores) / len(scores), np.einsum("knm,nm->k", called, costs) / len(costs)


def priced(scores: Floats, costs: Floats) -> Positions:
    """The settings that some price of cost would choose by their means, the dearest first.

    They are the vertices of the means' least non-decreasing concave majorant; of equal settings the first.

    Args:
        scores: Mean score of every setting. [K]
        costs: Mean cost. [K]
    """
    path = Path(costs=np.round(costs, DECIMALS), scores=np.round(scores, DECIMALS), prices=np.full(len(scores), np.nan))
    return hull(path, left="cheapest").points[::-1]
