from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.errors import RouterError
from workers.metrics import areas, frontier
from workers.routers.base import Prediction, Router, router_class
from workers.routers.baselines import ZeroRouter
from workers.seeding import generator
from workers.sides import Trial, cost_ratios, hidden, subset, tuning_trials, whole
from workers.splits import split_benchmark
from workers.tuning import TuningTask, fit_jobs, tune
from workers.units import ProtocolOptions


class Known(Router):
    """Predicts what its parameter says: `good` knows the answer that m1 is best, the others do not."""

    name = "known"
    needs_embedding = False
    tunables = ("answer", "size")

    def __init__(self, *, answer: str = "bad", size: int = 3) -> None:
        self.answer, self.size = answer, size

    @classmethod
    def candidates(cls, *, n_train, budget, fixed, rng):
        return [
            {"answer": "bad", "size": 1},
            {"answer": "good", "size": 9},
            {"answer": "good", "size": 4},
            {"answer": "good", "size": 6},
        ]

    @classmethod
    def simplicity(cls, params):
        return (params["size"],)

    def fit(self, train, rng):
        return self

    def predict(self, queries):
        scores = np.zeros((queries.n, 2))
        scores[:, 1 if self.answer == "good" else 0] = 1.0
        return Prediction(scores=scores, costs=np.full((queries.n, 2), 0.5))

    def fit_selector(self, train, price, rng):
        return self

    def select(self, queries):
        return np.full(queries.n, 1 if self.answer == "good" else 0)


@pytest.fixture
def sides(learnable):
    benchmark, X = learnable
    everything = whole(benchmark, cost_ratios(benchmark, ProtocolOptions()), X)
    split = split_benchmark(benchmark, 0)
    return everything, subset(everything, split.train), subset(everything, split.validation)


