"""How far can a correctness predictor be trusted away from its tasks? Routing from benchmark data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics.frontier import choose
from workers.routers.base import FitJob, Positions, Prediction, Side, mean_outcomes
from workers.routers.labels import most_voted
from workers.routers.lookup import Lookup, LookupRouter, Reduce, alike, bare, look_up
from workers.routers.parameters import check_number, filled, log_integer, log_uniform
from workers.routers.sums import weighted_sums
from workers.sides import subset
from workers.training import check_whole

Variant = Literal["S1", "S2", "S3"]
Unit = Literal["query", "task"]

#: Parts of a training side with one task alone, which stand in for tasks.
PARTS = 5


class Shnitzer(LookupRouter):
    """kNN correctness g(x) per model, and how much to trust it on a task that it was not made from.

    S1 = mean g over the task's queries; S2 = mean of 1[g > ½]; S3 = S2·p + (1 - S2)(1 - p), where p is the probability
    that 1[g > ½] is right. p comes from leaving each training task out: the accuracy on it of the predictor made from
    the others, and its distance u to them (mean cosine distance of its queries to their κ nearest); a Gaussian kernel
    of width σ on u then smooths the accuracies at the distance of what is routed. With S3 the best model by S3 is only
    trusted if P(S3 of it > S3 of the best model on average) > η, both being means of independent coin flips
    (normal approximation); else it falls back to the averages.

    Readings of this project.
    - `unit: query` (default): a query is its own task of one, so that what is answered does not depend on what else is
      routed; the paper does so on MixInstruct. `unit: task`, as in the paper on HELM, takes the mean over those queries
      of a task that are routed together.
    - Distances of what is routed are to the whole training side, its own task included if that is there.
    - A side with one task has no other: five parts of its groups (number modulo 5) take the place of tasks. Where not
      even that is possible p is ½, which falls back.
    - Correct means a score above ½; the best model on average is that of the highest training mean score.
    - To fall back is to predict the training means of all models. Costs are the training means.
    - σ 0.09, κ 19 and η 0.6 are as the paper is reported; they and k = 5 were not checked in it.

    Args:
        variant: Which score.
        k: Neighbours of the correctness predictor.
        sigma: Width of the kernel, in cosine distance; of S3 alone, as `kappa` and `eta`.
        kappa: Neighbours of the distance to a task.
        eta: Trust needed to leave the best average; at 1 it never is: query-blind.
        unit: What is averaged.
    """

    name = "shnitzer"
    summary = "kNN correctness, trusted by the distance to the training tasks"
    source = "Shnitzer et al. 2023, arXiv 2309.15789 (LLM routing with benchmark datasets), scores S1, S2, S3"
    formulations = ("utility", "selection")
    needs = ("task",)
    tunables = ("k", "sigma", "kappa", "eta")

    def __init__(
        self,
        *,
        variant: Variant = "S3",
        k: int = 5,
        sigma: float = 0.09,
        kappa: int = 19,
        eta: float = 0.6,
        unit: Unit = "query",
    ) -> None:
        if variant not in get_args(Variant):
            raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}, not {variant!r}.")
        if unit not in get_args(Unit):
            raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}, not {unit!r}.")
        check_whole("k", k, 1)
        check_whole("kappa", kappa, 1)
        check_number("sigma", sigma, 0.0, above=True)
        check_number("eta", eta, 0.0, 1.0)
        self.variant: Variant = variant
        self.k = k
        self.sigma = sigma
        self.kappa = kappa
        self.eta = eta
        self.unit: Unit = unit

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "k": {"log_integer": [1, "n_train"]},
            "sigma": {"log": [0.01, 1.0], "where": "variant = S3"},
            "kappa": {"log_integer": [1, 100], "where": "variant = S3"},
            "eta": {"uniform": [0.5, 1.0], "where": "variant = S3"},
            "first": [
                {"k": 5, "sigma": 0.09, "kappa": 19, "eta": 0.6},
                {"k": "n_train", "sigma": 0.09, "kappa": 19, "eta": 1.0},
            ],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The paper's setting, the query-blind limit, then draws; k alone is drawn for S1 and S2."""
        paper = {"k": min(5, n_train), "sigma": 0.09, "kappa": 19, "eta": 0.6}

        def draw() -> dict[str, Any]:
            k = log_integer(rng, 1, n_train)
            if fixed.get("variant", "S3") != "S3":
                return {**paper, "k": k}
            sigma, kappa = log_uniform(rng, 0.01, 1.0), log_integer(rng, 1, 100)
            return {"k": k, "sigma": sigma, "kappa": kappa, "eta": float(rng.uniform(0.5, 1.0))}

        return filled([paper, {**paper, "k": n_train, "eta": 1.0}], draw, budget)

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Less willing to leave the averages, then more neighbours, then a wider kernel."""
        return (-params["eta"], -params["k"], -params["sigma"], -params["kappa"])

    #: Distance of each left-out task to the others. [D]
    distances_: Floats
    #: Accuracy on each left-out task of the predictor made from the others, NaN = nothing observed. [D, M]
    accuracies_: Floats

    def learn(self, rng: np.random.Generator) -> None:
        """Leave each task out."""
        _calibrate([self])

    @classmethod
    def fit_many(cls, jobs: Sequence[FitJob]) -> list[LookupRouter]:
        """One search of the left-out tasks for all jobs of a training side."""
        routers: list[LookupRouter] = []
        sides: dict[int, list[Shnitzer]] = {}
        for job in jobs:
            router = job.router
            assert isinstance(router, Shnitzer)
            router.train_, router.price_ = bare(job.train), job.price
            sides.setdefault(id(job.train), []).append(router)
            routers.append(router)
        for members in sides.values():
            _calibrate(members)
        return routers

    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """Sums of the neighbours' scores, and the distance to the nearest queries."""
        return [self._lookup(self.train_, queries)]

    def _lookup(self, train: Side, queries: Side) -> Lookup:
        reduce = _scores_and_distance(train.outcomes[0], self.k, self.kappa)
        return Lookup(train=train, queries=queries, k=max(self.k, self.kappa), reduce=reduce)

    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction | Positions:
        """The variant's score of every model, or what it chooses."""
        means, mean_costs = mean_outcomes(self.train_)
        correct, distance = _correctness(found[0], means)
        of = np.arange(queries.n)
        if self.unit == "task":
            of = np.unique(np.array(queries.tasks), return_inverse=True)[1]
        counts = np.bincount(of)[:, None]
        judged = np.where(correct > 0.5, 1.0, 0.0)
        first, second, u = (_totals(each, of, len(counts)) / counts for each in (correct, judged, distance[:, None]))
        if self.variant == "S3":
            scores = self._trusted(second, u, counts, means, mean_costs)
        else:
            scores = first if self.variant == "S1" else second
        prediction = Prediction(scores=scores[of], costs=np.broadcast_to(mean_costs, (queries.n, len(means))))
        return prediction if self.price_ is None else choose(prediction, self.price_)

    def _trusted(self, second: Floats, u: Floats, counts: Positions, means: Floats, mean_costs: Floats) -> Floats:
        """S3, or the training means where the best by S3 is not trusted over the best on average. [T, M].

        Args:
            second: S2. [T, M]
            u: Distances. [T, 1]
            counts: Queries that each is the mean of. [T, 1]
            means: Mean training score of every model. [M]
            mean_costs: Mean training cost of every model. [M]
        """
        from scipy.special import ndtr

        p = smoothed(u[:, 0], self.distances_, self.accuracies_, self.sigma)
        third = second * p + (1.0 - second) * (1.0 - p)
        rows = np.arange(len(third))
        best, average = most_voted(third, mean_costs), most_voted(means[None], mean_costs)[0]
        lead = third[rows, best] - third[:, average]
        spread = np.sqrt((p * (1 - p))[rows, best] + (p * (1 - p))[:, average]) / np.sqrt(counts[:, 0])
        certain = np.where(lead > 0, np.inf, 0.0)
        trust = ndtr(np.where(spread > 0, lead / np.where(spread > 0, spread, 1.0), certain))
        trusted = (trust > self.eta) & (best != average)
        return np.where(trusted[:, None], third, means)


