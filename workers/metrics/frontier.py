"""Which operating points does a router reach as the price of cost varies (protocol 2.1)?

Costs are in units of cost 1 (c_ref) everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.metrics.envelope import envelopes
from workers.routers.base import Calls, Mixture, Positions, Prediction

Lambda = Literal["exact", "grid"]

#: Break points whose prices of cost agree to this relative difference are one.
PRICE_TOLERANCE = 1e-12

#: RouterBench's 32 values (Hu et al. 2024; `WILLINGNESS_TO_PAY` in `utils.py` of github.com/withmartian/routerbench):
#: what one unit of score may cost.
WILLINGNESS_TO_PAY = (
    *(1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 10.0),
    *(50.0, 100.0, 500.0, 1e3, 2e3, 3e3, 4e3, 5e3, 7.5e3, 1e4, 2.5e4, 5e4, 7.5e4, 1e5, 1e6, 1e9),
)

#: The same as prices of cost, ascending. RouterBench maximises w * score - cost, which chooses as
#: score - cost / w does, so the price is 1 / w. Its costs are dollars (per token); reading w in units of cost 1 is
#: this project's choice, so that the grid means the same on every benchmark.
GRID_PRICES: Floats = 1.0 / np.array(WILLINGNESS_TO_PAY[::-1])
GRID_PRICES.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """Operating points by ascending price of cost: point k holds from `prices[k]` up to `prices[k + 1]`."""

    #: Mean costs of the chosen models. [K]
    costs: Floats
    #: Mean scores of the chosen models. [K]
    scores: Floats
    #: The smallest price of cost at which each point holds; NaN for a router without one. [K]
    prices: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """What every query contributes to a path: its outcome at the lowest price, then the changes in price order.

    A path is a weighted sum over it, so one walk serves any resample of the queries.
    """

    #: Cost of each query's choice at the lowest price. [n]
    first_costs: Floats
    #: Score of each query's choice at the lowest price. [n]
    first_scores: Floats
    #: The query that changes its choice at each step, by ascending price. [E]
    queries: Positions
    #: Change of that query's cost. [E]
    cost_steps: Floats
    #: Change of that query's score. [E]
    score_steps: Floats
    #: How many steps are taken before each point. [K]
    ends: Positions
    #: As in `Path`. [K]
    prices: Floats

    def path(self) -> Path:
        """The path over all queries, each counted once."""
        costs, scores = self.resampled(np.ones((1, len(self.first_costs))))
        return Path(costs=costs[0], scores=scores[0], prices=self.prices)

    def resampled(self, multiplicities: npt.NDArray[np.number]) -> tuple[Floats, Floats]:
        """Mean costs and scores of the path's points in each resample of the queries.

        Args:
            multiplicities: How often each draw contains each query. [B, n]

        Returns:
            Costs and scores, NaN throughout a draw that contains no query. Both [B, K].
        """
        weights = np.asarray(multiplicities, dtype=np.float64)
        stepping = weights.take(self.queries, axis=1)
        totals = weights.sum(axis=1, keepdims=True)
        totals[totals == 0] = np.nan
        costs = self._sums(weights, self.first_costs, stepping, self.cost_steps) / totals
        scores = self._sums(weights, self.first_scores, stepping, self.score_steps) / totals
        # Observed costs are not negative; a sum of differences can be, by a rounding error.
        return np.maximum(costs, 0.0), scores

    def _sums(self, weights: Floats, first: Floats, stepping: Floats, steps: Floats) -> Floats:
        sums = np.empty((len(weights), len(steps) + 1))
        sums[:, 0] = np.einsum("bn,n->b", weights, first)
        np.multiply(stepping, steps, out=sums[:, 1:])
        # `take` keeps rows contiguous, so that later sums add in one order whatever the number of draws.
        return np.cumsum(sums, axis=1, out=sums).take(self.ends, axis=1)


def choose(prediction: Prediction, price: float) -> Positions:
    """The model chosen for each query: argmax of score - price * cost, as predicted.

    Ties go to the lower predicted cost, then to the earlier model.

    Args:
        prediction: Predicted scores and costs. [n, M]
        price: Price of cost, at least 0.

    Returns:
        Positions of the chosen models. [n]
    """
    utilities = prediction.scores - price * prediction.costs
    best = utilities == utilities.max(axis=1, keepdims=True)
    choices: Positions = np.where(best, prediction.costs, np.inf).argmin(axis=1)
    return choices


def exact_walk(prediction: Prediction, scores: Floats, costs: Floats) -> Walk:
    """Every query's walk along the upper envelope of its lines score - price * cost, over all prices from 0 on.

    Args:
        prediction: Predicted scores and costs. [n, M]
        scores: Observed scores. [n, M]
        costs: Observed costs. [n, M]

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    return exact_walks([prediction], scores, costs)[0]