def task(cls, trials, n_train, **changes):
    plain = TuningTask(
        cls=cls,
        fixed={},
        formulation="utility",
        trials=trials,
        n_train=n_train,
        root_seed=0,
        split=0,
        options=ProtocolOptions(tuning_budget=6),
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("formulation", ["utility", "selection"])
def test_the_best_configuration_wins_and_of_equals_the_simplest(make_side, formulation):
    held = make_side(np.eye(10), np.tile([0.0, 1.0], (10, 1)), np.full((10, 2), 0.5))
    trial = Trial(train=held, held=held, queries=hidden(held))
    (tuned,) = tune([task(Known, (trial,), 10, formulation=formulation)])
    assert tuned.chosen["params"] == {"answer": "good", "size": 4}
    assert tuned.router.params() == {"answer": "good", "size": 4}
    # One point: score 1 at cost .5, a triangle and a flat. Utility: 1 - λ/2, mean over λ = 1, .5, .1.
    best, worst = (75.0, 0.0) if formulation == "utility" else (100 * (1 - 1.6 / 6), -100 * 1.6 / 6)
    assert tuned.chosen["scores"] == pytest.approx([worst, best, best, best])
    assert tuned.chosen["score"] == pytest.approx(best)


def test_what_is_fixed_stays(make_side):
    held = make_side(np.eye(4), np.tile([0.0, 1.0], (4, 1)), np.full((4, 2), 0.5))
    trial = Trial(train=held, held=held, queries=hidden(held))
    cls = router_class("mlp")
    (tuned,) = tune([task(cls, (trial,), 4, fixed={"hidden": 5, "depth": 2, "batch_size": 16})])
    assert (tuned.router.hidden, tuned.router.depth, tuned.router.batch_size) == (5, 2, 16)
    assert set(tuned.chosen["params"]) == set(cls.tunables)


@pytest.mark.parametrize(
    ("name", "fixed"), [("knn", {"k": 3}), ("mlp", {"epochs": 0}), ("knn", {"weights": "uniform"})]
)
def test_a_tunable_that_is_fixed_is_not_tuned_and_the_budget_stays(sides, name, fixed):
    everything, train, validation = sides
    trials = tuning_trials(everything, train, validation, np.random.default_rng(0))
    (tuned,) = tune([task(router_class(name), trials[:1], train.n, fixed=fixed)])
    assert tuned.router.params().items() >= fixed.items()
    assert tuned.chosen["params"].items() >= fixed.items()
    assert len(tuned.chosen["scores"]) == 6


def test_a_small_validation_side_becomes_five_group_folds(sides):
    everything, train, validation = sides
    trials = tuning_trials(everything, train, validation, np.random.default_rng(0))
    assert len(trials) == 5
    pool = set(train.rows) | set(validation.rows)
    for trial in trials:
        assert not set(trial.train.groups) & set(trial.held.groups)
        assert set(trial.train.rows) | set(trial.held.rows) <= pool
        assert not np.isnan(trial.held.scores).any()
        assert trial.queries.scores is None
    complete = {row for row in pool if not np.isnan(everything.scores[row]).any()}
    assert sorted(row for trial in trials for row in trial.held.rows) == sorted(complete)


def test_a_validation_side_of_200_is_used_itself(sides):
    everything, train, _ = sides
    complete = np.flatnonzero(~np.isnan(train.scores).any(axis=1))
    for n, expected in ((200, 1), (199, 5)):
        validation = subset(train, complete[:n])
        rest = subset(train, np.setdiff1d(np.arange(train.n), complete[:n]))
        trials = tuning_trials(everything, rest, validation, np.random.default_rng(0))
        assert len(trials) == expected
    assert trials[0].train is not rest


def test_scores_are_validation_auc_path_averaged_over_the_folds(sides):
    everything, train, validation = sides
    trials = tuning_trials(everything, train, validation, np.random.default_rng(0))
    (tuned,) = tune([task(router_class("linear"), trials, train.n)])
    by_hand = []
    for trial in trials:
        router = ZeroRouter().fit(trial.train, np.random.default_rng(0))
        path = frontier.exact_path(router.predict(trial.held), trial.held.scores, trial.held.costs)
        by_hand.append(areas.auc_path(path))
    # The second configuration is the infinite penalty, which is the zero-router.
    assert tuned.chosen["scores"][1] == pytest.approx(np.mean(by_hand), abs=1e-9)
    assert tuned.chosen["folds"] == 5
    assert len(tuned.chosen["scores"]) == 6


@pytest.mark.parametrize("formulation", ["utility", "selection"])
@pytest.mark.parametrize("name", ["knn", "linear"])
def test_tuning_together_gives_what_tuning_alone_gives(sides, name, formulation):
    everything, train, validation = sides
    trials = tuning_trials(everything, train, validation, np.random.default_rng(0))
    others = tuning_trials(everything, train, validation, np.random.default_rng(1))
    first = task(router_class(name), trials, train.n, formulation=formulation)
    second = task(router_class(name), others, train.n, formulation=formulation, split=1)
    together = [tuned.chosen for tuned in tune([second, first])]
    assert together == [tune([second])[0].chosen, tune([first])[0].chosen]


def test_a_selector_is_fitted_once_per_preference_with_its_own_stream(sides):
    _, train, validation = sides
    trial = Trial(train=train, held=validation, queries=hidden(validation))
    jobs = fit_jobs(router_class("knn")(k=3), trial, "selection", 0, 4)
    assert [job.price for job in jobs] == [1.0, 0.5, 0.1]
    assert len({id(job.router) for job in jobs}) == 3
    assert jobs[0].rng.random() == generator(0, "fit", "knn", 4, "low-cost").random()
    assert len({job.rng.random() for job in jobs}) == 3


def test_a_router_without_tunables_is_refused(sides):
    _, train, validation = sides
    trial = Trial(train=train, held=validation, queries=hidden(validation))
    with pytest.raises(RouterError, match="nothing to tune"):
        tune([task(ZeroRouter, (trial,), train.n)])
    with pytest.raises(RouterError, match="no complete row"):
        tune([task(Known, (), train.n)])
