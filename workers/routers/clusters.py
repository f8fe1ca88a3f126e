"""What do models do on clusters of queries? k-means on the embeddings, and outcomes summed per cluster and model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from workers.benchmarks.base import Floats
from workers.quiet import ignoring
from workers.routers.base import NEVER_OBSERVED, Positions, Prediction, Side
from workers.routers.baselines import TableRouter
from workers.routers.growing import new_column

#: Starts of k-means, of which the best is kept. AvengersPro's code has 10; on 1 thread that is most of a fit's time.
STARTS = 3


def find_centres(X: npt.NDArray[np.floating], k: int, rng: np.random.Generator) -> Floats:
    """Centres of k-means; fewer where there are fewer different rows. [at most k, d].

    Args:
        X: [n, d]
        k: Cut to n.
        rng: Stream, of which one number is taken.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(rng.integers(2**31))
    # Duplicates may leave fewer different rows than clusters: the empty ones are dropped below.
    with ignoring(ConvergenceWarning), threadpool_limits(limits=1):
        found = KMeans(min(k, len(X)), n_init=STARTS, random_state=seed).fit(X.astype(np.float64))
    centres: Floats = found.cluster_centers_[np.unique(found.labels_)]
    return centres


def nearest_centre(X: npt.NDArray[np.floating], centres: Floats) -> Positions:
    """Cluster of every row, by Euclidean distance. [n]."""
    closeness = X.astype(np.float64) @ centres.T - (centres**2).sum(axis=1) / 2
    clusters: Positions = closeness.argmax(axis=1)
    return clusters


class ClusterRouter(TableRouter, ABC):
    """A router that keeps, for every cluster of training queries and every model, what the model did there.

    More labelled queries and one more model change sums of outcomes; the clusters stay as they were found.
    """

    needs_embedding = True

    #: [K, d]
    centres_: Floats
    #: Names of the models, as the columns below. [M]
    models_: list[str]
    #: Observed cells, and sums of their scores and of their costs. [K, M]
    counts_: Floats
    scores_: Floats
    costs_: Floats

    @abstractmethod
    def n_clusters(self) -> int:
        """How many clusters are asked for.

        Raises:
            RouterError: The number is neither given nor tuned.
        """

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Find clusters and sum the outcomes in them."""
        return self.fill(train, find_centres(train.X, self.n_clusters(), rng))

    def fill(self, train: Side, centres: Floats) -> Self:
        """Sum the training outcomes in given clusters. [K, d]."""
        self.centres_ = centres
        self.models_ = [model.name for model in train.models]
        self.counts_, self.scores_, self.costs_ = self._sums(train)
        return self

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Add the outcomes of more queries to the sums of their clusters."""
        counts, scores, costs = self._sums(more)
        self.counts_, self.scores_, self.costs_ = self.counts_ + counts, self.scores_ + scores, self.costs_ + costs
        return self

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """Sum the new model's outcomes on the labelled queries; the old ones' are known and stay."""
        column = new_column(self.models_, labelled)
        counts, scores, costs = self._sums(labelled)
        self.models_ = [model.name for model in labelled.models]
        self.counts_, self.scores_, self.costs_ = (
            np.insert(old, column, new[:, column], axis=1)
            for old, new in ((self.counts_, counts), (self.scores_, scores), (self.costs_, costs))
        )
        return self

    def cluster_means(self) -> tuple[Floats, Floats]:
        """Mean score and cost of every model in every cluster; where never observed its overall mean. Both [K, M]."""
        overall = self.overall_means()
        some, safe = self.counts_ > 0, np.maximum(self.counts_, 1)
        scores, costs = (
            np.where(some, total / safe, mean) for total, mean in zip((self.scores_, self.costs_), overall, strict=True)
        )
        return scores, costs

    def overall_means(self) -> tuple[Floats, Floats]:
        """Mean score and cost of every model. Both [M]."""
        counts = self.counts_.sum(axis=0)
        score, cost = (
            np.where(counts > 0, total.sum(axis=0) / np.maximum(counts, 1), never)
            for total, never in zip((self.scores_, self.costs_), NEVER_OBSERVED, strict=True)
        )
        return score, cost

    def _sums(self, side: Side) -> tuple[Floats, Floats, Floats]:
        """Observed cells, sums of scores and sums of costs by cluster. [K, M] each."""
        of = nearest_centre(side.X, self.centres_)
        scores, costs = side.outcomes
        observed = ~np.isnan(scores)
        counts, score_sums, cost_sums = (np.zeros((len(self.centres_), scores.shape[1])) for _ in range(3))
        np.add.at(counts, of, observed)
        np.add.at(score_sums, of, np.where(observed, scores, 0.0))
        np.add.at(cost_sums, of, np.where(observed, costs, 0.0))
        return counts, score_sums, cost_sums

    @abstractmethod
    def predict(self, queries: Side) -> Prediction:
        """Predict scores and costs of every model. [n, M]."""