def exact_walks(predictions: Sequence[Prediction], scores: Floats, costs: Floats) -> list[Walk]:
    """`exact_walk` of several predictions for the same queries, each with the bits that it has alone.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    check_finite(scores, costs)
    for prediction in predictions:
        check_predicted(scores, predicted_scores=prediction.scores, predicted_costs=prediction.costs)
    walks = []
    for first, (queries, prices, before, after) in envelopes(predictions):
        order = _stable_order(prices)
        walks.append(_walk(first, 0.0, queries[order], prices[order], before[order], after[order], scores, costs))
    return walks


def grid_walk(prediction: Prediction, scores: Floats, costs: Floats, prices: Floats = GRID_PRICES) -> Walk:
    """The walk that sees only the given prices of cost, ascending.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    check_finite(scores, costs, predicted_scores=prediction.scores, predicted_costs=prediction.costs)
    choices = np.stack([choose(prediction, float(price)) for price in prices])
    at, queries = np.nonzero(choices[1:] != choices[:-1])
    before, after = choices[at, queries], choices[at + 1, queries]
    return _walk(choices[0], float(prices[0]), queries, prices[at + 1], before, after, scores, costs)


def mixture_walk(mixture: Mixture, scores: Floats, costs: Floats) -> Walk:
    """The single point of a router without a price of cost: its expectation.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    check_finite(scores, costs, probabilities=mixture.probabilities)
    empty = np.zeros(0, dtype=np.int64)
    return Walk(
        first_costs=(mixture.probabilities * costs).sum(axis=1),
        first_scores=(mixture.probabilities * scores).sum(axis=1),
        queries=empty,
        cost_steps=np.zeros(0),
        score_steps=np.zeros(0),
        ends=np.zeros(1, dtype=np.int64),
        prices=np.array([np.nan]),
    )


def calls_walk(calls: Calls, scores: Floats, costs: Floats) -> Walk:
    """The walk along a router's own settings, the dearest first; every query pays for every call.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    check_finite(scores, costs, answers=calls.answers[0], called=calls.called[0])
    if not (np.isfinite(calls.answers).all() and np.isfinite(calls.called).all()):
        raise ValueError("answers and called must be finite")
    s = np.einsum("knm,nm->kn", calls.answers, scores)
    c = np.einsum("knm,nm->kn", calls.called, costs)
    at, queries = np.nonzero((s[1:] != s[:-1]) | (c[1:] != c[:-1]))
    return Walk(
        first_costs=c[0],
        first_scores=s[0],
        queries=queries,
        cost_steps=c[at + 1, queries] - c[at, queries],
        score_steps=s[at + 1, queries] - s[at, queries],
        ends=np.searchsorted(at, np.arange(len(s))),
        prices=np.full(len(s), np.nan),
    )


def walk(prediction: Prediction | Mixture | Calls, scores: Floats, costs: Floats, lambda_: Lambda = "exact") -> Walk:
    """The walk that the protocol's option `lambda` asks for; a router with settings of its own has only these.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    if isinstance(prediction, Calls):
        return calls_walk(prediction, scores, costs)
    if isinstance(prediction, Mixture):
        return mixture_walk(prediction, scores, costs)
    return exact_walk(prediction, scores, costs) if lambda_ == "exact" else grid_walk(prediction, scores, costs)


def exact_path(prediction: Prediction, scores: Floats, costs: Floats) -> Path:
    """The operating points at all prices of cost; see `exact_walk`."""
    return exact_walk(prediction, scores, costs).path()


def _stable_order(values: Floats) -> Positions:
    """`np.argsort(values, kind="stable")` of finite numbers, several times as fast."""
    order = np.argsort(values)
    ordered = values[order]
    # Runs of equal values are where they should be; in each, positions are to ascend.
    run = len(values) * np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))[: len(values)]
    stable: Positions = np.sort(run + order) - run
    return stable


def _walk(
    first: Positions,
    first_price: float,
    queries: Positions,
    prices: Floats,
    before: Positions,
    after: Positions,
    scores: Floats,
    costs: Floats,
) -> Walk:
    """Look the changes up in the observed outcomes; steps at one price become one point."""
    starts = np.concatenate([[first_price], prices])
    last = np.append(np.diff(starts) > PRICE_TOLERANCE * starts[1:], True)
    ends = np.flatnonzero(last)
    rows = np.arange(len(first))
    return Walk(
        first_costs=costs[rows, first],
        first_scores=scores[rows, first],
        queries=queries,
        cost_steps=costs[queries, after] - costs[queries, before],
        score_steps=scores[queries, after] - scores[queries, before],
        ends=ends,
        prices=starts[ends],
    )


def check_finite(scores: Floats, costs: Floats, **others: Floats) -> None:
    """Refuse outcomes and predictions that are not complete [n, M] rows of numbers.

    Raises:
        ValueError: Names the array, and the cell at fault.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be [n queries, M models], both at least 1; got {scores.shape}")
    check_predicted(scores, scores=scores, costs=costs, **others)


def check_predicted(like: Floats, **arrays: Floats) -> None:
    """Refuse arrays that are not as many numbers as checked scores.

    Raises:
        ValueError: Names the array, and the cell at fault.
    """
    for name, values in arrays.items():
        if values.shape != like.shape:
            raise ValueError(f"{name} is {values.shape}, scores are {like.shape}; they must agree")
        if not np.isfinite(values).all():
            query, model = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"{name} of query {query}, model {model} is {values[query, model]}; "
                "pass complete rows and finite predictions"
            )
