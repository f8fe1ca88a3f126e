"""Where a router's assumption holds it should come near the best that any router can do, and beat one whose fails.

Each truth gives every model's expected score as a function of the embedding, so the area and the utilities that a
router may expect on its test queries are computed from expectations, and the optimum is known in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from workers.benchmarks.base import Model
from workers.metrics.areas import auc_path
from workers.metrics.frontier import choose, exact_path
from workers.routers.base import Prediction, Side, router_class, untuned_params
from workers.units import PREFERENCES

#: A weak and cheap model and a strong and dear one, of the truths that depend on one direction.
PAIR = np.array([0.5, 1.0])


@dataclass(frozen=True, eq=False)
class Truth:
    train: Side
    queries: Side
    #: Expected scores of the queries, [n, M], and costs, [M].
    scores: np.ndarray
    costs: np.ndarray
    #: Utility of the optimum at a price of cost, in the mean over all queries there could be.
    optimum: Callable[[float], float]


class Figures(NamedTuple):
    """What a router may expect on the queries, x 100."""

    area: float
    #: Mean over the three preferences.
    utility: float


def figures(truth: Truth, prediction: Prediction) -> Figures:
    costs, rows = np.tile(truth.costs, (len(truth.scores), 1)), np.arange(len(truth.scores))
    utilities = []
    for price in PREFERENCES.values():
        chosen = choose(prediction, price)
        utilities.append((truth.scores[rows, chosen] - price * truth.costs[chosen]).mean())
    return Figures(auc_path(exact_path(prediction, truth.scores, costs)), 100 * float(np.mean(utilities)))


def best(truth: Truth) -> Figures:
    return figures(truth, Prediction(scores=truth.scores, costs=np.tile(truth.costs, (len(truth.scores), 1))))


@cache
def reached(kind: str, name: str, given: tuple[tuple[str, object], ...] = ()) -> Figures:
    truth, cls = TRUTHS[kind](), router_class(name)
    params = untuned_params(cls, dict(given), n_train=truth.train.n)
    prediction = cls(**params).fit(truth.train, np.random.default_rng(1)).predict(truth.queries)
    assert isinstance(prediction, Prediction)
    return figures(truth, prediction)


def shares(kind: str, name: str, given: tuple[tuple[str, object], ...] = ()) -> Figures:
    """Which part of the way from the zero-router to the optimum a router goes."""
    start, end = reached(kind, "zero-router"), best(TRUTHS[kind]())
    return Figures(*((a - b) / (c - b) for a, b, c in zip(reached(kind, name, given), start, end, strict=True)))


def on_sphere(rng, n, dim):
    X = rng.normal(size=(n, dim))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def drawn(rng, X, expected, scores, costs, n_train, optimum):
    """Sides of queries X, of which the first are trained on; costs scatter by a fifth either way."""
    matrix = X.astype(np.float32)
    matrix.flags.writeable = False
    everything = Side(
        rows=np.arange(len(X)),
        matrix=matrix,
        embedding_rows=np.arange(len(X)),
        tasks=("",) * len(X),
        groups=np.arange(len(X)),
        models=tuple(Model(name=f"m{j}") for j in range(len(costs))),
    )

    def part(rows):
        tasks = ("",) * len(rows)
        return replace(everything, rows=rows, embedding_rows=rows, tasks=tasks, groups=rows)

    train, queries = part(np.arange(n_train)), part(np.arange(n_train, len(X)))
    seen = costs * rng.uniform(0.8, 1.2, size=(n_train, len(costs)))
    return Truth(
        train=replace(train, scores=scores[:n_train], costs=seen),
        queries=queries,
        scores=expected[n_train:],
        costs=costs,
        optimum=optimum,
    )


def along(dim):
    """Density of one coordinate of a uniform point on the sphere in `dim` dimensions."""
    norm = math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim - 1) / 2))
    return lambda t: norm * (1 - t * t) ** ((dim - 3) / 2)


@cache
def linear_truth():
    """Expected scores linear in x, in 16 dimensions; errors symmetric."""
    rng, dim, slope, lead = np.random.default_rng(11), 16, 0.35, 0.1
    X = on_sphere(rng, 3500, dim)
    directions = np.linalg.qr(rng.normal(size=(dim, 2)))[0]
    expected = np.array([0.45, 0.45 + lead]) + slope * X @ directions
    scores = expected + rng.uniform(-0.1, 0.1, size=expected.shape)
    assert scores.min() >= 0 and scores.max() <= 1

    def optimum(price):
        # E max(0, a t + b) along the difference of the directions, whose length is sqrt(2).
        a, b = slope * math.sqrt(2), lead - price * (PAIR[1] - PAIR[0])
        t = -b / a
        if abs(t) >= 1:
            return 0.45 - price * PAIR[0] + max(0.0, b)
        above = beta((dim - 1) / 2, (dim - 1) / 2).sf((1 + t) / 2)
        return 0.45 - price * PAIR[0] + b * above + a * along(dim)(t) * (1 - t * t) / (dim - 1)

    return drawn(rng, X, expected, scores, PAIR, 1500, optimum)


@cache
def clustered_truth():
    """24 tight clusters in 5 dimensions, each with four chances of its own: too many for a linear function."""
    rng, k, dim = np.random.default_rng(12), 24, 5
    costs, table = np.array([0.25, 0.5, 0.75, 1.0]), rng.choice([0.1, 0.9], size=(k, 4), p=[0.6, 0.4])
    of = np.concatenate([rng.integers(k, size=2000), np.repeat(np.arange(k), 80)])
    X = on_sphere(rng, k, dim)[of] + 0.02 * rng.normal(size=(len(of), dim))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    expected = table[of]
    scores = (rng.random(expected.shape) < expected).astype(float)

    def optimum(price):
        return float((table - price * costs).max(axis=1).mean())

    return drawn(rng, X, expected, scores, costs, 2000, optimum)


@cache
def smooth_truth():
    """On the ordinary sphere the strong model gains by a harmonic of degree 2: even, so no linear function sees it."""
    rng, size = np.random.default_rng(13), 0.45
    X = on_sphere(rng, 6000, 3)
    axis = np.array([2.0, -1.0, 2.0]) / 3
    gain = size * (1.5 * (X @ axis) ** 2 - 0.5)
    expected = np.column_stack([np.full(len(X), 0.5), 0.5 + gain])
    scores = (rng.random(expected.shape) < expected).astype(float)

    def optimum(price):
        # A coordinate is uniform on [-1, 1] (Archimedes): the mean over t in [0, 1] of max(0, q t^2 - p).
        q, p = 1.5 * size, 0.5 * size + price * (PAIR[1] - PAIR[0])
        t = min(1.0, math.sqrt(p / q))
        return 0.5 - price * PAIR[0] + q * (1 - t**3) / 3 - p * (1 - t)

    return drawn(rng, X, expected, scores, PAIR, 4000, optimum)


@cache
def pairwise_truth():
    """The strong model beats the weak one with chance sigma(8 x·u); two battles in five are ties, half of them won."""
    rng, dim, decided = np.random.default_rng(14), 16, 0.6
    X = on_sphere(rng, 3500, dim)
    u = on_sphere(rng, 1, dim)[0]
    chance = 1 / (1 + np.exp(-8 * X @ u))
    expected = (1 - decided) / 2 + decided * np.column_stack([1 - chance, chance])
    win = rng.random(len(X)) < chance
    alike = np.tile(rng.random((len(X), 1)) < 0.5, 2)
    tie = rng.random((len(X), 1)) >= decided
    scores = np.where(tie, alike, np.column_stack([~win, win])).astype(float)

    def optimum(price):
        dearer = price * (PAIR[1] - PAIR[0])
        more = quad(lambda t: max(0.0, decided * math.tanh(4 * t) - dearer) * along(dim)(t), -1, 1, limit=200)[0]
        return 0.5 - price * PAIR[0] + more

    return drawn(rng, X, expected, scores, PAIR, 1500, optimum)


TRUTHS = {"linear": linear_truth, "clustered": clustered_truth, "smooth": smooth_truth, "pairwise": pairwise_truth}


@dataclass(frozen=True, kw_only=True)
class Case:
    truth: str
    router: str
    params: tuple[tuple[str, object], ...] = ()
    #: Parts of the way to the optimum, at least: of the area, and of the utility.
    area: float = 0.9
    utility: float = 0.9


#: Longer training than the default, so that it is the assumption that is tested and not the number of steps.
LONG = (("epochs", 30), ("learning_rate", 0.003))
CASES = [
    Case(truth="linear", router="linear", params=(("penalty", 0.1),), area=0.98, utility=0.98),
    Case(truth="linear", router="linear-mf", params=LONG),
    Case(truth="linear", router="svr", params=(("C", 1.0),), area=0.98, utility=0.98),
    Case(truth="linear", router="forc", params=(("C", 100.0),)),
    Case(truth="clustered", router="uniroute", params=(("clusters", 48),)),
    Case(truth="clustered", router="avengers", utility=0.8),
    Case(truth="smooth", router="knn", params=(("k", 150),)),
    Case(truth="smooth", router="attn", params=(("k", 100), ("epochs", 2))),
    Case(truth="pairwise", router="routellm-mf", params=(("epochs", 20), ("learning_rate", 0.001))),
    # Weights of at most 100 : 1 smooth so much that win rates keep their order but are drawn to the mean: prices of
    # cost buy too little then.
    Case(truth="pairwise", router="routellm-sw", utility=0.0),
]
#: Of each truth a router whose assumption fails, and how much less of the way it goes, at least.
FAILING = {
    "linear": ("uniroute", (("clusters", 20),), 0.3),
    "clustered": ("linear", (("penalty", 0.1),), 0.3),
    "smooth": ("linear", (("penalty", 0.1),), 0.7),
    "pairwise": ("uniroute", (("clusters", 20),), 0.2),
}


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("preference", PREFERENCES)
def test_the_optimum_has_its_closed_form(kind, preference):
    truth, price = TRUTHS[kind](), PREFERENCES[preference]
    utilities = (truth.scores - price * truth.costs).max(axis=1)
    error = utilities.std() / math.sqrt(len(utilities))
    # The test queries of the clusters are equally many: no error at all.
    assert utilities.mean() == pytest.approx(truth.optimum(price), abs=1e-9 if kind == "clustered" else 3 * error)


@pytest.mark.parametrize("kind", TRUTHS)
def test_there_is_something_to_learn(kind):
    start, end = reached(kind, "zero-router"), best(TRUTHS[kind]())
    assert end.area > start.area + 1 and end.utility > start.utility + 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.truth}-{case.router}")
def test_where_its_assumption_holds_a_router_comes_near_the_optimum(case):
    part = shares(case.truth, case.router, case.params)
    # Below the cheapest model a path is the straight line from (0, 0), which need not be concave: a little above 1.
    assert case.area <= part.area <= 1.005
    # No choice has more utility than the optimum on any query.
    assert case.utility <= part.utility <= 1 + 1e-9


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.truth}-{case.router}")
def test_it_beats_a_router_whose_assumption_fails(case):
    name, params, less = FAILING[case.truth]
    assert shares(case.truth, case.router, case.params).area >= shares(case.truth, name, params).area + less
