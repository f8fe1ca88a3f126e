from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from workers.errors import RouterError
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.labels import spread_labels
from workers.routers.linear import Linear

RNG = np.random.default_rng(0)


def predict(train, queries, penalty):
    return Linear(penalty=penalty).fit(train, RNG).predict(queries)


@pytest.mark.parametrize("penalty", [0.01, 1, 50.0])
def test_agrees_with_scikit_learns_ridge_on_each_models_observed_rows(random_sides, penalty):
    train, queries = random_sides()
    ours = predict(train, queries, penalty)
    for model in range(4):
        rows = ~np.isnan(train.scores[:, model])
        assert 0 < rows.sum() < train.n
        for predicted, targets in ((ours.scores, train.scores), (ours.costs, train.costs)):
            ridge = Ridge(alpha=penalty).fit(train.X[rows].astype(float), targets[rows, model])
            assert predicted[:, model] == pytest.approx(ridge.predict(queries.X.astype(float)), abs=1e-8)


@pytest.mark.parametrize(("n_train", "dim"), [(80, 6), (12, 30)])
def test_without_a_penalty_it_is_least_squares_of_minimal_norm(random_sides, n_train, dim):
    train, queries = random_sides(n_train=n_train, dim=dim)
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    theirs = LinearRegression().fit(train.X.astype(float), train.scores).predict(queries.X.astype(float))
    assert predict(train, queries, 0).scores == pytest.approx(theirs, abs=1e-7)


def test_an_infinite_penalty_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = predict(train, queries, "infinite")
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-14)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-14)


def test_a_model_never_observed_is_predicted_as_one_to_avoid(make_side):
    side = make_side(np.eye(3), [[1, np.nan], [0, np.nan], [1, np.nan]], np.ones((3, 2)))
    prediction = predict(side, side, 1.0)
    assert (prediction.scores[:, 1] == 0).all()
    assert (prediction.costs[:, 1] == 1).all()


def test_one_factorisation_for_several_penalties_gives_the_bits_of_each_alone(random_sides):
    train, queries = random_sides(n_train=300, dim=40)
    other, others = random_sides(n_train=250, dim=40, seed=1)
    jobs = [
        FitJob(router=Linear(penalty=penalty), train=t, queries=q, rng=RNG)
        for penalty in (0, 0.1, 7.0, "infinite")
        for t, q in ((train, queries), (other, others))
    ]
    alone = [next(Linear.predict_many([job])).prediction.scores.tobytes() for job in jobs]
    together = [fitted.prediction.scores.tobytes() for fitted in Linear.predict_many(jobs[::-1])][::-1]
    assert together == alone


@pytest.mark.parametrize("n_models", [2, 4])
def test_the_selector_agrees_with_scikit_learn_where_no_labels_tie(random_sides, n_models):
    train, queries = random_sides(n_models=n_models)
    train = replace(
        train,
        scores=np.nan_to_num(train.scores),
        costs=np.where(np.isnan(train.costs), 1.0 + np.arange(n_models), train.costs),
    )
    labels = spread_labels(train.scores, train.costs, 0.5)
    assert (labels.max(axis=1) == 1).all()
    model = LogisticRegression(C=1 / 0.3).fit(train.X.astype(float), labels.argmax(axis=1))
    ours = Linear(penalty=0.3).fit_selector(train, 0.5, RNG).select(queries)
    assert ours.tolist() == model.predict(queries.X.astype(float)).tolist()


def test_the_selectors_labels_are_shared_by_ties(make_side):
    # On the right m0 and m1 always tie at equal cost; on the left m1 alone is best: m1 has more to say everywhere.
    X = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 20, axis=0)
    scores = np.repeat([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], 20, axis=0)
    side = make_side(X, scores, np.full((40, 3), 0.2))
    assert (Linear(penalty=1.0).fit_selector(side, 0.5, RNG).select(side) == 1).all()


def test_the_selector_with_an_infinite_penalty_names_the_most_frequent_label(random_sides):
    train, queries = random_sides()
    shares = spread_labels(train.scores, train.costs, 0.5).sum(axis=0)
    assert (Linear(penalty="infinite").fit_selector(train, 0.5, RNG).select(queries) == shares.argmax()).all()


def test_the_selector_survives_a_single_label(make_side):
    side = make_side(np.eye(3), np.tile([1.0, 0.0], (3, 1)), np.ones((3, 2)))
    assert (Linear(penalty=1.0).fit_selector(side, 0.5, RNG).select(side) == 0).all()


def test_the_penalty_must_come_from_somewhere(random_sides):
    train, queries = random_sides()
    with pytest.raises(RouterError, match="give penalty"):
        predict(train, queries, None)
    with pytest.raises(RouterError, match="give penalty"):
        Linear().fit_selector(train, 0.5, RNG)


def test_candidates_hold_plain_regression_and_the_blind_limit():
    drawn = Linear.candidates(n_train=100, budget=20, fixed={}, rng=np.random.default_rng(1))
    assert len(drawn) == 20
    assert drawn[:2] == [{"penalty": 0.0}, {"penalty": "infinite"}]
    assert all(1e-3 <= config["penalty"] <= 1e4 for config in drawn[2:])
    assert min(drawn, key=Linear.simplicity) == {"penalty": "infinite"}
