from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from workers.routers.base import mean_outcomes
from workers.routers.routellm_sw import RouteLLMSW, bradley_terry, weighted_battles

NAN = np.nan
RNG = np.random.default_rng(0)


def rising(train):
    """The same side with dearer models better, so that the chain has several pairs."""
    rng = np.random.default_rng(9)
    chances = np.linspace(0.3, 0.8, train.scores.shape[1]) + 0.2 * train.X[:, :1]
    scores = np.where(np.isnan(train.scores), NAN, rng.random(train.scores.shape) < chances)
    return replace(train, scores=scores)


def most_likely(weights, scores, prior):
    """Log-strengths by scipy, from a plain loop over battles."""
    m = scores.shape[1]
    battles = [(prior, j, k, 0.5) for j, k in combinations(range(m), 2)]
    for w, row in zip(weights, scores, strict=True):
        for j, k in combinations(range(m), 2):
            if not np.isnan(row[j] + row[k]):
                battles.append((w, j, k, 0.5 + 0.5 * np.sign(row[j] - row[k])))
    w, j, k, y = (np.array(column) for column in zip(*battles, strict=True))
    j, k = j.astype(int), k.astype(int)

    def negative(theta):
        gap = theta[j] - theta[k]
        return (w * (y * np.logaddexp(0, -gap) + (1 - y) * np.logaddexp(0, gap))).sum()

    def slope(theta):
        pull = w * (1 / (1 + np.exp(theta[k] - theta[j])) - y)
        return np.bincount(j, pull, m) - np.bincount(k, pull, m)

    found = minimize(negative, np.zeros(m), jac=slope, method="BFGS", options={"gtol": 1e-10}).x
    return found - found.mean()


def test_agrees_with_a_direct_maximiser_of_the_likelihood(random_sides):
    train, queries = random_sides(n_models=5)
    train = rising(train)
    router = RouteLLMSW(gamma=10.0).fit(train, RNG)
    assert len(router.chain_) >= 3
    rates = router.win_rates(queries)
    cosines = queries.X.astype(float) @ train.X.astype(float).T
    for i in (0, 7, 29):
        weights = 10.0 ** (1 + cosines[i])
        strengths = most_likely(weights / weights.sum(), train.scores, 1e-6)[router.chain_]
        assert rates[i] == pytest.approx(1 / (1 + np.exp(-np.diff(strengths))), abs=1e-6)


def test_strengths_of_four_models_with_a_large_prior_agree_too():
    rng = np.random.default_rng(1)
    scores, weights = rng.choice([0, 0.5, 1, NAN], size=(30, 4)), rng.dirichlet(np.ones(30), size=3)
    found = bradley_terry(*weighted_battles(weights, scores, 0.1))
    for row, expected in zip(weights, found, strict=True):
        assert most_likely(row, scores, 0.1) == pytest.approx(expected, abs=1e-7)


def test_a_win_rate_by_hand(make_side):
    # cos of the query with the training queries: 1, 0.6 and 0. The strong model wins, ties, and loses.
    train = make_side([[1, 0], [0.6, 0.8], [0, 1]], [[0, 1], [1, 1], [0.4, 0]], np.tile([0.1, 0.5], (3, 1)))
    weights = np.array([10**2, 10**1.6, 10**1])
    expected = (weights[0] + weights[1] / 2) / weights.sum()
    for battles in ("pool", "pair"):
        router = RouteLLMSW(battles=battles, prior=1e-12).fit(train, RNG)
        assert router.win_rates(train)[0] == pytest.approx([expected], abs=1e-6)
    # Over the largest cosine of each query, 1 here; of the last but one query the cosines are 0.6, 1 and 0.8.
    relative = RouteLLMSW(relative=True, prior=1e-12).fit(train, RNG)
    assert relative.win_rates(train)[0] == pytest.approx([expected], abs=1e-6)


