"""What does a router choose at one price of cost, and how well (protocol 2, last paragraph)?

Choices come as probabilities of choosing each model, [n, M] with rows that sum to 1: a decision is a row with one 1,
a router without decisions gives expectations.
"""

from __future__ import annotations

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Mixture, Positions

#: Scores this close to a query's best are as good.
SCORE_TOLERANCE = 1e-9


def one_hot(choices: Positions, n_models: int) -> Floats:
    """Decisions [n] as probabilities [n, M]."""
    probabilities = np.zeros((len(choices), n_models))
    probabilities[np.arange(len(choices)), choices] = 1.0
    return probabilities


def probabilities(choice: Positions | Mixture, n_models: int) -> Floats:
    """Decisions or a mixture as probabilities. [n, M]."""
    return choice.probabilities if isinstance(choice, Mixture) else one_hot(choice, n_models)


def certain(mixture: Mixture) -> Positions | None:
    """The models that a mixture names if it leaves nothing to chance, [n]; else None."""
    sure = (mixture.probabilities == 1.0).any(axis=1).all()
    return mixture.probabilities.argmax(axis=1) if sure else None


def utility(probabilities: Floats, scores: Floats, costs: Floats, price: float, called: Floats | None = None) -> float:
    """100 x mean of score - price * cost of the chosen models; with `called` [n, M] the cost of all calls counts."""
    if called is not None:
        return 100 * float((probabilities * scores - price * called * costs).sum(axis=1).mean())
    return 100 * float((probabilities * (scores - price * costs)).sum(axis=1).mean())


def shares(probabilities: Floats) -> Floats:
    """Share of the queries that each model gets, [M]."""
    share: Floats = probabilities.mean(axis=0)
    return share


def entropy(shares: Floats) -> float:
    """Entropy of the shares in bits: 0 when one model gets all, log2 M when all get the same."""
    some = shares[shares > 0]
    return abs(float((some * np.log2(some)).sum()))


def optimal_rate(probabilities: Floats, scores: Floats, costs: Floats) -> float:
    """How often the choice is the cheapest model within 1e-9 of the query's best score; equal costs all count."""
    good = scores >= scores.max(axis=1, keepdims=True) - SCORE_TOLERANCE
    cheapest = np.where(good, costs, np.inf).min(axis=1, keepdims=True)
    return float((probabilities * (good & (costs == cheapest))).sum(axis=1).mean())
