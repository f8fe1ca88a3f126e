from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import LinearSVR

from workers.errors import RouterError
from workers.routers.base import mean_outcomes
from workers.routers.svr import SVR

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("C", [0.05, 1.0])
def test_agrees_with_scikit_learn_on_each_models_observed_rows(random_sides, C):
    train, queries = random_sides()
    ours = SVR(C=C).fit(train, RNG).predict(queries)
    for model in range(4):
        rows = ~np.isnan(train.scores[:, model])
        assert 0 < rows.sum() < train.n
        # RouterBench's own call, but for C.
        theirs = LinearSVR(C=C, random_state=1234).fit(train.X[rows].astype(float), train.scores[rows, model])
        assert ours.scores[:, model] == pytest.approx(theirs.predict(queries.X.astype(float)), abs=1e-10)
    assert (ours.costs == mean_outcomes(train)[1]).all()


def test_it_fits_medians(make_side):
    # Without a dead zone the loss of a constant is least at the median: 1 where the mean is 0.6.
    X = np.tile([[1.0, 0.0]], (10, 1))
    side = make_side(X, np.repeat([[1.0], [0.0]], [6, 4], axis=0), np.ones((10, 1)))
    assert SVR(C=1.0).fit(side, RNG).predict(side).scores == pytest.approx(1.0, abs=1e-3)
    assert SVR(C=0).fit(side, RNG).predict(side).scores == pytest.approx(0.6)


def test_without_weight_on_errors_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = SVR(C=0).fit(train, RNG).predict(queries)
    scores, costs = mean_outcomes(train)
    assert (prediction.scores == scores).all()
    assert (prediction.costs == costs).all()


def test_the_order_of_the_models_changes_nothing(random_sides):
    train, queries = random_sides(n_models=5)
    order = np.array([3, 0, 4, 1, 2])
    models = tuple(train.models[j] for j in order)
    moved = replace(train, models=models, scores=train.scores[:, order], costs=train.costs[:, order])
    plain = SVR(C=1.0).fit(train, RNG).predict(queries)
    assert SVR(C=1.0).fit(moved, RNG).predict(queries).scores == pytest.approx(plain.scores[:, order], abs=1e-12)


def test_a_model_never_observed_is_one_to_avoid(make_side):
    side = make_side(np.eye(3), [[1, np.nan], [0, np.nan], [1, np.nan]], np.ones((3, 2)))
    prediction = SVR(C=1.0).fit(side, RNG).predict(side)
    assert (prediction.scores[:, 1] == 0).all()
    assert (prediction.costs[:, 1] == 1).all()


def test_the_selector_maximises_predicted_utility(random_sides):
    train, queries = random_sides()
    prediction = SVR(C=0.1).fit(train, RNG).predict(queries)
    chosen = SVR(C=0.1).fit_selector(train, 0.5, RNG).select(queries)
    assert chosen.tolist() == (prediction.scores - 0.5 * prediction.costs).argmax(axis=1).tolist()


def test_C_must_come_from_somewhere(random_sides):
    with pytest.raises(RouterError, match="give C"):
        SVR().fit(random_sides()[0], RNG)


def test_candidates_hold_the_original_and_the_blind_limit():
    drawn = SVR.candidates(n_train=100, budget=20, fixed={}, rng=np.random.default_rng(1))
    assert len(drawn) == len({config["C"] for config in drawn}) == 20
    assert drawn[:2] == [{"C": 1.0}, {"C": 0.0}]
    assert all(1e-4 <= config["C"] <= 1.0 for config in drawn[2:])
    assert min(drawn, key=SVR.simplicity) == {"C": 0.0}
    assert len(SVR.candidates(n_train=100, budget=2, fixed={}, rng=np.random.default_rng(1))) == 2


@pytest.mark.parametrize("C", [-1, float("inf"), True, "lots"])
def test_refusals(C):
    with pytest.raises(ValueError, match="C must be a number"):
        SVR(C=C)