def test_relative_weights_are_by_the_largest_similarity(make_side):
    train = make_side([[1, 0], [0.6, 0.8]], [[0, 1], [1, 0.5]], np.tile([0.1, 0.5], (2, 1)))
    query = replace(make_side([[0.0, 1.0]], [[0, 0]], [[0, 0]]), scores=None, costs=None)
    rate = RouteLLMSW(relative=True).fit(train, RNG).win_rates(query)
    # Cosines 0 and 0.8 are 0 and 1 of the largest.
    assert rate[0] == pytest.approx([10 / (10 + 100)], abs=1e-5)
    # With no positive similarity there is nothing to divide by: cosines -0.8 and -1, not 0.8 and 1.
    away = replace(make_side([[-0.8, -0.6]], [[0, 0]], [[0, 0]]), scores=None, costs=None)
    rate = RouteLLMSW(relative=True).fit(train, RNG).win_rates(away)
    assert rate[0] == pytest.approx([10**0.2 / (10**0.2 + 10**0.04)], abs=1e-5)


def test_the_gamma_of_1_is_the_zero_router_of_two_models(random_sides):
    train, queries = random_sides(n_models=2)
    train = rising(replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs)))
    prediction = RouteLLMSW(gamma=1.0).fit(train, RNG).predict(queries)
    assert prediction.scores == pytest.approx(np.tile(mean_outcomes(train)[0], (queries.n, 1)), abs=1e-5)
    assert prediction.scores == pytest.approx(np.tile(prediction.scores[0], (queries.n, 1)), abs=1e-12)


def test_a_model_that_never_wins_and_one_that_was_never_observed_have_finite_strengths(random_sides):
    train, queries = random_sides()
    scores = rising(train).scores.copy()
    scores[:, 0], scores[:, 1] = -1.0 + 0 * scores[:, 0], NAN
    router = RouteLLMSW().fit(replace(train, scores=scores, costs=np.where(np.isnan(scores), NAN, train.costs)), RNG)
    prediction = router.predict(queries)
    assert np.isfinite(prediction.scores).all() and 1 not in router.chain_
    weights = np.full((1, train.n), 1 / train.n)
    wins, totals = weighted_battles(weights, scores, 1e-6)
    strengths = bradley_terry(wins, totals)[0]
    chances = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
    # At the maximum every model wins as often as expected.
    assert (wins[0] - totals[0] * chances).sum(axis=1) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("battles", ["pool", "pair"])
def test_the_order_of_models_and_training_queries_changes_nothing(random_sides, battles):
    train, queries = random_sides(n_models=5)
    train = rising(train)
    columns, rows = np.array([3, 0, 4, 1, 2]), np.random.default_rng(1).permutation(train.n)
    moved = replace(
        train,
        rows=train.rows[rows],
        embedding_rows=train.embedding_rows[rows],
        scores=train.scores[rows][:, columns],
        costs=train.costs[rows][:, columns],
    )
    straight = RouteLLMSW(battles=battles).fit(train, RNG).predict(queries)
    other = RouteLLMSW(battles=battles).fit(moved, RNG).predict(queries)
    assert straight.scores[:, columns] == pytest.approx(other.scores, abs=1e-8)
    assert straight.costs[:, columns] == pytest.approx(other.costs, abs=1e-8)


def test_one_model_is_a_chain_of_one(random_sides):
    train, queries = random_sides(n_models=1)
    router = RouteLLMSW().fit(train, RNG)
    assert router.predict(queries).scores == pytest.approx(np.tile(mean_outcomes(train)[0], (queries.n, 1)))
    assert (router.fit_selector(train, 0.5, RNG).select(queries) == 0).all()


def test_many_queries_are_answered_as_each_alone(random_sides):
    train, queries = random_sides(n_train=60, n_queries=600)
    train = rising(train)
    router = RouteLLMSW().fit(train, RNG)
    rates = router.win_rates(queries)
    for i in (0, 255, 256, 599):
        alone = replace(queries, rows=queries.rows[[i]], embedding_rows=queries.embedding_rows[[i]])
        assert router.win_rates(alone)[0] == pytest.approx(rates[i], abs=1e-9)


def test_candidates_hold_the_original_and_the_blind_limit():
    drawn = RouteLLMSW.candidates(n_train=100, budget=20, fixed={}, rng=np.random.default_rng(1))
    assert len(drawn) == 20
    assert drawn[0] == {"gamma": 10.0, "relative": False} and drawn[1]["gamma"] == 1.0
    assert all(RouteLLMSW(**config).gamma >= 1 for config in drawn)
    assert min(drawn, key=RouteLLMSW.simplicity) == drawn[1]


@pytest.mark.parametrize("bad", [{"gamma": 0.5}, {"relative": 1}, {"battles": "all"}, {"prior": 0}])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RouteLLMSW(**bad)
