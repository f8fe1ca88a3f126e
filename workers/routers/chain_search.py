"""Which chain of up to three models, with which thresholds, is best under each budget? An exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions
from workers.routers.chains import DECIMALS

#: Models of the longest chain.
LONGEST = 3
#: Budgets that a chain and its thresholds are chosen for, besides the cheapest model's mean cost.
BUDGETS = 40
#: The least of them at least, as a share of the largest.
LEAST_BUDGET = 1e-4

#: Positions of a chain's models, and the number of the threshold of each but the last.
Choice = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """The best setting of each budget, without those that a cheaper one equals; the dearest first."""

    #: Positions of the models in the order in which they are asked, -1 behind the last. [K, 3]
    chains: Positions
    #: What the judgement of each model's answer must exceed to be accepted, -inf of the last. [K, 3]
    thresholds: Floats
    #: Mean score and cost. Both [K]
    scores: Floats
    costs: Floats


def search_chains(
    judged: Floats, scores: Floats, costs: Floats, quantiles: int, judged_second: Floats | None = None
) -> Settings:
    """Try every ordered single, pair and triple of models with every pair of thresholds.

    Thresholds of a model are quantiles of the judgements of its answers. The means of all of a chain's thresholds come
    from one table: sums of outcomes over the queries whose answers reach a given number of thresholds.

    Args:
        judged: Judgement of every answer, the higher the better. [n, P]
        scores: Complete. [n, P]
        costs: Complete. [n, P]
        quantiles: Thresholds of a model; the last is the highest judgement, so that no answer is accepted.
        judged_second: Judgement of each answer once a given model has answered before. [n, P (before), P]
    """
    n, n_models = scores.shape
    levels = quantiles + 1
    first = _Levels(judged, quantiles)
    second = first if judged_second is None else _Levels(judged_second, quantiles)
    outcomes = np.hstack([scores, costs]) / n
    best = _Best(costs.mean(axis=0))
    best.offer(outcomes[:, :n_models].sum(axis=0), outcomes[:, n_models:].sum(axis=0), lambda m: ((m,), ()))
    for a in range(n_models):
        score, cost = _first_step(outcomes, first.reached[:, a], levels, a)
        best.offer(score, cost, lambda k, b, a=a: ((a, b), (k,)))
    for a, b in permutations(range(n_models), 2):
        score, cost = (values[:, b, None, None] for values in _first_step(outcomes, first.reached[:, a], levels, a))
        cells = first.reached[:, a] * levels + second.of(a, b, second.reached)
        rejected = _sums_below(outcomes, cells, (levels, levels))
        of_score, of_cost = rejected[..., :n_models], rejected[..., n_models:]
        score = score + of_score - of_score[..., [b]]
        score[..., [a, b]] = -np.inf
        best.offer(score, cost + of_cost, lambda k, j, c, a=a, b=b: ((a, b, c), (k, j)))
    return best.settings(first, second)


class _Levels:
    """Thresholds, which are quantiles of the judgements, and how many of them each judgement reaches."""

    def __init__(self, judged: Floats, quantiles: int) -> None:
        levels = np.arange(1, quantiles + 1) / quantiles
        #: [quantiles, P] or [quantiles, P, P]
        self.grid = np.quantile(judged, levels, axis=0, method="inverted_cdf")
        columns, flat = self.grid.reshape(len(levels), -1).T, judged.reshape(len(judged), -1).T
        reached = [np.searchsorted(*column) for column in zip(columns, flat, strict=True)]
        #: An answer is accepted at threshold k where this exceeds k. As judged
        self.reached: Positions = np.stack(reached, axis=1).reshape(judged.shape)

    def of(self, before: int, model: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What belongs to a model that is asked after another one."""
        return values[..., before, model] if self.grid.ndim == 3 else values[..., model]


def _first_step(outcomes: Floats, reached: Positions, levels: int, first: int) -> tuple[Floats, Floats]:
    """Mean score and cost of pairs: by threshold of the first model, and second model. Both [quantiles, P]."""
    n_models = outcomes.shape[1] // 2
    rejected = _sums_below(outcomes, reached, (levels,))
    score = outcomes[:, first].sum() - rejected[:, [first]] + rejected[:, :n_models]
    score[:, first] = -np.inf
    return score, outcomes[:, n_models + first].sum() + rejected[:, n_models:]


def _sums_below(outcomes: Floats, cell: Positions, shape: tuple[int, ...]) -> Floats:
    """Sums over the queries that do not exceed threshold k of each axis, for all k. [*(shape - 1), 2P]."""
    from scipy.sparse import csr_array

    n = len(cell)
    sums = csr_array((np.ones(n), (cell, np.arange(n))), shape=(int(np.prod(shape)), n)) @ outcomes
    table: Floats = sums.reshape(*shape, -1)
    for axis in range(len(shape)):
        table = np.cumsum(table, axis=axis).take(np.arange(shape[axis] - 1), axis=axis)
    return table


class _Best:
    """The best setting seen in each interval between budgets; of equal scores the cheaper, then the earlier."""

    def __init__(self, mean_costs: Floats) -> None:
        most, least = float(np.sort(mean_costs)[-LONGEST:].sum()), float(mean_costs.min())
        budgets = np.geomspace(max(least, LEAST_BUDGET * most), most, BUDGETS) if most > 0 else np.zeros(0)
        self.budgets = np.unique(np.round(np.append(budgets, least), DECIMALS))
        self.scores = np.full(len(self.budgets), -np.inf)
        self.costs = np.full(len(self.budgets), np.inf)
        self.choices: list[Choice] = [((), ())] * len(self.budgets)

    def offer(self, scores: Floats, costs: Floats, name: Callable[..., Choice]) -> None:
        """Consider settings of any shape; `name` says which one stands where."""
        shape = scores.shape
        scores, costs = (np.round(values, DECIMALS).ravel() for values in (scores, np.broadcast_to(costs, shape)))
        place = np.searchsorted(self.budgets, costs)
        within = np.minimum(place, len(self.budgets) - 1)
        better = (scores > self.scores[within]) | ((scores == self.scores[within]) & (costs < self.costs[within]))
        rows = np.flatnonzero(better & (place < len(self.budgets)) & (scores > -np.inf))
        rows = rows[np.lexsort((costs[rows], -scores[rows]))]
        for row in rows[np.unique(place[rows], return_index=True)[1]]:
            self.scores[place[row]], self.costs[place[row]] = scores[row], costs[row]
            self.choices[place[row]] = name(*(int(i) for i in np.unravel_index(row, shape)))

    def settings(self, first: _Levels, second: _Levels) -> Settings:
        """The Pareto set over the budgets."""
        before = np.maximum.accumulate(np.append(-np.inf, self.scores[:-1]))
        kept = np.flatnonzero(self.scores > before)[::-1]
        chains = np.full((len(kept), LONGEST), -1, dtype=np.int64)
        thresholds = np.full((len(kept), LONGEST), -np.inf)
        for row, place in enumerate(kept):
            chain, numbers = self.choices[place]
            chains[row, : len(chain)] = chain
            if len(chain) > 1:
                thresholds[row, 0] = first.grid[numbers[0], chain[0]]
            if len(chain) > 2:
                thresholds[row, 1] = second.of(chain[0], chain[1], second.grid)[numbers[1]]
        return Settings(chains=chains, thresholds=thresholds, scores=self.scores[kept], costs=self.costs[kept])