def _calibrate(routers: Sequence[Shnitzer]) -> None:
    """Distances and accuracies of left-out tasks, for routers of one training side."""
    train = routers[0].train_
    n_models = len(train.models)
    parts = left_out(train)
    asked = [router._lookup(out, held) for router in routers if router.variant == "S3" for out, held in parts]
    found = iter(look_up(asked))
    for router in routers:
        router.distances_, router.accuracies_ = np.zeros(0), np.zeros((0, n_models))
        if router.variant != "S3" or not parts:
            continue
        rows = []
        for out, held in parts:
            correct, distance = _correctness(next(found), mean_outcomes(out)[0])
            scores = held.outcomes[0]
            observed = ~np.isnan(scores)
            right = ((correct > 0.5) == (scores > 0.5)) & observed
            counts = observed.sum(axis=0)
            accuracy = np.where(counts > 0, right.sum(axis=0) / np.maximum(counts, 1), np.nan)
            rows.append((float(distance.mean()), accuracy))
        router.distances_ = np.array([distance for distance, _ in rows])
        router.accuracies_ = np.stack([accuracy for _, accuracy in rows])


def left_out(train: Side) -> list[tuple[Side, Side]]:
    """Training sides without a task, and the task; parts of the groups in the place of tasks where there is only one.

    Empty where that gives one part alone.
    """
    names, of = np.unique(np.array(train.tasks), return_inverse=True)
    if len(names) == 1:
        of = train.groups % PARTS
    labels = np.unique(of)
    if len(labels) == 1:
        return []
    return [
        (subset(train, np.flatnonzero(of != label)), subset(train, np.flatnonzero(of == label))) for label in labels
    ]


