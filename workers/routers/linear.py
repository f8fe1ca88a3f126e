"""Are scores and costs linear in the embedding? Ridge regression per model; logistic regression as a selector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal, Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.quiet import ignoring
from workers.routers.base import NEVER_OBSERVED, FitJob, Fitted, Positions, Prediction, Router, Side, mean_outcomes
from workers.routers.labels import most_probable, spread_labels

Penalty = float | Literal["infinite"]


class Linear(Router):
    """Linear regression of score and of cost per model on its observed rows, with an intercept.

    Args:
        penalty: Ridge penalty on the squared coefficients, not the intercept: 0 is least squares (of minimal norm),
            `infinite` the training means, None tuned. As a selector 1 / penalty is scikit-learn's C.
    """

    name = "linear"
    summary = "ridge regression of score and cost per model; logistic regression as a selector"
    source = "Li 2025, arXiv 2505.12601, section 4; Hoerl & Kennard 1970"
    formulations = ("utility", "selection")
    tunables = ("penalty",)

    def __init__(self, *, penalty: Penalty | None = None) -> None:
        number = isinstance(penalty, int | float) and not isinstance(penalty, bool) and 0 <= penalty < math.inf
        if not (number or penalty is None or penalty == "infinite"):
            raise ValueError(f"penalty must be a number, at least 0, or `infinite`, not {penalty!r}.")
        self.penalty = penalty

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {"penalty": {"log": [1e-3, 1e4]}, "first": [{"penalty": 0.0}, {"penalty": "infinite"}]}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The paper's plain regression, the query-blind infinite penalty, then log-uniform penalties."""
        drawn = np.exp(rng.uniform(np.log(1e-3), np.log(1e4), size=budget - 2))
        return [{"penalty": 0.0}, {"penalty": "infinite"}, *({"penalty": float(p)} for p in drawn)]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The larger penalty."""
        return (-_number(params["penalty"]),)

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Solve the normal equations."""
        return self._solve(_Factors(train))

    def _solve(self, factors: _Factors) -> Self:
        if self.penalty is None:
            raise RouterError("router 'linear': penalty is neither given nor tuned; give penalty.")
        self.coefficients_, self.intercepts_ = factors.solve(_number(self.penalty))
        return self

    def predict(self, queries: Side) -> Prediction:
        """Linear in the embedding. [n, M]."""
        scores, costs = np.hsplit(queries.X.astype(np.float64) @ self.coefficients_ + self.intercepts_, 2)
        return Prediction(scores=scores, costs=costs)

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """One factorisation for all penalties of a training side."""
        factors: dict[int, _Factors] = {}
        for job in jobs:
            if job.price is not None or not isinstance(job.router, Linear):
                yield from super().predict_many([job])
                continue
            begin = perf_counter()
            if id(job.train) not in factors:
                factors[id(job.train)] = _Factors(job.train)
            router = job.router._solve(factors[id(job.train)])
            fitted = perf_counter()
            prediction = router.predict(job.queries)
            yield Fitted(
                prediction=prediction,
                fit_seconds=fitted - begin,
                route_seconds=perf_counter() - fitted,
                n_bytes=router.n_bytes,
            )

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Multinomial logistic regression on labels spread over ties: a row per label, weighted by its share."""
        if self.penalty is None:
            raise RouterError("router 'linear': penalty is neither given nor tuned; give penalty.")
        scores, costs = train.outcomes
        labels = spread_labels(scores, costs, price)
        self.mean_costs_ = mean_outcomes(train)[1]
        rows, models = np.nonzero(labels)
        self.coefficients_ = np.zeros((train.embeddings.shape[1], labels.shape[1]))
        shares = labels.sum(axis=0) / labels.sum()
        with np.errstate(divide="ignore"):
            self.intercepts_ = np.log(shares)
        seen = np.flatnonzero(shares)
        if self.penalty != "infinite" and len(seen) > 1:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.linear_model import LogisticRegression

            strength = 1.0 / self.penalty if self.penalty else np.inf
            # Without a penalty separable labels have no optimum: stopping early is the regularisation.
            with ignoring(ConvergenceWarning):
                model = LogisticRegression(C=strength, max_iter=100).fit(
                    train.X[rows].astype(np.float64), models, sample_weight=labels[rows, models]
                )
            two = len(seen) == 2
            self.coefficients_[:, seen] = np.vstack([-model.coef_, model.coef_]).T / 2 if two else model.coef_.T
            self.intercepts_[seen] = (
                np.concatenate([-model.intercept_, model.intercept_]) / 2 if two else model.intercept_
            )
        return self

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        logits = queries.X.astype(np.float64) @ self.coefficients_ + self.intercepts_
        return most_probable(logits, self.mean_costs_)


def _number(penalty: Penalty) -> float:
    return math.inf if penalty == "infinite" else float(penalty)


class _Factors:
    """Eigendecompositions of a training side's centred Gram matrices, one for each pattern of observed rows."""

    def __init__(self, train: Side) -> None:
        X = train.X.astype(np.float64)
        scores, costs = train.outcomes
        observed = ~np.isnan(scores)
        self.shape = (X.shape[1], 2 * scores.shape[1])
        patterns: dict[bytes, list[int]] = {}
        for model in range(scores.shape[1]):
            patterns.setdefault(observed[:, model].tobytes(), []).append(model)
        #: Columns of the targets, mean embedding, target means, eigenvalues, eigenvectors, rotated right-hand sides.
        self.parts: list[tuple[list[int], Floats, Floats, Floats, Floats, Floats]] = []
        for models in patterns.values():
            rows = observed[:, models[0]]
            columns = [*models, *(model + scores.shape[1] for model in models)]
            if not rows.any():
                continue
            targets = np.hstack([scores[rows][:, models], costs[rows][:, models]])
            mean, target_mean = X[rows].mean(axis=0), targets.mean(axis=0)
            centred = X[rows] - mean
            values, vectors = np.linalg.eigh(centred.T @ centred)
            self.parts.append(
                (columns, mean, target_mean, values, vectors, vectors.T @ (centred.T @ (targets - target_mean)))
            )

    def solve(self, penalty: float) -> tuple[Floats, Floats]:
        """Coefficients [d, 2M] and intercepts [2M] of scores, then costs."""
        coefficients, intercepts = np.zeros(self.shape), np.repeat(NEVER_OBSERVED, self.shape[1] // 2)
        for columns, mean, target_mean, values, vectors, right in self.parts:
            # Directions without variance carry nothing; their eigenvalues are rounding errors.
            kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
            inverse = np.where(kept, 1.0 / (np.where(kept, values, 1.0) + penalty), 0.0)
            solved = vectors @ (inverse[:, None] * right)
            coefficients[:, columns], intercepts[columns] = solved, target_mean - mean @ solved
        return coefficients, intercepts
