"""Can a model be known by its errors alone? Clusters of queries; a model is its vector of errors per cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.routers.base import Prediction, Side
from workers.routers.clusters import ClusterRouter, nearest_centre
from workers.routers.parameters import filled, log_integer
from workers.training import check_whole

#: Clusters that tuning tries first, and at most.
FIRST, MOST = 20, 256


class UniRoute(ClusterRouter):
    """UniRoute with k-means: the error of a model on a query is the model's mean error in the query's cluster.

    Queries are clustered by k-means; a model h is Ψ(h), the vector of its mean errors on the labelled queries of each
    cluster; γ(x, h) = Φ(x)ᵀΨ(h), where Φ(x) marks the nearest centre, and the choice is argmin γ(x, h) + λ·c(h) with
    c(h) the model's mean cost. So a new model needs a few labelled queries and nothing else changes (`add_model`).
    At one cluster it is the zero-router.

    Readings of this project: scores within [0, 1] stand for correctness, the error is 1 - score; the training side is
    both the sample that is clustered and the one that labels models (the paper takes a small validation sample for
    the second); a cluster where a model was never tried has its overall mean error. The paper's other instance, the
    learned cluster map, needs a training pool of other models and is not this router. The paper tunes K on validation
    data; which K it starts from was not verified.

    Args:
        clusters: K; None: tuned.
    """

    name = "uniroute"
    summary = "k-means clusters; a model is its vector of errors per cluster"
    source = "Jitkrittum et al. 2025, arXiv 2502.08773 (Universal Model Routing), section 5.1, K-means"
    tunables = ("clusters",)

    def __init__(self, *, clusters: int | None = None) -> None:
        if clusters is not None:
            check_whole("clusters", clusters, 1)
        self.clusters = clusters

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "clusters": {"log_integer": [2, f"min(n_train, {MOST})"]},
            "first": [{"clusters": FIRST}, {"clusters": 1}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """20 clusters, the query-blind single one, then log-uniform numbers."""
        first = [{"clusters": min(FIRST, n_train)}, {"clusters": 1}]
        return filled(first, lambda: {"clusters": min(n_train, log_integer(rng, 2, min(n_train, MOST)))}, budget)

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Fewer clusters."""
        return (params["clusters"],)

    def n_clusters(self) -> int:
        """The number given."""
        if self.clusters is None:
            raise RouterError("router 'uniroute': clusters is neither given nor tuned; give clusters.")
        return self.clusters

    def errors(self) -> Floats:
        """Ψ: mean error of every model in every cluster. [K, M]."""
        return 1.0 - self.cluster_means()[0]

    def predict(self, queries: Side) -> Prediction:
        """1 - γ(x, h), and the mean cost of each model. [n, M]."""
        cluster = nearest_centre(queries.X, self.centres_)
        costs = np.broadcast_to(self.overall_means()[1], (queries.n, len(self.models_)))
        return Prediction(scores=1.0 - self.errors()[cluster], costs=costs)
