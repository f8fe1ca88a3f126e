"""Which models lead in the nearest clusters of queries? Avengers-Pro."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Positions, Prediction, Side
from workers.routers.clusters import ClusterRouter, find_centres
from workers.routers.labels import TIE, most_voted
from workers.routers.parameters import check_number, filled, log_integer, log_uniform
from workers.training import check_whole


class Avengers(ClusterRouter):
    """Avengers-Pro: models are ranked in each cluster; the nearest clusters have their say by closeness.

    k-means on the unit embeddings; a query's `nearest` centres get weights softmax(-β·(1 - x·centre)). As a selector
    the models of each cluster are ranked by utility, the i-th has 1/i votes, and the weighted votes decide; the paper's
    code does so with α·p̃ - (1 - α)·q̃ of score and cost rescaled within the cluster. For utility prediction ŝ and ĉ
    are the weighted means of what the model scored and cost in those clusters. At one cluster it is the zero-router.

    Verified in the authors' code (AvengersPro, as LLMRouterBench has it): 60 clusters, top 4, β 9, 1 - dot product as
    the distance, reciprocal ranks. Readings of this project: the price of cost, and score - price · cost unscaled, in
    the place of α; models of equal utility are ordered by cost, and if that ties too share the votes of their places;
    3 starts of k-means and not 10; a cluster where a model was never tried has its overall mean.

    Args:
        clusters: Clusters of k-means; the paper tries 16 to 64.
        beta: Steepness of the weights.
        nearest: Clusters that have a say.
    """

    name = "avengers"
    summary = "ranks of the models in the nearest k-means clusters"
    source = "Zhang et al. 2025, arXiv 2508.12631 (Avengers-Pro); clusters 60, β 9, top 4 as in its code"
    tunables = ("clusters", "beta", "nearest")

    def __init__(self, *, clusters: int = 60, beta: float = 9.0, nearest: int = 4) -> None:
        check_whole("clusters", clusters, 1)
        check_number("beta", beta, 0.0)
        check_whole("nearest", nearest, 1)
        self.clusters = clusters
        self.beta = beta
        self.nearest = nearest

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "clusters": {"log_integer": [16, 64]},
            "beta": {"log": [1.0, 100.0]},
            "nearest": {"log_integer": [1, 16]},
            "first": [{"clusters": 60, "beta": 9.0, "nearest": 4}, {"clusters": 1}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The paper's setting, the query-blind single cluster, then draws."""
        paper = {"clusters": 60, "beta": 9.0, "nearest": 4}

        def draw() -> dict[str, Any]:
            clusters, beta = log_integer(rng, 16, 64), log_uniform(rng, 1.0, 100.0)
            return {"clusters": clusters, "beta": beta, "nearest": log_integer(rng, 1, 16)}

        return filled([paper, {**paper, "clusters": 1}], draw, budget)

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Fewer clusters, then more of them asked, then flatter weights."""
        return (params["clusters"], -params["nearest"], params["beta"])

    def n_clusters(self) -> int:
        """The number given."""
        return self.clusters

    def weights(self, queries: Side) -> Floats:
        """Say of every cluster; rows sum to 1. [n, K]."""
        distances = 1.0 - queries.X.astype(np.float64) @ self.centres_.T
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.nearest]
        near = np.take_along_axis(distances, order, axis=1)
        odds = np.exp(-self.beta * (near - near[:, :1]))
        weights = np.zeros_like(distances)
        np.put_along_axis(weights, order, odds / odds.sum(axis=1, keepdims=True), axis=1)
        return weights

    def predict(self, queries: Side) -> Prediction:
        """Weighted means over the nearest clusters. [n, M]."""
        weights = self.weights(queries)
        scores, costs = self.cluster_means()
        return Prediction(scores=weights @ scores, costs=weights @ costs)

    def select(self, queries: Side) -> Positions:
        """The model of most weighted reciprocal ranks; ties to the lower mean training cost. [n]."""
        scores, costs = self.cluster_means()
        return most_voted(
            self.weights(queries) @ rank_votes(scores - self.price_ * costs, costs), self.overall_means()[1]
        )

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """One k-means for all configurations of a training side and stream that ask for as many clusters."""
        known: dict[tuple[int, int, str], Floats] = {}
        for job in jobs:
            begin = perf_counter()
            assert isinstance(job.router, Avengers)
            key = (id(job.train), job.router.clusters, repr(job.rng.bit_generator.state))
            if key not in known:
                known[key] = find_centres(job.train.X, job.router.clusters, job.rng)
            router = job.router.fill(job.train, known[key])
            if job.price is not None:
                router.price_ = job.price
            fitted = perf_counter()
            prediction = router.predict(job.queries) if job.price is None else router.select(job.queries)
            yield Fitted(
                prediction=prediction,
                fit_seconds=fitted - begin,
                route_seconds=perf_counter() - fitted,
                n_bytes=router.n_bytes,
            )


def rank_votes(utilities: Floats, costs: Floats) -> Floats:
    """Votes 1/i of the i-th model in each cluster, as shares; models that tie share the votes of their places.

    Args:
        utilities: Best first. [K, M]
        costs: Order models of equal utility, cheapest first. [K, M]

    Returns:
        Rows sum to 1. [K, M]
    """
    lead, dearer = (values[:, :, None] - values[:, None, :] for values in (utilities, costs))
    level = np.abs(lead) <= TIE
    ahead = ((lead < -TIE) | (level & (dearer > TIE))).sum(axis=2)
    tied = (level & (np.abs(dearer) <= TIE)).sum(axis=2)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, utilities.shape[1] + 1))])
    votes: Floats = (harmonic[ahead + tied] - harmonic[ahead]) / tied / harmonic[-1]
    return votes
