"""Is it enough to estimate score and cost well and plug them in? CARROT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.linear import Linear, Penalty
from workers.routers.logistic import chances, fit_heads
from workers.routers.lookup import Lookup, LookupRouter, sums
from workers.routers.parameters import check_number, filled, log_uniform
from workers.training import check_whole

Head = Literal["knn", "linear"]

#: Numbers of neighbours that the authors' code tries; the first of ours.
GRID, FIRST = (2, 4, 8, 16, 32, 64, 128, 256, 512), 64


class Carrot(LookupRouter):
    """CARROT: estimate score and cost separately, then choose by ŝ - λĉ (the paper's (1 - μ)ŝ - μĉ).

    `head: knn`: means over the nearest training queries by cosine, over k of them for scores and `k_cost` for costs;
    with k = k_cost it is the router `knn`. `head: linear`: σ of a linear function for scores, fitted by cross-entropy,
    and ridge regression for costs: the losses of the paper's fine-tuned RoBERTa, on the frozen embedding. As a selector
    it chooses by the estimates at the given price. Query-blind limit: k = k_cost = n_train, or C = 0 and an infinite
    penalty.

    Verified in the authors' code (github.com/somerstep/CARROT, train_and_infer.py and utils.py): the rule, cosine kNN
    regression with k among 2, 4, ..., 512 chosen for each target, cross-entropy on scores. Readings of this project: k
    and `k_cost` are tuned by the routing score as all routers here are, not each by 5-fold R²; where the code predicts
    output tokens and multiplies by prices, the cost itself is estimated (as its RouterBench part does).

    Args:
        head: How both are estimated.
        k: Neighbours of the score; None: tuned. Of `knn` alone, as `k_cost`.
        k_cost: Neighbours of the cost; None: tuned.
        C: Weight of the errors of the score's head, as scikit-learn's; None: tuned. Of `linear` alone, as `penalty`.
        penalty: Ridge penalty of the cost's head, or `infinite`; None: tuned.
    """

    name = "carrot"
    summary = "plug-in estimates of score and cost, by kNN or linear heads"
    source = "Somerstep et al. 2025, arXiv 2502.03261 (CARROT), plug-in rule; code at github.com/somerstep/CARROT"
    formulations = ("utility", "selection")
    tunables = ("k", "k_cost", "C", "penalty")

    def __init__(
        self,
        *,
        head: Head = "knn",
        k: int | None = None,
        k_cost: int | None = None,
        C: float | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        if head not in get_args(Head):
            raise ValueError(f"head must be one of {', '.join(get_args(Head))}, not {head!r}.")
        own, others = (("k", k), ("k_cost", k_cost)), (("C", C), ("penalty", penalty))
        for key, value in others if head == "knn" else own:
            if value is not None:
                raise ValueError(f"{key} must be left out where head is {head}.")
        for key, number in own:
            if number is not None:
                check_whole(key, number, 1)
        if C is not None:
            check_number("C", C, 0.0)
        Linear(penalty=penalty)
        self.head: Head = head
        self.k = k
        self.k_cost = k_cost
        self.C = C
        self.penalty = penalty

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space of either head."""
        return {
            "k": {"choices": [*GRID, "n_train"], "where": "head = knn"},
            "k_cost": {"choices": [*GRID, "n_train"], "where": "head = knn"},
            "C": {"log": [1e-3, 1e3], "where": "head = linear"},
            "penalty": {"log": [1e-3, 1e4], "where": "head = linear"},
            "first": [
                {"k": FIRST, "k_cost": FIRST},
                {"k": "n_train", "k_cost": "n_train"},
                {"C": 1.0, "penalty": 1.0},
                {"C": 0.0, "penalty": "infinite"},
            ],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """A middling setting, the query-blind limit, then draws, of the head that is fixed."""
        if fixed.get("head", "knn") == "linear":
            return filled(
                [{"C": 1.0, "penalty": 1.0}, {"C": 0.0, "penalty": "infinite"}],
                lambda: {"C": log_uniform(rng, 1e-3, 1e3), "penalty": log_uniform(rng, 1e-3, 1e4)},
                budget,
            )
        grid = sorted({*(k for k in GRID if k < n_train), n_train})
        first = min(FIRST, n_train)
        return filled(
            [{"k": first, "k_cost": first}, {"k": n_train, "k_cost": n_train}],
            lambda: {"k": int(rng.choice(grid)), "k_cost": int(rng.choice(grid))},
            budget,
        )

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """More neighbours; smaller weights of the errors and larger penalties."""
        if params.get("k") is not None:
            return (-params["k"], -params["k_cost"])
        penalty = params["penalty"]
        return (params["C"], 0.0 if penalty == "infinite" else 1.0 / (1.0 + penalty))

    def learn(self, rng: np.random.Generator) -> None:
        """Fit linear heads; they need no table."""
        for key in ("k", "k_cost") if self.head == "knn" else ("C", "penalty"):
            if getattr(self, key) is None:
                raise RouterError(f"router 'carrot': {key} is neither given nor tuned; give {key}.")
        if self.head == "linear":
            assert self.C is not None
            self.coefficients_, self.intercepts_ = fit_heads(self.train_.X, self.train_.outcomes[0], self.C)
            costs = Linear(penalty=self.penalty).fit(self.train_, rng)
            self.cost_coefficients_ = np.hsplit(costs.coefficients_, 2)[1].copy()
            self.cost_intercepts_ = np.split(costs.intercepts_, 2)[1].copy()
            del self.train_

    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """Sums over the neighbours of scores and of costs."""
        if self.head == "linear":
            return []
        assert self.k is not None and self.k_cost is not None
        return [
            Lookup(train=self.train_, queries=queries, k=k, reduce=sums(np.hstack([np.nan_to_num(y), ~np.isnan(y)])))
            for k, y in zip((self.k, self.k_cost), self.train_.outcomes, strict=True)
        ]

    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction | Positions:
        """Both estimates, or what they choose."""
        if self.head == "linear":
            prediction = Prediction(
                scores=chances(queries.X, self.coefficients_, self.intercepts_),
                costs=queries.X.astype(np.float64) @ self.cost_coefficients_ + self.cost_intercepts_,
            )
        else:
            estimates = []
            for total, mean in zip(found, mean_outcomes(self.train_), strict=True):
                sum_, observed = np.hsplit(total, 2)
                estimates.append(np.where(observed > 0, sum_ / np.maximum(observed, 1), mean))
            prediction = Prediction(scores=estimates[0], costs=estimates[1])
        return prediction if self.price_ is None else choose(prediction, self.price_)

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Append labelled queries to the table; linear heads have none."""
        self._needs_table()
        return super().partial_fit(more, rng)

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """Add a column to the table; linear heads have none."""
        self._needs_table()
        return super().add_model(labelled, rng)

    def _needs_table(self) -> None:
        if self.head == "linear":
            raise RouterError("router 'carrot': linear heads keep no table to add to; fit it anew, or set head to knn.")