def smoothed(u: Floats, distances: Floats, accuracies: Floats, sigma: float) -> Floats:
    """Accuracies at distances u, by a Gaussian kernel over the tasks that observed the model; ½ without any. [T, M].

    Args:
        u: [T]
        distances: [D]
        accuracies: NaN = not observed. [D, M]
        sigma: Width.
    """
    observed = ~np.isnan(accuracies)
    if not observed.any():
        return np.full((len(u), accuracies.shape[1]), 0.5)
    exponents = -((u[:, None] - distances) ** 2) / (2.0 * sigma**2)
    # Far from every task all weights would vanish: relative to the largest among those that observed the model.
    exponents = np.where(observed.T, exponents[:, None, :], -np.inf)
    largest = exponents.max(axis=2, keepdims=True)
    weights = np.exp(exponents - np.where(np.isfinite(largest), largest, 0.0))
    total = weights.sum(axis=2)
    values: Floats = (weights * np.nan_to_num(accuracies).T).sum(axis=2)
    return np.where(total > 0, values / np.where(total > 0, total, 1.0), 0.5)


def _scores_and_distance(scores: Floats, k: int, kappa: int) -> Reduce:
    """Sums of observed scores and of observed cells over k neighbours, and the mean distance of kappa. [b, 2M + 1]."""
    table = np.hstack([np.nan_to_num(scores), ~np.isnan(scores)])

    def reduce(index: Positions, similarity: Floats) -> Floats:
        near = index[:, :k]
        distance = 1.0 - similarity[:, :kappa].mean(axis=1)
        return np.column_stack([weighted_sums(near, alike(near.astype(np.float64)), table), distance])

    return reduce


def _correctness(found: Floats, means: Floats) -> tuple[Floats, Floats]:
    """G of every model [n, M], where no neighbour observed it its training mean, and distances [n]."""
    total, observed = np.hsplit(found[:, :-1], 2)
    return np.where(observed > 0, total / np.maximum(observed, 1), means), found[:, -1]


def _totals(values: Floats, of: Positions, n: int) -> Floats:
    totals = np.zeros((n, values.shape[1]))
    np.add.at(totals, of, values)
    return totals
