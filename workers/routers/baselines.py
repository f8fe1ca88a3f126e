"""What does a router achieve that looks at no embedding? The baselines that every comparison carries (protocol 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics.frontier import choose
from workers.routers.base import Mixture, Positions, Prediction, Router, Side, mean_outcomes


class TableRouter(Router, ABC):
    """A router whose selector maximises its predicted utility at the given price."""

    formulations = ("utility", "selection")
    needs_embedding = False

    @abstractmethod
    def predict(self, queries: Side) -> Prediction:
        """Predict scores and costs of every model. [n, M]."""

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Fit as for utility prediction and keep the price."""
        self.price_ = price
        return self.fit(train, rng)

    def select(self, queries: Side) -> Positions:
        """The model of the highest predicted utility; ties to the cheaper, then the earlier. [n]."""
        return choose(self.predict(queries), self.price_)


class ZeroRouter(TableRouter):
    """Predicts each model's training mean for every query."""

    name = "zero-router"
    summary = "every model's training mean score and cost, for every query"
    query_blind = True

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Take the means of the observed cells."""
        self.scores_, self.costs_ = mean_outcomes(train)
        return self

    def predict(self, queries: Side) -> Prediction:
        """Repeat the training means. [n, M]."""
        shape = (queries.n, len(self.scores_))
        return Prediction(scores=np.broadcast_to(self.scores_, shape), costs=np.broadcast_to(self.costs_, shape))


class TaskZero(TableRouter):
    """Predicts each model's training mean on the query's task; the zero-router on a task that training lacks."""

    name = "task-zero"
    summary = "every model's training mean on the query's task"
    needs = ("task",)

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Take the means of the observed cells, per task; a model unseen on a task keeps its mean over all."""
        means = mean_outcomes(train)
        names, of = np.unique(np.array(train.tasks), return_inverse=True)
        self.task_row_ = {str(task): row for row, task in enumerate(names)}
        self.scores_, self.costs_ = (
            np.vstack([grouped_means(values, of, len(names), mean), mean])
            for values, mean in zip(train.outcomes, means, strict=True)
        )
        return self

    def predict(self, queries: Side) -> Prediction:
        """Look the task's row up. [n, M]."""
        rows = [self.task_row_.get(task, -1) for task in queries.tasks]
        return Prediction(scores=self.scores_[rows], costs=self.costs_[rows])


def grouped_means(values: Floats, of: Positions, n_groups: int, otherwise: Floats) -> Floats:
    """Mean observed value of every model in every group, `otherwise` [M] where there is none. [n_groups, M]."""
    observed = ~np.isnan(values)
    sums, counts = (np.zeros((n_groups, values.shape[1])) for _ in range(2))
    np.add.at(sums, of, np.where(observed, values, 0.0))
    np.add.at(counts, of, observed)
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)


class FixedModel(Router, ABC):
    """Always the same model, whatever the query and the price of cost: one operating point."""

    formulations = ("utility", "selection")
    needs_embedding = False
    query_blind = True

    @abstractmethod
    def preference(self, scores: Floats, costs: Floats) -> tuple[Floats, Floats]:
        """First and second sort key of the models, smallest first, from training means. Both [M]."""

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Find the model by training means; the last tie goes to the earlier model."""
        first, second = self.preference(*mean_outcomes(train))
        self.model_ = int(np.lexsort((second, first))[0])
        return self

    def predict(self, queries: Side) -> Mixture:
        """Put all probability on the model. [n, M]."""
        probabilities = np.zeros((queries.n, len(queries.models)))
        probabilities[:, self.model_] = 1.0
        return Mixture(probabilities=probabilities)

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """The same at every price."""
        return self.fit(train, rng)

    def select(self, queries: Side) -> Positions:
        """Name the model. [n]."""
        return np.full(queries.n, self.model_, dtype=np.int64)


class BestSingle(FixedModel):
    """The model of the highest mean training score, ties to the cheaper."""

    name = "best-single"
    summary = "the model of the highest mean training score"

    def preference(self, scores: Floats, costs: Floats) -> tuple[Floats, Floats]:
        """Highest score, then lowest cost."""
        return -scores, costs


class Cheapest(FixedModel):
    """The model of the lowest mean training cost, ties to the better."""

    name = "cheapest"
    summary = "the model of the lowest mean training cost"

    def preference(self, scores: Floats, costs: Floats) -> tuple[Floats, Floats]:
        """Lowest cost, then highest score."""
        return costs, -scores


class Dearest(FixedModel):
    """The model of the highest mean training cost, ties to the better."""

    name = "dearest"
    summary = "the model of the highest mean training cost"

    def preference(self, scores: Floats, costs: Floats) -> tuple[Floats, Floats]:
        """Highest cost, then highest score."""
        return -costs, -scores


class Random(Router):
    """Any model with equal probability: its expectation, one operating point."""

    name = "random"
    summary = "a model drawn uniformly: the expectation, not a draw"
    formulations = ("utility", "selection")
    needs_embedding = False
    query_blind = True

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Nothing to learn."""
        return self

    def predict(self, queries: Side) -> Mixture:
        """Equal probabilities. [n, M]."""
        m = len(queries.models)
        return Mixture(probabilities=np.full((queries.n, m), 1.0 / m))

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Nothing to learn."""
        return self

    def select(self, queries: Side) -> Mixture:
        """Equal probabilities. [n, M]."""
        return self.predict(queries)
