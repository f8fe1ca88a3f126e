"""How far could one get? References that look at test outcomes; not baselines, kept out of verdicts (protocol 3)."""

from __future__ import annotations

from typing import Self

import numpy as np

from workers.routers.base import Prediction, Side, mean_outcomes
from workers.routers.baselines import TableRouter, grouped_means


class Reference(TableRouter):
    """Learns nothing and predicts from the outcomes of the very queries that it routes."""

    privileged = True

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Nothing to learn."""
        return self


class Oracle(Reference):
    """Knows every query's true scores and costs."""

    name = "oracle"
    summary = "reference: the best model of every test query"

    def predict(self, queries: Side) -> Prediction:
        """The true outcomes. [n, M]."""
        scores, costs = queries.outcomes
        return Prediction(scores=scores, costs=costs)


class TaskOracle(Reference):
    """Knows every model's test means per task."""

    name = "task-oracle"
    summary = "reference: the best model of every task, by test means"
    needs = ("task",)

    def predict(self, queries: Side) -> Prediction:
        """The test means of the query's task. [n, M]."""
        names, of = np.unique(np.array(queries.tasks), return_inverse=True)
        means = mean_outcomes(queries)
        scores, costs = (
            grouped_means(values, of, len(names), mean)[of]
            for values, mean in zip(queries.outcomes, means, strict=True)
        )
        return Prediction(scores=scores, costs=costs)


class ZeroHindsight(Reference):
    """Knows every model's test means: its hull is the hull of the single models."""

    name = "zero-hindsight"
    summary = "reference: the hull of the models' test means"
    query_blind = True

    def predict(self, queries: Side) -> Prediction:
        """The test means for every query. [n, M]."""
        scores, costs = mean_outcomes(queries)
        shape = (queries.n, len(scores))
        return Prediction(scores=np.broadcast_to(scores, shape), costs=np.broadcast_to(costs, shape))
