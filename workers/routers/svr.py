"""Is the median score linear in the embedding? Support vector regression per model, RouterBench's SVM router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from workers.errors import RouterError
from workers.quiet import ignoring
from workers.routers.base import NEVER_OBSERVED, Prediction, Side, mean_outcomes
from workers.routers.baselines import TableRouter
from workers.routers.parameters import check_number, filled, log_uniform

#: Seed of liblinear's order of coordinates, as in RouterBench's code: the same for every model, so that the order of
#: the models changes nothing.
SEED = 1234


class SVR(TableRouter):
    """A `LinearSVR` per model on its observed scores; costs are the models' training means.

    One score regression per model, scikit-learn's defaults and the seed were read in `routers/svm_router.py` of
    github.com/withmartian/routerbench; what a model costs is there a constant of its price list, here its mean training
    cost (reading of this project). The default loss, |s - ŝ| without a dead zone, fits medians: of scores that are 0
    or 1 a model's median is the same nearly everywhere, so at the default C routers of means are to be expected ahead.
    As a selector it names the model of the highest predicted utility at the preference's price.

    Args:
        C: Weight of the errors against the squared coefficients, intercept included. scikit-learn's default is 1;
            0 leaves the errors out and predicts the training means, the query-blind limit (reading of this project:
            the loss itself would tend to 0); None: tuned.
    """

    name = "svr"
    summary = "linear support vector regression of each model's score"
    source = "Hu et al. 2024, RouterBench, arXiv 2403.12031, and its code: SVM router; Fan et al. 2008 (liblinear)"
    needs_embedding = True
    tunables = ("C",)

    def __init__(self, *, C: float | None = None) -> None:
        if C is not None:
            check_number("C", C, 0.0)
        self.C = C

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {"C": {"log": [1e-4, 1.0]}, "first": [{"C": 1.0}, {"C": 0.0}]}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """scikit-learn's C = 1, the query-blind C = 0, then log-uniform draws."""
        return filled([{"C": 1.0}, {"C": 0.0}], lambda: {"C": log_uniform(rng, 1e-4, 1.0)}, budget)

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The smaller C."""
        return (params["C"],)

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """One regression per model on its observed rows."""
        if self.C is None:
            raise RouterError("router 'svr': C is neither given nor tuned; give C.")
        scores, _ = train.outcomes
        self.intercepts_, self.costs_ = mean_outcomes(train)
        self.coefficients_ = np.zeros((train.embeddings.shape[1], scores.shape[1]))
        if self.C == 0:
            return self
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVR

        X, observed = train.X.astype(np.float64), ~np.isnan(scores)
        self.intercepts_ = np.full(scores.shape[1], NEVER_OBSERVED[0])
        for model in np.flatnonzero(observed.any(axis=0)):
            rows = observed[:, model]
            with ignoring(ConvergenceWarning):  # the default of 1000 passes is part of the original setting
                fitted = LinearSVR(C=self.C, random_state=SEED).fit(X[rows], scores[rows, model])
            self.coefficients_[:, model], self.intercepts_[model] = fitted.coef_, float(np.ravel(fitted.intercept_)[0])
        return self

    def predict(self, queries: Side) -> Prediction:
        """Scores linear in the embedding, training mean costs. [n, M]."""
        scores = queries.X.astype(np.float64) @ self.coefficients_ + self.intercepts_
        return Prediction(scores=scores, costs=np.broadcast_to(self.costs_, scores.shape))
