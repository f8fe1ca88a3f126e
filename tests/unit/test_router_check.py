"""Every router passes the check that users get, and every rule of the check catches a router that breaks it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.check import check_router, find_router
from workers.errors import RouterError
from workers.routers.base import Prediction, Router, mean_outcomes, routers


@pytest.mark.parametrize("name", routers())
def test_every_router_passes(name):
    cls = routers()[name]
    # One epoch says as much about the contract as thirty, and ten neighbours of a support set as much as a hundred.
    few = {key: n for key, n in {"epochs": 1, "ppo_epochs": 1, "k": 10}.items() if key in cls().params()}
    failed = [f"{f.check}: {f.message}" for f in check_router(cls, few) if f.passed is False]
    assert not failed


class Honest(Router):
    """Predicts training means, moved a little by the query's embedding."""

    name = "honest"

    def fit(self, train, rng):
        self.scores_, self.costs_ = mean_outcomes(train)
        return self

    def predict(self, queries):
        moved = self.scores_ + 0.01 * queries.X[:, :1]
        return Prediction(scores=moved, costs=np.tile(self.costs_, (queries.n, 1)))


class ForgetsItself(Honest):
    def fit(self, train, rng):
        super().fit(train, rng)


class Unseeded(Honest):
    def fit(self, train, rng):
        super().fit(train, rng)
        self.scores_ = self.scores_ + np.random.default_rng().random()
        return self


class Overwrites(Honest):
    def fit(self, train, rng):
        train.outcomes[0][0, 0] = 0.25
        return super().fit(train, rng)


class PrefersTheFirst(Honest):
    def fit(self, train, rng):
        super().fit(train, rng)
        self.scores_ = self.scores_ + 0.1 * np.linspace(1, 0, len(self.scores_))
        return self


class LooksAtItsNeighbours(Honest):
    def predict(self, queries):
        found = super().predict(queries)
        return replace(found, scores=found.scores + 0.1 * np.arange(queries.n)[:, None])


class StumblesOverNaN(Honest):
    def fit(self, train, rng):
        self.scores_, self.costs_ = (values.mean(axis=0) for values in train.outcomes)
        return self


class Cheats(Honest):
    def predict(self, queries):
        found = super().predict(queries)
        return found if queries.scores is None else replace(found, scores=queries.scores)


class CheatsInVain(Honest):
    privileged = True


class SeesThrough(Honest):
    query_blind = True


class Unsavable(Honest):
    def fit(self, train, rng):
        self.model_ = super().fit
        return super().fit(train, rng)


class WrongShape(Honest):
    def predict(self, queries):
        found = super().predict(queries)
        return replace(found, scores=found.scores[:, :-1])


class Undrawable(Honest):
    tunables = ("weight",)

    def __init__(self, *, weight=1.0):
        self.weight = weight

    @classmethod
    def candidates(cls, *, n_train, budget, fixed, rng):
        return [{"wait": 1.0}]


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (ForgetsItself, "fit returns self"),
        (Unseeded, "deterministic for a seed"),
        (Overwrites, "read-only inputs"),
        (PrefersTheFirst, "order of models, ties"),
        (LooksAtItsNeighbours, "order of queries"),
        (StumblesOverNaN, "edge cases"),
        (Cheats, "test outcomes"),
        (CheatsInVain, "test outcomes"),
        (SeesThrough, "query-blind as declared"),
        (Unsavable, "save and load"),
        (WrongShape, "finite predictions of the right shape"),
        (Undrawable, "tuning space"),
    ],
)
def test_each_rule_catches_who_breaks_it(cls, check):
    found = {finding.check: finding.passed for finding in check_router(cls)}
    assert found[check] is False


def test_the_honest_router_passes_and_reports_memory_and_time():
    found = check_router(Honest)
    assert all(finding.passed is not False for finding in found)
    assert "KiB" in found[-1].message and "fit" in found[-1].message


def test_a_router_is_found_by_module_and_class_or_refused_with_the_reason():
    assert find_router("workers.routers.knn:KNN") is routers()["knn"]
    for name, why in (
        ("knnn", "did you mean"),
        ("workers.nowhere:X", "cannot be imported"),
        ("json:loads", "subclass"),
    ):
        with pytest.raises(RouterError, match=why):
            find_router(name)
