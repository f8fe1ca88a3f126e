"""What does a bandit learn that sees only the model it chose? MetaLLM's LinUCB, one query after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.routers.base import NEVER_OBSERVED, Positions, Prediction, Router, Side
from workers.routers.labels import TIE

Ridge = float | Literal["infinite"]

#: Queries whose estimates are computed together; only those of the chosen model change within a block.
BLOCK = 256
#: Ridge on the constant: so little that every model is tried once before any estimate counts.
CONSTANT_RIDGE = 1e-3


class MetaLLM(Router):
    """LinUCB over the training queries in a random order: of each, the outcome of the chosen model alone is learnt.

    Every model m has a ridge regression A_m⁻¹b_m of its outcomes on x, fed by the queries on which it was chosen. A
    query goes to the model of the largest ŝ - p·ĉ + α·√(xᵀA_m⁻¹x) with c in units of the largest mean cost. Verified
    in the released code (github.com/mail-research/MetaLLM-wrapper, `online_router.py`): the reward s - p·c / c_max,
    the bound, A = ridge · I at first, α = 1 and ridge = 1 as the class's defaults (α = 0 and ridge = 12.94 in its
    script's), queries shuffled, nothing learnt at test.

    Readings of this project: c is the cost observed on the query and not a model's price. The reward is linear in
    score and cost, so both are regressed on one A_m, which gives the same bound and lets every price of cost be
    asked for afterwards: the utility formulation learns at the price `price` alone and predicts ŝ and ĉ without the
    bonus; the selection formulation learns at each preference's own. x has a constant beside it, with a ridge of
    0.001, so that an infinite ridge is the query-blind limit. Models whose bounds tie are equally likely to be
    chosen; a model not observed on a query cannot be; one never chosen is predicted as one never observed. Inverses
    are updated by Sherman and Morrison's formula and kept, M·(d + 1)² numbers.

    Args:
        price: Price of cost p while learning (utility formulation; a selector learns at its preference's).
        alpha: Weight of the exploration bonus.
        ridge: Penalty on the coefficients of x, above 0; `infinite`: x is not looked at.
    """

    name = "metallm"
    summary = "LinUCB, learning from the chosen model's outcome alone"
    source = "Nguyen et al. 2024, MetaLLM, arXiv 2407.10834; LinUCB: Li et al. 2010"
    formulations = ("utility", "selection")
    online = True
    tunables = ("alpha", "ridge")

    def __init__(self, *, price: float = 0.5, alpha: float = 1.0, ridge: Ridge = 1.0) -> None:
        for key, value in (("price", price), ("alpha", alpha)):
            if not (_number(value) and 0 <= value < math.inf):
                raise ValueError(f"{key} must be a number, at least 0, not {value!r}.")
        if ridge != "infinite" and not (_number(ridge) and 0 < ridge < math.inf):
            raise ValueError(f"ridge must be a number above 0, or `infinite`, not {ridge!r}.")
        self.price = price
        self.alpha = alpha
        self.ridge = ridge

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "alpha": {"log": [1e-2, 10.0]},
            "ridge": {"log": [1e-2, 1e2]},
            "first": [
                {"alpha": 1.0, "ridge": 1.0},
                {"alpha": 1.0, "ridge": "infinite"},
                {"alpha": 0.0, "ridge": 12.94},
            ],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The released class's defaults, the query-blind infinite ridge, the released script's, then draws."""
        drawn = [
            {
                "alpha": float(np.exp(rng.uniform(np.log(1e-2), np.log(10.0)))),
                "ridge": float(np.exp(rng.uniform(np.log(1e-2), np.log(1e2)))),
            }
            for _ in range(budget)
        ]
        return [*cls.space()["first"], *drawn][:budget]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The larger ridge, then less exploration."""
        return (-_finite(params["ridge"]), params["alpha"])

    #: Names of the models.
    models_: list[str]
    #: A⁻¹ of every model. [M, k, k]
    inverse_: Floats
    #: Coefficients of score and of cost. [M, k, 2]
    coefficients_: Floats
    #: How often each model was chosen, or tried when it was added. [M]
    calls_: Positions
    price_: float

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Meet the training queries one by one at the price `price`."""
        return self._start(train, self.price)._learn(train, rng)

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Meet them at the preference's price."""
        return self._start(train, price)._learn(train, rng)

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Meet more queries."""
        # A loaded router's arrays are read-only.
        self.inverse_, self.coefficients_ = self.inverse_.copy(), self.coefficients_.copy()
        self.calls_ = self.calls_.copy()
        return self._learn(more, rng)

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """Start a model with all that the labelled queries say of it, as the released code does with past contexts."""
        names = [model.name for model in labelled.models]
        new = [name for name in names if name not in self.models_]
        if len(new) != 1 or [name for name in names if name != new[0]] != self.models_:
            raise RouterError("router 'metallm': the models must be the fitted ones and one more, in order.")
        at = names.index(new[0])
        scores, costs = labelled.outcomes
        tried = ~np.isnan(scores[:, at])
        X = self._inputs(labelled)[tried]
        inverse = np.linalg.inv(np.diag(1.0 / np.diag(self._prior(X.shape[1]))) + X.T @ X)
        coefficients = inverse @ (X.T @ np.column_stack([scores[tried, at], costs[tried, at]]))
        self.models_ = names
        self.inverse_ = np.insert(self.inverse_, at, inverse, axis=0)
        self.coefficients_ = np.insert(self.coefficients_, at, coefficients, axis=0)
        self.calls_ = np.insert(self.calls_, at, int(tried.sum()))
        return self

    def predict(self, queries: Side) -> Prediction:
        """Scores and costs as regressed, without the bonus. [n, M]."""
        outcomes = np.einsum("nk,mkj->jnm", self._inputs(queries), self.coefficients_, optimize=True)
        scores, costs = (
            np.where(self.calls_ > 0, values, never) for values, never in zip(outcomes, NEVER_OBSERVED, strict=True)
        )
        return Prediction(scores=scores, costs=costs)

    def select(self, queries: Side) -> Positions:
        """The model of the highest predicted utility at the preference's price. [n]."""
        return choose(self.predict(queries), self.price_)

    def _start(self, train: Side, price: float) -> Self:
        n_models, k = len(train.models), 1 if self.ridge == "infinite" else train.embeddings.shape[1] + 1
        self.models_ = [model.name for model in train.models]
        self.inverse_ = np.tile(self._prior(k), (n_models, 1, 1))
        self.coefficients_ = np.zeros((n_models, k, 2))
        self.calls_ = np.zeros(n_models, dtype=np.int64)
        self.price_ = price
        return self

    def _prior(self, k: int) -> Floats:
        """A⁻¹ of a model without data. [k, k]."""
        diagonal = np.full(k, 1.0 / _finite(self.ridge))
        diagonal[0] = 1.0 / CONSTANT_RIDGE
        return np.diag(diagonal)

    def _inputs(self, side: Side) -> Floats:
        """The constant, and x unless the ridge is infinite. [n, k]."""
        ones = np.ones((side.n, 1))
        return ones if self.ridge == "infinite" else np.hstack([ones, side.X.astype(np.float64)])

    def _learn(self, side: Side, rng: np.random.Generator) -> Self:
        order = rng.permutation(side.n)
        scores, costs = side.outcomes
        outcomes, X = np.stack([scores, costs], axis=2)[order], self._inputs(side)[order]
        for start in range(0, side.n, BLOCK):
            self._learn_block(X[start : start + BLOCK], outcomes[start : start + BLOCK], rng)
        return self

    def _learn_block(self, X: Floats, outcomes: Floats, rng: np.random.Generator) -> None:
        """Choose, look and learn on each query in turn.

        Args:
            X: [b, k]
            outcomes: Scores and costs, NaN = not observed. [b, M, 2]
            rng: Decides ties.
        """
        means = np.einsum("bk,mkj->bmj", X, self.coefficients_, optimize=True)
        variances = np.stack([((X @ inverse) * X).sum(axis=1) for inverse in self.inverse_], axis=1)
        observed = ~np.isnan(outcomes[..., 0])
        for i, x in enumerate(X):
            if not observed[i].any():
                continue
            bounds = means[i, :, 0] - self.price_ * means[i, :, 1]
            bounds = bounds + self.alpha * np.sqrt(np.maximum(variances[i], 0.0))
            bounds[~observed[i]] = -np.inf
            best = np.flatnonzero(bounds >= bounds.max() - TIE)
            model = int(best[0] if len(best) == 1 else rng.choice(best))
            direction = self.inverse_[model] @ x
            shrink = 1.0 + variances[i, model]
            errors = (outcomes[i, model] - means[i, model]) / shrink
            self.coefficients_[model] += np.outer(direction, errors)
            self.inverse_[model] -= np.outer(direction, direction / shrink)
            self.calls_[model] += 1
            along = X[i + 1 :] @ direction
            means[i + 1 :, model] += np.outer(along, errors)
            variances[i + 1 :, model] -= along**2 / shrink


def _finite(ridge: Ridge) -> float:
    return math.inf if ridge == "infinite" else float(ridge)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
